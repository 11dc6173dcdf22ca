"""Max pooling that also returns where each maximum came from, and its inverse.

The positions are the "switches" of M. Zeiler and R. Fergus, "Visualizing and Understanding
Convolutional Networks", arXiv 1311.2901. This is the only place that knows how they are laid out:

    indices[r] == (batch, y, x, channel)

of the winner, in the map before pooling, for the r-th element of the pooled map in row-major order.
"""

import tensorflow as tf

__all__ = ["as_index_dtype", "max_pool", "max_pool_with_indices", "unpool"]


def as_index_dtype(index_dtype: tf.DType | str) -> tf.DType:
    """Returns tf.int64 or tf.int32.

    Raises:
      ValueError: if `index_dtype` is neither of these, nor their name.
    """
    for dtype in (tf.int64, tf.int32):
        if index_dtype == dtype:
            return dtype
    name = getattr(index_dtype, "name", index_dtype)
    raise ValueError(f"`index_dtype` must be int64 or int32. Received: {name}.")


def max_pool(values: tf.Tensor) -> tf.Tensor:
    """Pools as VGG19 does: 2x2 windows, stride 2, an odd last row or column dropped.

    Args:
      values: (B, H, W, C), any floating dtype.

    Returns:
      The maxima, (B, H//2, W//2, C), dtype of `values`. A NaN that is the first of its window is
      ignored, which `max_pool_with_indices` does not do.
    """
    return tf.nn.max_pool2d(values, ksize=2, strides=2, padding="VALID")


def max_pool_with_indices(
    values: tf.Tensor, index_dtype: tf.DType | str = tf.int64
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pools finite values like `max_pool`, and returns where each maximum came from.

    The indices are always in range, and the pooled value is always the one that the index points
    at. In a tie the first in row-major order wins. A NaN wins if it is the first of its window,
    and loses otherwise: `tf.nn.max_pool_with_argmax` compares with `<`.

    Args:
      values: (B, H, W, C), any floating dtype, B >= 1.
      index_dtype: int64 or int32.

    Returns:
      The maxima, (B, H//2, W//2, C), dtype of `values`, and the indices,
      (B * H//2 * W//2 * C, 4), dtype `index_dtype`, columns (batch, y, x, channel).

    Raises:
      ValueError: if `index_dtype` is neither.
    """
    index_dtype = as_index_dtype(index_dtype)
    # The gradient of this operation exists for an int64 argmax only, so the cast comes last.
    pooled, argmax = tf.nn.max_pool_with_argmax(
        values,
        ksize=2,
        strides=2,
        padding="VALID",
        output_dtype=tf.int64,
        include_batch_in_index=False,
    )  # both (B, H//2, W//2, C); argmax = (y * W + x) * C + channel
    _, _, width, channels = tf.unstack(tf.shape(values, out_type=tf.int64))
    channel = argmax % channels
    x = argmax // channels % width
    y = argmax // (channels * width)
    batch = tf.range(tf.shape(argmax, out_type=tf.int64)[0])
    batch = tf.broadcast_to(batch[:, tf.newaxis, tf.newaxis, tf.newaxis], tf.shape(argmax))
    indices = tf.stack([batch, y, x, channel], axis=-1)  # (B, H//2, W//2, C, 4)
    return pooled, tf.cast(tf.reshape(indices, [-1, 4]), index_dtype)


def unpool(pooled: tf.Tensor, indices: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Puts every value back where its maximum came from, with zeros everywhere else.

    Args:
      pooled: (B, H//2, W//2, C), any floating dtype; not necessarily the maxima themselves.
      indices: (B * H//2 * W//2 * C, 4), int64 or int32, from `max_pool_with_indices`.
      shape: (4,), the shape (B, H, W, C) of the map before pooling.

    Returns:
      The map before pooling, (B, H, W, C), dtype of `pooled`.
    """
    return tf.scatter_nd(indices, tf.reshape(pooled, [-1]), tf.cast(shape, indices.dtype))
