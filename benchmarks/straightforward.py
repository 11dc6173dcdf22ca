"""The first graph that one writes: what results and speed are compared with."""

import tensorflow as tf


def straightforward_pool(values, index_dtype):
    """The graph that one writes first: argmax of the whole map, divided into its columns.

    Args:
      values: (B, H, W, C), float32.
      index_dtype: int64 or int32.

    Returns:
      What `pooling.max_pool_with_indices` returns.
    """
    pooled, argmax = tf.nn.max_pool_with_argmax(values, 2, 2, "VALID", output_dtype=tf.int64)
    _, _, width, channels = tf.unstack(tf.shape(values, out_type=tf.int64))
    batch = tf.range(tf.shape(argmax, out_type=tf.int64)[0])
    columns = [
        tf.broadcast_to(batch[:, None, None, None], tf.shape(argmax)),
        argmax // (width * channels),
        argmax // channels % width,
        argmax % channels,
    ]
    return pooled, tf.cast(tf.reshape(tf.stack(columns, axis=-1), [-1, 4]), index_dtype)
