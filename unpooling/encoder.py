"""The encoder: VGG19 up to one layer, and where each max pooling's maxima came from."""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from unpooling import pooling, vgg19

__all__ = ["Encoder", "encode"]


class Encoder(tf.Module):
    """VGG19 up to and including `layer`, preprocessing included.

    Follows `keras.applications.VGG19` for the features and M. Zeiler and R. Fergus,
    arXiv 1311.2901, for the switches.

    Attributes:
      layer: one of `vgg19.LAYERS`.
      index_dtype: dtype of the index tuples.
      engine: one of `options.ENGINES`.
      input_spec: what an encoder takes: float32 (B, H, W, 3), RGB, values in [0, 255].
      output_names: `features`, `block1_indices`, ... in the order in which a call returns them.
      compact_output_names: `features`, `block1_switches`, ... likewise for `compact`.
    """

    def __init__(
        self,
        layer: str,
        weights: Mapping[str, tuple[np.ndarray, np.ndarray]],
        index_dtype: tf.DType | str = tf.int64,
        engine: str = "argmax",
    ):
        """Makes an encoder.

        Args:
          layer: one of `vgg19.LAYERS`.
          weights: for each convolution its (kernel, bias): float32, (3, 3, in, out) and (out,).
          index_dtype: int64 or int32.
          engine: what finds the winners, one of `options.ENGINES`.

        Raises:
          ValueError: if `layer`, `index_dtype` or `engine` is not one of those.
        """
        super().__init__(name="encoder")
        self.layer = layer
        self.index_dtype = pooling.as_index_dtype(index_dtype)
        self.engine = pooling.check_engine(engine)
        self._blocks = vgg19.blocks_up_to(layer)
        self._minimum_side = vgg19.downsampling(layer)
        self.input_spec = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")
        pooled = [block for block in self._blocks if block.pooled]
        self.output_names = ("features", *(block.indices_name for block in pooled))
        self.compact_output_names = ("features", *(block.switches_name for block in pooled))
        self._kernels = {}
        self._biases = {}
        for block in self._blocks:
            for convolution in block.convolutions:
                kernel, bias = weights[convolution.name]
                self._kernels[convolution.name] = tf.Variable(
                    kernel, name=f"{convolution.name}/kernel", dtype=tf.float32
                )
                self._biases[convolution.name] = tf.Variable(
                    bias, name=f"{convolution.name}/bias", dtype=tf.float32
                )

    @property
    def ordered_variables(self) -> list[tf.Variable]:
        """Kernel and bias of each convolution, in the order of the layers."""
        return [v for name in self._kernels for v in (self._kernels[name], self._biases[name])]

    def __call__(self, images: tf.Tensor) -> list[tf.Tensor] | tf.Tensor:
        """Returns the features, and for every pooling where its maxima came from.

        Args:
          images: (B, H, W, 3), float32, RGB, values in [0, 255], H and W at least 2^(K-1).

        Returns:
          The list [features, block1_indices, ..., block{K-1}_indices]; for block1, which pools
          nothing, the bare features. Features are (B, H/2^(K-1), W/2^(K-1), C), float32, sides
          rounded down at each pooling; the indices of block k are (B * H/2^k * W/2^k * C_k, 4),
          laid out as `pooling` says.

        Raises:
          ValueError: if the dtype of `images` is not float32; in a graph, also if its static
            shape is known not to be as above.
          tf.errors.InvalidArgumentError: if the shape of `images` is not as above.
        """
        return self._with_positions(
            images,
            lambda values: pooling.max_pool_with_indices(values, self.index_dtype, self.engine),
        )

    def compact(self, images: tf.Tensor) -> list[tf.Tensor] | tf.Tensor:
        """Returns the features, and where each pooling's maxima came from in one byte each.

        Args:
          images: as for a call.

        Returns:
          The list [features, block1_switches, ..., block{K-1}_switches]; for block1, which pools
          nothing, the bare features. The switches of block k are (B, H/2^k, W/2^k, C_k), uint8,
          laid out as `pooling` says; `pooling.switches_to_indices` makes the indices of them.

        Raises:
          As a call.
        """
        return self._with_positions(
            images, lambda values: pooling.max_pool_with_switches(values, self.engine)
        )

    def features(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the features alone, at the cost of the plain trunk.

        Args:
          images: as for a call.

        Returns:
          The features, as from a call if all values of `images` are finite.
        """
        return self._trunk(images, pooling.max_pool)

    def _with_positions(self, images, pool_with_positions):
        positions = []

        def pool(values):
            pooled, block_positions = pool_with_positions(values)
            positions.append(block_positions)
            return pooled

        features = self._trunk(images, pool)
        return [features, *positions] if positions else features

    def _trunk(self, images, pool):
        weights = {name: (self._kernels[name], self._biases[name]) for name in self._kernels}
        return encode(self.layer, weights, _check(images, self._minimum_side), pool)


def encode(
    layer: str,
    weights: Mapping[str, tuple[tf.Tensor, tf.Tensor]],
    images: tf.Tensor,
    pool: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """Returns the features of pictures.

    Nothing is checked here; `Encoder` does.

    Args:
      layer: one of `vgg19.LAYERS`.
      weights: for each convolution its (kernel, bias), (3, 3, in, out) and (out,), any floating
        dtype, in which the convolution is then computed.
      images: (B, H, W, 3), float32, RGB, values in [0, 255].
      pool: pools a map (B, H, W, C) of any floating dtype, as `pooling.max_pool` does.

    Returns:
      (B, H/2^(K-1), W/2^(K-1), C), dtype of the last convolution.
    """
    values = _preprocess(images)  # (B, H, W, 3)
    for block in vgg19.blocks_up_to(layer):
        for convolution in block.convolutions:
            kernel, bias = weights[convolution.name]
            values = tf.cast(values, kernel.dtype)
            values = tf.nn.conv2d(values, kernel, strides=1, padding="SAME")
            values = tf.nn.bias_add(values, bias)
            values = tf.nn.relu(values)  # (B, H/2^(k-1), W/2^(k-1), C_k)
        if block.pooled:
            values = pool(values)  # (B, H/2^k, W/2^k, C_k)
    return values


def _preprocess(images):
    """RGB in [0, 255] to what VGG19 was trained on: BGR, ImageNet's mean subtracted."""
    # Not `tf.reverse`: its gradient in a loaded model makes XLA compile anew for each picture.
    red, green, blue = tf.unstack(images, axis=-1)
    return tf.stack([blue, green, red], axis=-1) - tf.constant(vgg19.MEAN_BGR, images.dtype)


def _check(images, minimum_side):
    """Returns `images` with an assertion on its shape in front, for every way of loading."""
    images = tf.convert_to_tensor(images)
    if images.dtype != tf.float32:
        raise ValueError(
            "`images` must be float32, RGB, values in [0, 255]: convert with "
            f"tf.cast(images, tf.float32). Received: dtype={images.dtype.name}."
        )
    message = (
        "`images` must have the shape (B, H, W, 3), B at least 1, H and W at least "
        f"{minimum_side}: add a batch axis to a single picture, enlarge or pad a small one. "
        "Received: shape="
    )
    least = (1, minimum_side, minimum_side, 3)
    if not tf.executing_eagerly() and not _can_be(images.shape, least):
        raise ValueError(f"{message}{images.shape}.")
    # A signature of a SavedModel runs with any shape that a caller feeds, whatever it declares. So
    # the static shape is hidden from the assertion: TensorFlow would take the declared rank and
    # channels for granted and drop the comparison.
    shape = tf.shape(tf.raw_ops.PlaceholderWithDefault(input=images, shape=None))
    # A fifth entry of -1 stands for "no fifth axis", so that one comparison covers the rank too.
    actual = tf.concat([shape, [-1, -1, -1, -1, -1]], axis=0)[:5]
    largest = tf.int32.max
    fits = tf.reduce_all(
        tf.logical_and(actual >= [*least, -1], actual <= [largest, largest, largest, 3, -1])
    )
    with tf.control_dependencies([tf.debugging.Assert(fits, [message, shape], summarize=8)]):
        # What follows depends on the assertion through this operation alone; without it, the
        # pooling of a map that is too small can abort the process before the assertion is heard.
        return tf.ensure_shape(images, (None, None, None, 3))


def _can_be(shape, least):
    """Whether a static shape, as far as it is known, allows at least these sides, 3 channels."""
    if shape.rank is None:
        return True
    if shape.rank != len(least) or shape[-1] not in (None, least[-1]):
        return False
    return all(side is None or side >= low for side, low in zip(shape, least, strict=True))
