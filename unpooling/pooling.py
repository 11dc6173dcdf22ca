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

from unpooling import options
from unpooling.checks import assert_that

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
    for dtype in map(tf.as_dtype, options.INDEX_DTYPES):
        if index_dtype == dtype:
            return dtype
    name = getattr(index_dtype, "name", index_dtype)
    raise ValueError(
        f"`index_dtype` must be {' or '.join(options.INDEX_DTYPES)}. Received: {name}."
    )


def check_engine(engine: str) -> str:
    """Returns `engine`.

    Raises:
      ValueError: if it is not one of `options.ENGINES`.
    """
    if engine not in options.ENGINES:
        raise ValueError(
            f"`engine` must be one of {', '.join(options.ENGINES)}. Received: {engine!r}."
        )
    return engine


def max_pool(values: tf.Tensor) -> tf.Tensor:
    """Pools as VGG19 does: 2x2 windows, stride 2, an odd last row or column dropped.

    Args:
      values: (B, H, W, C), any floating dtype.

    Returns:
      The maxima, (B, h, w, C), dtype of `values`.
    """
    return tf.nn.max_pool2d(values, ksize=2, strides=2, padding="VALID")


def max_pool_with_indices(
    values: tf.Tensor, index_dtype: tf.DType | str = tf.int64, engine: str = "argmax"
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pools like `max_pool`, and returns where each maximum came from.

    The indices are always in range. In a tie the first in row-major order wins, as in
    `tf.nn.max_pool_with_argmax`. A NaN wins if it is the first of its window and loses otherwise.
    For finite values the maximum is the value that the index points at.

    Args:
      values: (B, H, W, C), any floating dtype, B >= 1, H and W at least 2.
      index_dtype: int64 or int32.
      engine: what finds the maxima: "argmax", `tf.nn.max_pool_with_argmax`, or "xla", operations
        that XLA can compile. Both return the same.

    Returns:
      The maxima, (B, h, w, C), dtype of `values`, and the indices, (B * h * w * C, 4), dtype
      `index_dtype`, columns (batch, y, x, channel). The maxima have the gradients of
      `tf.nn.max_pool2d`, of any order.

    Raises:
      ValueError: if `index_dtype` or `engine` is not one of those.
    """
    index_dtype = as_index_dtype(index_dtype)
    values = tf.convert_to_tensor(values)
    if check_engine(engine) == "xla":
        indices = switches_to_indices(_switches_by_comparison(values), index_dtype)
        return max_pool(values), indices
    # One row of the table for every place in a pair of rows spares dividing every argmax.
    y, x, channel = _places_in_row_pair(values)
    table = tf.cast(tf.stack([tf.zeros_like(y), y, x, channel], axis=-1), index_dtype)
    indices = _by_argmax(values, lambda argmax: tf.gather(table, argmax))  # (B * h, w * C, 4)
    batch, row = _batch_and_row(values)
    start = tf.stack([batch, 2 * row, tf.zeros_like(row), tf.zeros_like(row)], axis=-1)
    # An addition along an axis of 4 * C is faster than one along an axis of 4.
    _, _, width, channels = tf.unstack(tf.shape(values))
    start = tf.tile(tf.cast(start, index_dtype), [1, channels])[:, tf.newaxis]  # (B * h, 1, 4 * C)
    indices = tf.reshape(indices, [tf.shape(row)[0], width // 2, 4 * channels]) + start
    return max_pool(values), tf.reshape(indices, [-1, 4])


def max_pool_with_switches(
    values: tf.Tensor, engine: str = "argmax"
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pools like `max_pool_with_indices` and returns the compact form of the indices.

    Args:
      values: (B, H, W, C), any floating dtype, B >= 1, H and W at least 2.
      engine: as for `max_pool_with_indices`.

    Returns:
      The maxima, (B, h, w, C), dtype of `values`, and the switches, (B, h, w, C), uint8: 0 to 3
      for upper left, upper right, lower left and lower right.

    Raises:
      ValueError: if `engine` is not one of those.
    """
    values = tf.convert_to_tensor(values)
    if check_engine(engine) == "xla":
        return max_pool(values), _switches_by_comparison(values)
    _, _, width, channels = tf.unstack(tf.shape(values))
    # The upper left place of each window, in its pair of rows.
    first = 2 * channels * tf.range(width // 2)[:, tf.newaxis] + tf.range(channels)

    def look_up(argmax):
        # Faster than a table, and TensorFlow gathers bytes on the CPU alone.
        right, below = (tf.cast(n, argmax.dtype) for n in (channels, width * channels))
        offset = argmax - tf.cast(tf.reshape(first, [-1]), argmax.dtype)
        is_below = tf.cast(offset >= below, tf.uint8)
        is_right = tf.cast((offset == right) | (offset == below + right), tf.uint8)
        return is_below + is_below + is_right

    pooled = max_pool(values)
    return pooled, tf.reshape(_by_argmax(values, look_up), tf.shape(pooled))


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


def unpool(
    pooled: tf.Tensor,
    positions: tf.Tensor,
    shape: tf.Tensor | None = None,
    validate: bool = False,
) -> tf.Tensor:
    """Puts every value back where its maximum came from, with zeros everywhere else.

    The positions must be all those that one of the poolings above returned, in their order. Then
    the result is that of `tf.scatter_nd(indices, tf.reshape(pooled, [-1]), shape)`, in a fraction
    of the time. Rows in another order, or of another map of the same size, give another result,
    without an error unless `validate` is set.

    Args:
      pooled: (B, h, w, C), any floating dtype; not necessarily the maxima themselves.
      positions: indices, (B * h * w * C, 4), int64 or int32, or switches, (B, h, w, C), uint8.
      shape: (4,), the shape (B, H, W, C) of the map before pooling; None for (B, 2h, 2w, C).
      validate: whether to check every single position. It takes longer than unpooling.

    Returns:
      The map before pooling, (B, H, W, C), dtype of `pooled`.

    Raises:
      ValueError: if `positions` have neither form.
      tf.errors.InvalidArgumentError: if `positions` are not as many as `pooled` has values, or
        `shape` is not that of a map that pools to the shape of `pooled`; with `validate`, also if a
        position is not in the window of its value.
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
    pooled_shape = tf.shape(pooled)
    wanted = pooled_shape if are_switches else tf.stack([tf.size(pooled), 4])
    checks = [
        assert_that(
            tf.reduce_all(tf.shape(positions) == wanted),
            "`positions` must be one for each value of `pooled`. Needed: shape",
            wanted,
            "Received: shape",
            tf.shape(positions),
        )
    ]
    if shape is not None:
        shape = tf.cast(shape, tf.int32)
        dropped = shape - pooled_shape * [1, 2, 2, 1]
        checks.append(
            assert_that(
                tf.reduce_all((dropped >= 0) & (dropped <= [0, 1, 1, 0])),
                "`shape` must be that of the map before pooling, (B, H, W, C) with H // 2 = h and "
                "W // 2 = w. Received: shape",
                shape,
                "for `pooled` of shape",
                pooled_shape,
            )
        )
    with tf.control_dependencies(checks):
        switches = positions if are_switches else indices_to_switches(positions, pooled_shape)
        checks = [_assert_valid(positions, switches)] if validate else []
    with tf.control_dependencies(checks):
        return _pad_to(_unpool_windows(pooled, tf.identity(switches)), shape)


def _assert_valid(positions, switches):
    """Asserts that every position is in the window of its value."""
    if positions.dtype == tf.uint8:
        return assert_that(tf.reduce_all(switches <= 3), "`positions` must be 0 to 3 as switches.")
    return assert_that(
        tf.reduce_all(positions == switches_to_indices(switches, positions.dtype)),
        "`positions` must be the rows that a pooling returned, all of them, in their order.",
    )


@tf.custom_gradient
def _unpool_windows(pooled, switches):
    """As `_put_into_windows`; the gradient takes from each window what lies at its winner."""

    def gradient(upstream):
        shape = tf.shape(switches)
        batch, height, width, channels = tf.unstack(shape)
        # Not strided slices, which take eight times as long.
        windows = tf.reshape(upstream, [batch * height, 2, width, 2, channels])
        rows = tf.unstack(windows, num=2, axis=1)
        first, *others = (place for row in rows for place in tf.unstack(row, num=2, axis=2))
        left = tf.reshape(first, shape)
        for switch, place in enumerate(others, start=1):
            left = tf.where(switches == switch, tf.reshape(place, shape), left)
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
    # Not below 0, or TensorFlow refuses a wrong `shape` before our assertion does.
    rows, columns = tf.maximum(shape[1] - height, 0), tf.maximum(shape[2] - width, 0)
    return tf.pad(unpooled, [[0, 0], [0, rows], [0, columns], [0, 0]])


def _by_argmax(values, look_up):
    """Finds the maxima of each pair of rows, and returns what `look_up` makes of their places.

    `tf.nn.max_pool_with_argmax` splits its work over the batch alone, so that one picture would
    keep one core busy. So each pair of rows becomes a picture. The maxima are the same.

    TensorFlow has a kernel for int32 on the CPU alone. int64 has one on GPUs, too, but takes longer
    on a CPU. The device on which the graph is placed decides.

    The maxima's values are not used. Their gradient would be that of the operation for int64, which
    exists for int64 only and has no second derivative; `tf.nn.max_pool2d` has both.

    Args:
      values: (B, H, W, C).
      look_up: takes the argmax, (B * h, w * C), int32 or int64: (y * W + x) * C + channel of each
        maximum in its pair of rows. It must return the same for both dtypes.
    """
    batch, height, width, channels = tf.unstack(tf.shape(values))
    pairs = tf.stop_gradient(values)[:, : height // 2 * 2]
    if values.dtype.size < 4:  # Exact, and the kernel takes seven times as long for bfloat16.
        pairs = tf.cast(pairs, tf.float32)
    pairs = tf.reshape(pairs, [batch * (height // 2), 2, width, channels])

    def look_up_argmax(dtype):
        argmax = tf.nn.max_pool_with_argmax(
            pairs, ksize=2, strides=2, padding="VALID", output_dtype=dtype
        ).argmax
        return look_up(tf.reshape(argmax, [batch * (height // 2), width // 2 * channels]))

    device = tf.raw_ops.DeviceIndex(device_names=["CPU", "GPU"])
    return tf.switch_case(
        device,
        {0: lambda: look_up_argmax(tf.int32), 1: lambda: look_up_argmax(tf.int64)},
    )


def _places_in_row_pair(values):
    """y, x and channel of each of the 2 * W * C places in a pair of rows, int32."""
    _, _, width, channels = tf.unstack(tf.shape(values))
    y, x, channel = (
        tf.reshape(grid, [-1])
        for grid in tf.meshgrid(tf.range(2), tf.range(width), tf.range(channels), indexing="ij")
    )
    return y, x, channel


def _batch_and_row(values):
    """Picture, and row in the pooled map, of each pair of rows, (B * h,), int32."""
    batch, height, _, _ = tf.unstack(tf.shape(values))
    batch, row = tf.meshgrid(tf.range(batch), tf.range(height // 2), indexing="ij")
    return tf.reshape(batch, [-1]), tf.reshape(row, [-1])


def _switches_by_comparison(values):
    """Finds the maxima with operations that XLA has; the comparisons are those of the kernel.

    The maxima's values are not used: the gradient of these slices would carry their ends over from
    the forward pass of a loaded model, and XLA would compile anew for each picture.
    """
    _, height, width, _ = tf.unstack(tf.shape(values))
    even = tf.stop_gradient(values)[:, : height // 2 * 2, : width // 2 * 2]
    greatest = even[:, ::2, ::2]
    switches = tf.zeros_like(greatest, tf.uint8)
    for switch, (dy, dx) in enumerate([(0, 1), (1, 0), (1, 1)], start=1):
        candidate = even[:, dy::2, dx::2]
        wins = greatest < candidate
        greatest = tf.where(wins, candidate, greatest)
        switches = tf.where(wins, tf.constant(switch, tf.uint8), switches)
    return switches
