"""The decoder: the encoder's mirror, which puts every value back where its maximum came from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Self

import numpy as np
import tensorflow as tf

from unpooling import pooling, vgg19
from unpooling import weights as weights_module
from unpooling.checks import are_between, assert_that, shape_of
from unpooling.convolutions import Convolutions, convolve
from unpooling.errors import UserError

__all__ = ["Decoder", "decode"]

# How many rows of indices are checked, spread evenly. Checking all costs more than decoding.
_SAMPLE = 1024

_POSITION_DTYPES = (tf.int64, tf.int32, tf.uint8)

# What features and positions become by mistake, for which a loaded decoder has a message.
_WRONG_FEATURES = (tf.float16, tf.bfloat16, tf.float64, tf.int32, tf.int64)
_WRONG_POSITIONS = (tf.float16, tf.float32, tf.float64, tf.int8, tf.int16, tf.uint16)


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
    unpooling of M. Zeiler and R. Fergus, arXiv 1311.2901, and one more convolution after each (two
    in block 2's decoder).

    Attributes:
      layer: one of `LAYERS`.
      weights: for each convolution its (kernel, bias), float32 variables.
      trained_for: for each convolution of the encoder that it was trained for, the
        `weights.layer_sha256`; None if nothing is known.
    """

    def __init__(
        self,
        layer: str,
        weights: Mapping[str, tuple[np.ndarray, np.ndarray]],
        trained_for: Mapping[str, str] | None = None,
    ):
        """Makes a decoder of given weights; `Decoder.load` reads them from a file.

        Args:
          layer: one of `LAYERS`.
          weights: for each convolution of `vgg19.mirror(layer)` its (kernel, bias): float32,
            (3, 3, in, out) and (out,).
          trained_for: see above.

        Raises:
          ValueError: if `layer` is not one of those.
        """
        super().__init__("decoder", layer, vgg19.convolutions(layer, "decoder"), weights)
        self.trained_for = None if trained_for is None else dict(trained_for)
        self._blocks = vgg19.pooled_blocks(layer)
        self._channels = vgg19.blocks_up_to(layer)[-1].channels

    @classmethod
    def load(
        cls,
        layer: str,
        weights: str = "pretrained",
        *,
        seed: int = 0,
        encoder: Convolutions | None = None,
    ) -> Self:
        """Makes a trained decoder that ships with this library, one from a file, or a random one.

        Args:
          layer: one of `LAYERS`.
          weights: "pretrained" for a decoder that was trained for VGG19's ImageNet weights, of
            blocks 1 to 3; the path of a decoder.h5 that training wrote; or "random" for seeded
            weights.
          seed: the seed of random weights.
          encoder: the encoder whose outputs it is to decode; None for no check.

        Raises:
          ValueError: if `layer` is not one of those, none ships for it, or the file cannot be read
            or is another layer's; or as `check_encoder`.
        """
        vgg19.blocks_up_to(layer)
        loaded = weights_module.load_decoder(weights, layer, seed)
        training = loaded.training
        decoder = cls(layer, loaded.layers, training and training.encoder["sha256"])
        if encoder is not None:
            decoder.check_encoder(encoder)
        return decoder

    def check_encoder(self, encoder: Convolutions) -> None:
        """Checks that it was trained for an encoder, as far as its file says.

        Args:
          encoder: an `Encoder` or a loaded one.

        Raises:
          ValueError: if it was trained for an encoder of another layer or with other weights.
        """
        if self.trained_for is None:
            return
        digests = weights_module.digests_of(encoder.variables)
        if list(digests) != list(self.trained_for):
            last = list(digests)[-1] if digests else "no layer"
            received = f"an encoder up to `{last}`"
        elif digests != self.trained_for:
            received = "one of that layer with other weights"
        else:
            return
        raise UserError(
            f"this decoder was trained for the encoder of `{self.layer}` with certain weights: "
            f"load a decoder for yours, or train one. Received: {received}."
        )

    @property
    def methods(self) -> dict[str, tuple[Callable, list]]:
        """For each method of a saved decoder its function, and the inputs for which it is traced.

        A loaded function takes only inputs for which it was traced, and says little about others.
        So the call is traced for lists and tuples of all lengths that encoders return, of tensors
        of any shape, and for some wrong dtypes: what does not fit gets a message when the graph
        runs.
        """
        count = len(self._blocks)
        rows = [(tf.float32, *[p] * n) for n in range(len(vgg19.LAYERS)) for p in _POSITION_DTYPES]
        rows += [(f, *[p] * count) for f in _WRONG_FEATURES for p in (*_POSITION_DTYPES, f)]
        rows += [(tf.float32, *[p] * count) for p in _WRONG_POSITIONS]
        inputs = []
        for row in dict.fromkeys(rows):
            tensors = [tf.TensorSpec(None, dtype) for dtype in row]
            inputs += [tensors, tuple(tensors)]
            if len(row) == 1:
                inputs += tensors

        def decode(*tensors):
            return self(tensors)

        decode = tf.function(decode, autograph=False)  # One trace for lists and tuples.

        def call(inputs):
            tensors = tf.nest.flatten(inputs)
            refusal = self._refusal(tensors)
            if refusal is None:
                return decode(*tensors)
            with tf.control_dependencies([assert_that(tf.constant(False), refusal)]):
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
        inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        tensors = [tf.convert_to_tensor(tensor) for tensor in inputs]
        refusal = self._refusal(tensors)
        if refusal is not None:
            raise ValueError(refusal)
        features, *positions = tensors
        features = self._check_features(features)
        batch, height, width, _ = tf.unstack(tf.shape(features), num=4)
        switches = []
        for block, tensor in zip(self._blocks, positions, strict=True):
            scale = 2 ** (len(self._blocks) - block.number)
            pooled = tf.stack([batch, height * scale, width * scale, block.channels])
            switches.append(self._check_positions(block, tensor, pooled))
        return features, *switches

    def _refusal(self, tensors):
        """Says what is wrong with the number or the dtypes of the inputs; None if nothing is."""
        if len(tensors) != 1 + len(self._blocks):
            names = ["features", *(block.indices_name for block in self._blocks)]
            wanted = f"the list [{', '.join(names)}]" if self._blocks else "the bare features"
            return (
                f"a decoder for `{self.layer}` takes {wanted}, as its encoder returns them. "
                f"Received: {len(tensors)} tensors."
            )
        features, *positions = tensors
        if features.dtype != tf.float32:
            return (
                f"{self._wanted_features} Convert with tf.cast(features, tf.float32). "
                f"Received: {features.dtype.name}."
            )
        for block, tensor in zip(self._blocks, positions, strict=True):
            if tensor.dtype not in _POSITION_DTYPES:
                return f"{self._wanted_positions(block)} Received: {tensor.dtype.name}."
        return None

    @property
    def _wanted_features(self):
        return (
            f"`features` must be the encoder's activations of `{self.layer}`: float32, shape "
            f"(B, h, w, {self._channels}), none of them 0."
        )

    def _wanted_positions(self, block):
        return (
            f"`{block.indices_name}` must be what an encoder up to `{self.layer}` returns: "
            "indices, int64 or int32 of shape (N, 4), or switches, uint8 of shape "
            f"(B, h, w, {block.channels})."
        )

    def _check_features(self, features):
        wanted, known = self._wanted_features, (None, None, None, self._channels)
        if not features.shape.is_compatible_with(known):
            raise ValueError(f"{wanted} Received: shape {features.shape}.")
        shape, axes = shape_of(features)
        fits = are_between(axes, (1, 1, 1, self._channels), known)
        with tf.control_dependencies([assert_that(fits, wanted, "Received: shape", shape)]):
            return _with_shape(features, shape, known)

    def _check_positions(self, block, positions, pooled):
        """Returns the switches of one block, once they have been held against `pooled`.

        That is the shape (B, h, w, C) of its pooled map, as follows from that of the features.
        """
        are_switches = positions.dtype == tf.uint8
        name = block.switches_name if are_switches else block.indices_name
        columns = (None, None, None, block.channels) if are_switches else (None, 4)
        if not positions.shape.is_compatible_with(columns):
            raise ValueError(
                f"{self._wanted_positions(block)} "
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
                return _with_shape(positions, shape, columns)
        is_table = are_between(axes, (1, 4), columns)
        wanted = f"`{name}` must be indices of shape (N, 4), N at least 1. Received: shape"
        with tf.control_dependencies([assert_that(is_table, wanted, shape)]):
            positions = _with_shape(positions, shape, columns)
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
    """A tensor of its own shape, of which TensorFlow knows only `known`.

    TensorFlow compares shapes that it knows before any assertion runs, and with messages of its
    own; a convolution of another rank even ends the process.
    """
    return tf.ensure_shape(tf.reshape(tensor, shape), known)
