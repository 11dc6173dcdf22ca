"""Max pooling that also returns where each maximum came from, and its inverse.

The positions are the "switches" of M. Zeiler and R. Fergus, "Visualizing and Understanding
Convolutional Networks", arXiv 1311.2901. This is the only place that knows how they are laid out.
For a map (B, H, W, C), pooled to (B, h, w, C) with h = H // 2 and w = W // 2, they come as

  * indices, (B * h * w * C, 4), int64 or int32: indices[r] is the (batch, y, x, channel) of the
    winner, in the map before pooling, for the r-th element of the pooled map in row-major order;
  * or switches, (B, h, w, C), uint8: 2 * dy + dx, the winner's place in its window of two by two.

Both say the same; the switches take 1 byte where the indices take 32 (int64).
"""

import tensorflow as tf

from export import spec

__all__ = [
    "as_index_dtype",
    "check_engine",
    "indices_to_switches",
    "max_pool",
    "max_pool_with_indices",
    "max_pool_with_switches",
    "switches_to_indices",
    "unpool",
]


def as_index_dtype(index_dtype: tf.DType | str) -> tf.DType:
    """Returns tf.int64 or tf.int32.

    Raises:
      ValueError: if `index_dtype` is neither of these, nor their name.
    """
    for dtype in map(tf.as_dtype, spec.INDEX_DTYPES):
        if index_dtype == dtype:
            return dtype
    name = getattr(index_dtype, "name", index_dtype)
    raise ValueError(f"`index_dtype` must be {' or '.join(spec.INDEX_DTYPES)}. Received: {name}.")


def check_engine(engine: str) -> str:
    """Returns `engine`.

    Raises:
      ValueError: if it is not one of `spec.ENGINES`.
    """
    if engine not in spec.ENGINES:
        raise ValueError(
            f"`engine` must be one of {', '.join(spec.ENGINES)}. Received: {engine!r}."
        )
    return engine


def max_pool(values: tf.Tensor) -> tf.Tensor:
    """Pools as VGG19 does: 2x2 windows, stride 2, an odd last row or column dropped.

    Args:
      values: (B, H, W, C), any floating dtype.

    Returns:
      The maxima, (B, h, w, C), dtype of `values`. A NaN that is the first of its window is
      ignored, and a window of -inf alone gives the lowest finite number; not so in the other
      functions.
    """
    return tf.nn.max_pool2d(values, ksize=2, strides=2, padding="VALID")


def max_pool_with_indices(
    values: tf.Tensor, index_dtype: tf.DType | str = tf.int64, engine: str = "argmax"
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pools finite values like `max_pool`, and returns where each maximum came from.

    The indices are always in range, and the pooled value is always the one that the index points
    at. In a tie the first in row-major order wins. A NaN wins if it is the first of its window,
    and loses otherwise: `tf.nn.max_pool_with_argmax` compares with `<`.

    Args:
      values: (B, H, W, C), any floating dtype, B >= 1, H >= 2.
      index_dtype: int64 or int32.
      engine: one of `spec.ENGINES`; they return the same.

    Returns:
      The maxima, (B, h, w, C), dtype of `values`, and the indices, (B * h * w * C, 4), dtype
      `index_dtype`, columns (batch, y, x, channel).

    Raises:
      ValueError: if `index_dtype` or `engine` is not one of those.
    """
    index_dtype = as_index_dtype(index_dtype)
    values = tf.convert_to_tensor(values)
    if check_engine(engine) == "xla":
        pooled, switches = _pool_by_comparison(values)
        return pooled, switches_to_indices(switches, index_dtype)
    pooled, argmax = _pool_by_row_pairs(values)
    # One row of the table for every place in a pair of rows spares dividing every argmax.
    _, y, x, channel = _places_in_row_pair(values)
    table = tf.stack([tf.zeros_like(y), y, x, channel], axis=-1)
    indices = tf.gather(tf.cast(table, index_dtype), argmax)  # (B * h, w * C, 4)
    batch, row = _batch_and_row(values)
    start = tf.stack([batch, 2 * row, tf.zeros_like(row), tf.zeros_like(row)], axis=-1)
    # An addition along an axis of 4 * C is faster than one along an axis of 4.
    _, _, width, channels = tf.unstack(tf.shape(values))
    start = tf.tile(tf.cast(start, index_dtype), [1, channels])[:, tf.newaxis]  # (B * h, 1, 4 * C)
    indices = tf.reshape(indices, [tf.shape(row)[0], width // 2, 4 * channels]) + start
    return pooled, tf.reshape(indices, [-1, 4])


def max_pool_with_switches(
    values: tf.Tensor, engine: str = "argmax"
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pools like `max_pool_with_indices` and returns the compact form of the indices.

    Args:
      values: (B, H, W, C), any floating dtype, B >= 1, H >= 2.
      engine: one of `spec.ENGINES`; they return the same.

    Returns:
      The maxima, (B, h, w, C), dtype of `values`, and the switches, (B, h, w, C), uint8: 0 to 3
      for upper left, upper right, lower left and lower right.

    Raises:
      ValueError: if `engine` is not one of those.
    """
    values = tf.convert_to_tensor(values)
    if check_engine(engine) == "xla":
        return _pool_by_comparison(values)
    pooled, argmax = _pool_by_row_pairs(values)
    switch, *_ = _places_in_row_pair(values)
    return pooled, tf.reshape(tf.gather(tf.cast(switch, tf.uint8), argmax), tf.shape(pooled))


def switches_to_indices(switches: tf.Tensor, index_dtype: tf.DType | str = tf.int64) -> tf.Tensor:
    """Returns the indices that say the same as `switches`.

    Args:
      switches: (B, h, w, C), uint8, 0 to 3.
      index_dtype: int64 or int32.

    Returns:
      (B * h * w * C, 4), dtype `index_dtype`, columns (batch, y, x, channel).

    Raises:
      ValueError: if `index_dtype` is neither.
    """
    index_dtype = as_index_dtype(index_dtype)
    switches = tf.cast(switches, index_dtype)
    batch, height, width, channels = tf.unstack(tf.shape(switches))
    batch, y, x, channel = tf.meshgrid(
        *(tf.range(tf.cast(n, index_dtype)) for n in (batch, height, width, channels)),
        indexing="ij",
    )
    columns = [batch, 2 * y + switches // 2, 2 * x + switches % 2, channel]
    return tf.reshape(tf.stack(columns, axis=-1), [-1, 4])


def indices_to_switches(indices: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Returns the switches that say the same as `indices`.

    Args:
      indices: (B * h * w * C, 4), int64 or int32, as `max_pool_with_indices` returns them.
      shape: (4,), the shape (B, h, w, C) of the pooled map.

    Returns:
      (B, h, w, C), uint8.
    """
    # To bytes first, of which a whole number keeps its lowest: there is an eighth left to read.
    _, y, x, _ = tf.unstack(tf.cast(indices, tf.uint8), num=4, axis=1)
    switches = tf.bitwise.bitwise_and(y, 1) * 2 + tf.bitwise.bitwise_and(x, 1)
    return tf.reshape(switches, shape)


def unpool(pooled: tf.Tensor, positions: tf.Tensor, shape: tf.Tensor | None = None) -> tf.Tensor:
    """Puts every value back where its maximum came from, with zeros everywhere else.

    The same as `tf.scatter_nd(indices, tf.reshape(pooled, [-1]), shape)` for indices as the
    functions above return them, in a fraction of the time.

    Args:
      pooled: (B, h, w, C), any floating dtype; not necessarily the maxima themselves.
      positions: indices, (B * h * w * C, 4), int64 or int32, or switches, (B, h, w, C), uint8.
      shape: (4,), the shape (B, H, W, C) of the map before pooling; None for (B, 2h, 2w, C).

    Returns:
      The map before pooling, (B, H, W, C), dtype of `pooled`.

    Raises:
      ValueError: if `positions` have neither form.
    """
    pooled = tf.convert_to_tensor(pooled)
    positions = tf.convert_to_tensor(positions)
    are_switches = positions.dtype == tf.uint8 and positions.shape.rank in (None, 4)
    are_indices = positions.dtype in (tf.int64, tf.int32) and positions.shape.rank in (None, 2)
    if not (are_switches or are_indices):
        raise ValueError(
            "`positions` must be indices, int64 or int32 of shape (N, 4), or switches, uint8 of "
            f"shape (B, h, w, C). Received: {positions.dtype.name} of shape {positions.shape}."
        )
    switches = positions if are_switches else indices_to_switches(positions, tf.shape(pooled))
    return _pad_to(_unpool_windows(pooled, switches), shape)


@tf.custom_gradient
def _unpool_windows(pooled, switches):
    """As `_put_into_windows`; the gradient takes from each window what lies at its winner."""

    def gradient(upstream):
        left = upstream[:, ::2, ::2]
        for place, (dy, dx) in enumerate([(0, 1), (1, 0), (1, 1)], start=1):
            left = tf.where(switches == place, upstream[:, dy::2, dx::2], left)
        return left, None

    return _put_into_windows(pooled, switches), gradient


def _put_into_windows(pooled, switches):
    """Unpools (B, h, w, C) to (B, 2h, 2w, C)."""
    batch, height, width, channels = tf.unstack(tf.shape(pooled))
    # One broadcast is twice as fast as four selections and their interleaving.
    windows = [batch * height, 1, width, 1, channels]
    places = tf.constant([[[[0], [1]]], [[[2], [3]]]], switches.dtype)  # (2, 1, 2, 1)
    won = tf.reshape(switches, windows) == places  # (B * h, 2, w, 2, C)
    values = tf.where(won, tf.reshape(pooled, windows), tf.zeros([], pooled.dtype))
    unpooled = tf.reshape(values, [batch, 2 * height, 2 * width, channels])
    return tf.ensure_shape(unpooled, (None, None, None, pooled.shape[-1]))


def _pad_to(unpooled, shape):
    """Adds the odd last row and column that a pooling dropped; None if there was none."""
    if shape is None:
        return unpooled
    _, height, width, _ = tf.unstack(tf.shape(unpooled))
    shape = tf.cast(shape, tf.int32)
    return tf.pad(unpooled, [[0, 0], [0, shape[1] - height], [0, shape[2] - width], [0, 0]])


def _pool_by_row_pairs(values):
    """Pools each pair of rows as if it were a picture of its own.

    `tf.nn.max_pool_with_argmax` splits its work over the batch alone, so that one picture would
    keep one core busy. The winners are the same. An argmax counts from the start of its pair, so
    that int32 never overflows.

    Returns:
      The maxima, (B, h, w, C), and (y * W + x) * C + channel of each winner in its pair of rows,
      (B * h, w * C), int32.
    """
    batch, height, width, channels = tf.unstack(tf.shape(values))
    pairs = tf.reshape(values[:, : height // 2 * 2], [batch * (height // 2), 2, width, channels])
    pooled, argmax = _max_pool_with_argmax(pairs)
    pooled = tf.reshape(pooled, [batch, height // 2, width // 2, channels])
    argmax = tf.reshape(argmax, [batch * (height // 2), width // 2 * channels])
    pooled = tf.ensure_shape(pooled, (values.shape[0], None, None, values.shape[3]))
    return pooled, argmax


@tf.custom_gradient
def _max_pool_with_argmax(values):
    """2x2 max pooling with int32 argmax, and the gradient that exists for int64 only."""
    pooled, argmax = tf.nn.max_pool_with_argmax(
        values,
        ksize=2,
        strides=2,
        padding="VALID",
        output_dtype=tf.int32,
        include_batch_in_index=False,
    )

    def gradient(upstream, _):
        # Finds the winners by the same comparisons and lets the gradient through to them. That
        # does not depend on how large the maxima are: a second derivative must not ask.
        return tf.raw_ops.MaxPoolGrad(
            orig_input=tf.stop_gradient(values),
            orig_output=tf.stop_gradient(pooled),
            grad=upstream,
            ksize=[1, 2, 2, 1],
            strides=[1, 2, 2, 1],
            padding="VALID",
        )

    return (pooled, argmax), gradient


def _places_in_row_pair(values):
    """Switch, y, x and channel of each of the 2 * W * C places in a pair of rows, int32."""
    _, _, width, channels = tf.unstack(tf.shape(values))
    y, x, channel = (
        tf.reshape(grid, [-1])
        for grid in tf.meshgrid(tf.range(2), tf.range(width), tf.range(channels), indexing="ij")
    )
    return 2 * y + x % 2, y, x, channel


def _batch_and_row(values):
    """Picture, and row in the pooled map, of each pair of rows, (B * h,), int32."""
    batch, height, _, _ = tf.unstack(tf.shape(values))
    batch, row = tf.meshgrid(tf.range(batch), tf.range(height // 2), indexing="ij")
    return tf.reshape(batch, [-1]), tf.reshape(row, [-1])


@tf.custom_gradient
def _pool_by_comparison(values):
    """Finds the winners with operations that XLA has; the comparisons are those of the kernel.

    The gradient is given by hand, since the derived one would carry the ends of these slices over
    from the forward pass of a loaded model. XLA wants them as constants, takes the picture itself
    for one then, and compiles anew for each picture.
    """
    _, height, width, _ = tf.unstack(tf.shape(values))
    even = values[:, : height // 2 * 2, : width // 2 * 2]
    pooled = even[:, ::2, ::2]
    switches = tf.zeros_like(pooled, tf.uint8)
    for switch, (dy, dx) in enumerate([(0, 1), (1, 0), (1, 1)], start=1):
        candidate = even[:, dy::2, dx::2]
        wins = pooled < candidate
        pooled = tf.where(wins, candidate, pooled)
        switches = tf.where(wins, tf.constant(switch, tf.uint8), switches)

    def gradient(upstream, _):
        # A SavedModel keeps the gradients of its operations, but not the gradients of these: what
        # stands here must have derived ones, for second derivatives of a loaded model.
        return _pad_to(_put_into_windows(upstream, switches), tf.shape(values))

    return (pooled, switches), gradient
