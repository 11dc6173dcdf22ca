"""The decoder: the encoder's mirror, which puts every value back where its maximum came from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Self

import numpy as np
import tensorflow as tf

from unpooling import pooling, vgg19
from unpooling import weights as weights_module
from unpooling.checks import assert_that, shape_of
from unpooling.convolutions import Convolutions, convolve

__all__ = ["Decoder", "decode"]

# How many rows of indices are checked, spread evenly. Checking all costs more than decoding.
_SAMPLE = 1024


def decode(
    layer: str,
    convolution: Callable[[tf.Tensor, str], tf.Tensor],
    features: tf.Tensor,
    positions: Sequence[tf.Tensor],
) -> tf.Tensor:
    """Returns the pictures that features and positions decode to. It checks nothing.

    Args:
      layer: one of `vgg19.LAYERS`; that of block K.
      convolution: takes values, (B, H, W, in), and the name of a convolution of
        `vgg19.mirror(layer)`, and returns its output, (B, H, W, out), before ReLU.
      features: (B, h, w, C), any floating dtype.
      positions: for block 1 to K-1 its indices or switches, as `pooling` lays them out.

    Returns:
      (B, h * 2^(K-1), w * 2^(K-1), 3), RGB. The last convolution is linear, and nothing is
      clipped, so values can lie outside of [0, 255].
    """
    values = features
    blocks = vgg19.mirror(layer)
    for block in blocks:
        if block.unpooled:
            values = pooling.unpool(values, positions[block.number - 1])
        for number, name in enumerate(c.name for c in block.convolutions):
            values = convolution(values, name)
            if block is not blocks[-1] or number < len(block.convolutions) - 1:
                values = tf.nn.relu(values)
    return values


class Decoder(Convolutions):
    """The mirror of the encoder that ends at `layer`: features and positions in, pictures out.

    After the decoders of photorealistic style transfer (Y. Li et al., arXiv 1802.06474), with the
    unpooling of M. Zeiler and R. Fergus, arXiv 1311.2901.

    Attributes:
      layer: one of `LAYERS`.
      weights: for each convolution its (kernel, bias), float32 variables.
    """

    def __init__(self, layer: str, weights: Mapping[str, tuple[np.ndarray, np.ndarray]]):
        """Makes a decoder of given weights; `Decoder.load` reads them from a file.

        Args:
          layer: one of `LAYERS`.
          weights: for each convolution of `vgg19.mirror(layer)` its (kernel, bias): float32,
            (3, 3, in, out) and (out,).

        Raises:
          ValueError: if `layer` is not one of those.
        """
        super().__init__("decoder", layer, vgg19.convolutions(layer, "decoder"), weights)
        self._blocks = vgg19.pooled_blocks(layer)
        self._channels = vgg19.blocks_up_to(layer)[-1].channels

    @classmethod
    def load(cls, layer: str, weights: str, *, seed: int = 0) -> Self:
        """Makes a decoder of weights from a file, or random ones.

        Args:
          layer: one of `LAYERS`.
          weights: the path of a decoder.h5 that training wrote, or "random" for seeded weights.
          seed: the seed of random weights.

        Raises:
          ValueError: if `layer` is not one of those, or the file cannot be read or is another
            layer's.
        """
        vgg19.blocks_up_to(layer)
        return cls(layer, weights_module.load_decoder(weights, layer, seed).layers)

    @property
    def methods(self) -> dict[str, tuple[Callable, list]]:
        """For each method of a saved decoder its function, and the inputs for which it is traced.

        A loaded function takes only inputs for which it was traced, and says little about others.
        So the call is traced for lists and tuples of all lengths that encoders return, of tensors
        of any shape: those that do not fit get a message when the graph runs.
        """
        features = tf.TensorSpec(None, tf.float32)
        inputs = [features, [features], (features,)]
        for dtype in (tf.int64, tf.int32, tf.uint8):
            for count in range(1, len(vgg19.LAYERS)):
                tensors = [features, *[tf.TensorSpec(None, dtype)] * count]
                inputs += [tensors, tuple(tensors)]

        def decode(*tensors):
            return self(tensors)

        decode = tf.function(decode, autograph=False)  # One trace for lists and tuples.

        def call(inputs):
            tensors = tf.nest.flatten(inputs)
            if len(tensors) == 1 + len(self._blocks):
                return decode(*tensors)
            refusal = assert_that(tf.constant(False), self._wrong_count(len(tensors)))
            with tf.control_dependencies([refusal]):
                return tf.ensure_shape(tf.zeros((0, 0, 0, 3)), (None, None, None, 3))

        return {"__call__": (call, inputs)}

    @property
    def signatures(self) -> dict[str, tuple[str, list[tf.TensorSpec], tuple[str, ...]]]:
        """For each signature its method, inputs and the names of its outputs."""
        forms = {"serving_default": "int64", "compact": "switches"}
        return {
            name: ("__call__", tf.nest.flatten(self.input_spec(form)), ("images",))
            for name, form in forms.items()
        }

    def input_spec(self, form: str) -> list[tf.TensorSpec] | tf.TensorSpec:
        """Returns the input of a call, with the positions in one of their forms.

        Args:
          form: "int64" or "int32" for indices, "switches".
        """
        features = tf.TensorSpec((None, None, None, self._channels), tf.float32, name="features")
        specs = [features]
        for block in self._blocks:
            if form == "switches":
                shape, dtype = (None, None, None, block.channels), tf.uint8
                specs.append(tf.TensorSpec(shape, dtype, name=block.switches_name))
            else:
                dtype = pooling.as_index_dtype(form)
                specs.append(tf.TensorSpec((None, 4), dtype, name=block.indices_name))
        return specs if self._blocks else features

    def __call__(self, inputs: Sequence[tf.Tensor] | tf.Tensor) -> tf.Tensor:
        """Reconstructs pictures from the outputs of an encoder.

        Args:
          inputs: what the encoder of the same layer returns from a call or from `compact`:
            [features, block1_indices, ...] or [features, block1_switches, ...]; for block1 the
            bare features. Features are (B, H/2^(K-1), W/2^(K-1), C), float32, and may be replaced
            by others of their shape, as style transfer does.

        Returns:
          (B, H, W, 3), float32, RGB, values in [0, 255] or a little outside: clip before showing.

        Raises:
          ValueError: if these are too many or too few tensors, or of other dtypes; in a graph,
            also if their static shapes are known not to fit.
          tf.errors.InvalidArgumentError: if the positions are not those of a picture whose
            features have this shape: another picture's, another layer's, in another order, or of
            a picture whose sides were not multiples of 2^(K-1). (An odd row that the first
            pooling dropped leaves no trace; it will be missing.)
        """
        features, *positions = self._check(inputs)
        return decode(self.layer, self._convolution, features, positions)

    def _convolution(self, values, name):
        return convolve(values, *self.weights[name], relu=False)

    def _check(self, inputs):
        """Returns the features, and for each pooling its switches."""
        inputs = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        if len(inputs) != 1 + len(self._blocks):
            raise ValueError(self._wrong_count(len(inputs)))
        features, *positions = map(tf.convert_to_tensor, inputs)
        features = self._check_features(features)
        batch, height, width, _, _ = tf.unstack(shape_of(features)[1], num=5)
        switches = []
        for block, tensor in zip(self._blocks, positions, strict=True):
            scale = 2 ** (len(self._blocks) - block.number)
            pooled = tf.stack([batch, height * scale, width * scale, block.channels])
            switches.append(self._check_positions(block, tensor, pooled))
        return features, *switches

    def _wrong_count(self, count):
        names = ["features", *(block.indices_name for block in self._blocks)]
        wanted = f"the list [{', '.join(names)}]" if self._blocks else "the bare features"
        return (
            f"a decoder for `{self.layer}` takes {wanted}, as its encoder returns them. "
            f"Received: {count} tensors."
        )

    def _check_features(self, features):
        wanted = (
            f"`features` must be the encoder's activations of `{self.layer}`: float32, shape "
            f"(B, h, w, {self._channels}), none of them 0."
        )
        spec = tf.TensorShape((None, None, None, self._channels))
        if features.dtype != tf.float32 or not features.shape.is_compatible_with(spec):
            raise ValueError(f"{wanted} Received: {features.dtype.name} of shape {features.shape}.")
        shape, axes = shape_of(features)
        least, most = [1, 1, 1, self._channels], [2**31 - 1] * 3 + [self._channels]
        fits = tf.reduce_all((axes[:4] >= least) & (axes[:4] <= most), axis=0) & (axes[4] == -1)
        with tf.control_dependencies([assert_that(fits, wanted, "Received: shape", shape)]):
            return _with_shape(features, axes[:4], spec)

    def _check_positions(self, block, positions, pooled):
        """Returns the switches of one block, once they have been held against `pooled`.

        That is the shape (B, h, w, C) of its pooled map, as follows from that of the features.
        """
        are_switches = positions.dtype == tf.uint8
        name = block.switches_name if are_switches else block.indices_name
        columns = (None, None, None, block.channels) if are_switches else (None, 4)
        if positions.dtype not in (tf.uint8, tf.int32, tf.int64) or not (
            positions.shape.is_compatible_with(columns)
        ):
            raise ValueError(
                f"`{block.indices_name}` must be what an encoder up to `{self.layer}` returns: "
                "indices, int64 or int32 of shape (N, 4), or switches, uint8 of shape "
                f"(B, h, w, {block.channels}). "
                f"Received: {positions.dtype.name} of shape {positions.shape}."
            )
        shape, axes = shape_of(positions)
        not_those = f"`{name}` do not fit `features`, which need those of a pooled map"
        advice = (
            "They are of another layer, of another picture, joined from several batches, or the "
            f"sides of the picture were not multiples of {vgg19.downsampling(self.layer)}: pad it "
            "before it is encoded."
        )
        if are_switches:
            fits = tf.reduce_all(axes == tf.concat([pooled, [-1]], axis=0), axis=0)
            assertion = assert_that(fits, not_those, pooled, "Received: those of", shape, advice)
            with tf.control_dependencies([assertion]):
                return _with_shape(positions, axes[:4], columns)
        is_table = (axes[0] >= 1) & (axes[1] == 4) & (axes[2] == -1)
        wanted = f"`{name}` must be indices of shape (N, 4), N at least 1. Received: shape"
        with tf.control_dependencies([assert_that(is_table, wanted, shape)]):
            positions = _with_shape(positions, axes[:2], columns)
        # The last row tells the shape of the pooled map.
        window = tf.constant([1, 2, 2, 1], positions.dtype)
        received = tf.cast(positions[-1] // window, tf.int32) + 1
        batch, height, width, channels = tf.unstack(tf.cast(pooled, tf.int64), num=4)
        count = batch * height * width * channels
        fits = tf.reduce_all(received == pooled, axis=0) & (
            tf.shape(positions, tf.int64)[0] == count
        )
        assertion = assert_that(
            fits, not_those, pooled, "Received: those of", received, "in rows", shape[0], advice
        )
        with tf.control_dependencies([assertion]):
            row = tf.range(_SAMPLE, dtype=tf.int64) * (count - 1) // (_SAMPLE - 1)
        found = tf.cast(tf.gather(positions, row) // window, tf.int64)
        pixel = row // channels
        place = [pixel // width // height, pixel // width % height, pixel % width, row % channels]
        disorder = (
            f"the rows of `{name}` are not in the order in which an encoder returns them, that of "
            "the pooled map."
        )
        in_order = tf.reduce_all(found == tf.stack(place, axis=-1), axis=[0, 1])
        with tf.control_dependencies([assert_that(in_order, disorder)]):
            return pooling.indices_to_switches(tf.identity(positions), pooled)


def _with_shape(tensor, shape, known):
    """A tensor of this very shape, of which TensorFlow knows only `known`.

    TensorFlow compares shapes that it knows before any assertion runs, and with messages of its
    own; a convolution of another rank even ends the process.
    """
    return tf.ensure_shape(tf.reshape(tensor, shape), known)
