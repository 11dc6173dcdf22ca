"""The encoder: VGG19 up to one layer, and where each max pooling's maxima came from."""

from collections.abc import Callable, Mapping
from typing import Self

import numpy as np
import tensorflow as tf

from unpooling import pooling, vgg19
from unpooling import weights as weights_module
from unpooling.checks import are_between, assert_that, shape_of
from unpooling.convolutions import Convolutions, convolve

__all__ = ["Encoder", "encode"]


class Encoder(Convolutions):
    """VGG19 up to and including `layer`, preprocessing included.

    Follows `keras.applications.VGG19` for the features and M. Zeiler and R. Fergus,
    arXiv 1311.2901, for the positions.

    Attributes:
      layer: one of `LAYERS`.
      weights: for each convolution its (kernel, bias), float32 variables.
      index_dtype: dtype of the indices.
      engine: what finds the maxima, "argmax" or "xla".
      input_spec: the input: float32 (B, H, W, 3), RGB, values in [0, 255].
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
        """Makes an encoder of given weights; `Encoder.load` finds them by itself.

        Args:
          layer: one of `LAYERS`.
          weights: for each convolution its (kernel, bias): float32, (3, 3, in, out) and (out,).
          index_dtype: int64 or int32.
          engine: what finds the maxima: "argmax", `tf.nn.max_pool_with_argmax`, or "xla",
            operations that XLA can compile. Both return the same.

        Raises:
          ValueError: if `layer`, `index_dtype` or `engine` is not one of those.
        """
        super().__init__("encoder", layer, vgg19.convolutions(layer), weights)
        self.index_dtype = pooling.as_index_dtype(index_dtype)
        self.engine = pooling.check_engine(engine)
        self.input_spec = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")
        pooled = vgg19.pooled_blocks(layer)
        self.output_names = ("features", *(block.indices_name for block in pooled))
        self.compact_output_names = ("features", *(block.switches_name for block in pooled))

    @classmethod
    def load(
        cls,
        layer: str,
        weights: str = "imagenet",
        *,
        seed: int = 0,
        index_dtype: tf.DType | str = tf.int64,
        engine: str = "argmax",
    ) -> Self:
        """Makes an encoder of weights that are downloaded, read from a file or random.

        Args:
          layer: one of `LAYERS`.
          weights: "imagenet" for VGG19's ImageNet weights, which `keras.applications` downloads,
            checks and caches; "random" for seeded ones; or the path of a file, see `weights.load`.
          seed: the seed of random weights.
          index_dtype: as for `Encoder`.
          engine: as for `Encoder`.

        Raises:
          ValueError: as `Encoder`, or if the weights are not to be had; the message says why.
        """
        vgg19.blocks_up_to(layer)
        return cls(layer, weights_module.load(weights, layer, seed).layers, index_dtype, engine)

    @property
    def methods(self) -> dict[str, tuple[Callable, list[tf.TensorSpec]]]:
        """For each method of a saved encoder its function, and the inputs it is traced for."""
        functions = {
            "__call__": self.__call__,
            "compact": self.compact,
            "features": self.features,
        }
        return {name: (function, [self.input_spec]) for name, function in functions.items()}

    @property
    def signatures(self) -> dict[str, tuple[str, list[tf.TensorSpec], tuple[str, ...]]]:
        """For each signature its method, inputs and the names of its outputs."""
        inputs = [self.input_spec]
        return {
            "serving_default": ("__call__", inputs, self.output_names),
            "compact": ("compact", inputs, self.compact_output_names),
            "features": ("features", inputs, ("features",)),
        }

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
        images = _check(images, vgg19.downsampling(self.layer))
        return encode(self.layer, self.weights, images, pool)


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
            # (B, H/2^(k-1), W/2^(k-1), C_k)
            values = convolve(values, *weights[convolution.name])
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
    shape, axes = shape_of(images)
    fits = are_between(axes, least, (None, None, None, 3))
    with tf.control_dependencies([assert_that(fits, message, shape)]):
        # What follows depends on the assertion through this operation alone. Without it, the
        # pooling of a map that is too small can abort the process before the assertion fails.
        return tf.ensure_shape(images, (None, None, None, 3))


def _can_be(shape, least):
    """Whether a static shape, as far as it is known, can be at least `least`, with 3 channels."""
    if shape.rank is None:
        return True
    if shape.rank != len(least) or shape[-1] not in (None, least[-1]):
        return False
    return all(side is None or side >= low for side, low in zip(shape, least, strict=True))
