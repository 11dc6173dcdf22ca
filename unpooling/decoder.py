"""The decoder: the encoder's mirror, which puts every value back where its maximum came from."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from unpooling import pooling, vgg19

__all__ = ["Decoder", "convolve", "decode"]

# Rows of indices that are looked at, spread evenly; looking at all costs more than decoding them.
_SAMPLE = 1024


def convolve(values: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Returns a convolution of the decoder, before ReLU, (B, H, W, out), dtype of `kernel`.

    Args:
      values: (B, H, W, in), any floating dtype.
      kernel, bias: (3, 3, in, out) and (out,), any floating dtype.
    """
    values = tf.nn.conv2d(tf.cast(values, kernel.dtype), kernel, strides=1, padding="SAME")
    return tf.nn.bias_add(values, bias)


def decode(
    layer: str,
    convolution: Callable[[tf.Tensor, str], tf.Tensor],
    features: tf.Tensor,
    positions: Sequence[tf.Tensor],
) -> tf.Tensor:
    """Returns the pictures of features: convolutions backwards, unpooling where there was pooling.

    Nothing is checked here; `Decoder` does.

    Args:
      layer: one of `vgg19.LAYERS`; that of block K.
      convolution: takes values, (B, H, W, in), and the name of a convolution of
        `vgg19.mirror(layer)`, and returns its output, (B, H, W, out), before ReLU.
      features: (B, h, w, C), any floating dtype.
      positions: for block 1 to K-1 its indices or switches, as `pooling` lays them out.

    Returns:
      (B, h * 2^(K-1), w * 2^(K-1), 3), RGB, in [0, 255] if the decoder is a good one: the last
      convolution is linear, and nothing is clipped.
    """
    values = features
    blocks = vgg19.mirror(layer)
    for block in blocks:
        if block.pooled:
            values = pooling.unpool(values, positions[block.number - 1])
        for number, name in enumerate(c.name for c in block.convolutions):
            values = convolution(values, name)
            if block is not blocks[-1] or number < len(block.convolutions) - 1:
                values = tf.nn.relu(values)
    return values


class Decoder(tf.Module):
    """The mirror of the encoder that ends at `layer`: features and positions in, pictures out.

    After photorealistic style transfer's decoders (Y. Li et al., arXiv 1802.06474), with the
    unpooling of M. Zeiler and R. Fergus, arXiv 1311.2901.

    Attributes:
      layer: one of `vgg19.LAYERS`.
    """

    def __init__(self, layer: str, weights: Mapping[str, tuple[np.ndarray, np.ndarray]]):
        """Makes a decoder.

        Args:
          layer: one of `vgg19.LAYERS`.
          weights: for each convolution of `vgg19.mirror(layer)` its (kernel, bias): float32,
            (3, 3, in, out) and (out,).

        Raises:
          ValueError: if `layer` is not one of those.
        """
        super().__init__(name="decoder")
        self.layer = layer
        self._blocks = [b for b in vgg19.blocks_up_to(layer) if b.pooled]
        self._channels = vgg19.blocks_up_to(layer)[-1].channels
        self._weights = {
            convolution.name: tuple(
                tf.Variable(array, name=f"{convolution.name}/{part}", dtype=tf.float32)
                for part, array in zip(("kernel", "bias"), weights[convolution.name], strict=True)
            )
            for convolution in vgg19.convolutions(layer, "decoder")
        }

    @property
    def ordered_variables(self) -> list[tf.Variable]:
        """Kernel and bias of each convolution, in the order of the layers."""
        return [variable for pair in self._weights.values() for variable in pair]

    def input_spec(self, form: str) -> list[tf.TensorSpec] | tf.TensorSpec:
        """Returns what a call takes, the positions in one of their forms.

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
        """Returns the pictures of which an encoder made `inputs`, as well as it can.

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
        return convolve(values, *self._weights[name])

    def _check(self, inputs):
        """Returns the features, and for each pooling its switches."""
        inputs = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        names = ["features", *(block.indices_name for block in self._blocks)]
        if len(inputs) != len(names):
            wanted = f"the list [{', '.join(names)}]" if self._blocks else "the bare features"
            raise ValueError(
                f"a decoder for `{self.layer}` takes {wanted}, as its encoder returns them. "
                f"Received: {len(inputs)} tensors."
            )
        features, *positions = map(tf.convert_to_tensor, inputs)
        features = self._check_features(features)
        batch, height, width, _, _ = tf.unstack(_hidden_shape(features)[1], num=5)
        switches = []
        for block, tensor in zip(self._blocks, positions, strict=True):
            scale = 2 ** (len(self._blocks) - block.number)
            pooled = tf.stack([batch, height * scale, width * scale, block.channels])
            switches.append(self._check_positions(block, tensor, pooled))
        return features, *switches

    def _check_features(self, features):
        wanted = (
            f"`features` must be the encoder's activations of `{self.layer}`: float32, shape "
            f"(B, h, w, {self._channels}), none of them 0."
        )
        spec = tf.TensorShape((None, None, None, self._channels))
        if features.dtype != tf.float32 or not features.shape.is_compatible_with(spec):
            raise ValueError(f"{wanted} Received: {features.dtype.name} of shape {features.shape}.")
        shape, axes = _hidden_shape(features)
        least, most = [1, 1, 1, self._channels], [2**31 - 1] * 3 + [self._channels]
        fits = tf.reduce_all((axes[:4] >= least) & (axes[:4] <= most), axis=0) & (axes[4] == -1)
        with tf.control_dependencies([_assert(fits, wanted, "Received: shape", shape)]):
            return tf.ensure_shape(features, spec)

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
        shape, axes = _hidden_shape(positions)
        not_those = f"`{name}` do not fit `features`, which need those of a pooled map"
        advice = (
            "They are of another layer, of another picture, joined from several batches, or the "
            f"sides of the picture were not multiples of {vgg19.downsampling(self.layer)}: pad it "
            "before it is encoded."
        )
        if are_switches:
            fits = tf.reduce_all(axes == tf.concat([pooled, [-1]], axis=0), axis=0)
            assertion = _assert(fits, not_those, pooled, "Received: those of", shape, advice)
            with tf.control_dependencies([assertion]):
                return _hide_sides(positions, columns)
        is_table = (axes[0] >= 1) & (axes[1] == 4) & (axes[2] == -1)
        wanted = f"`{name}` must be indices of shape (N, 4), N at least 1. Received: shape"
        with tf.control_dependencies([_assert(is_table, wanted, shape)]):
            positions = _hide_sides(positions, columns)
        # The last row tells the shape of the pooled map.
        window = tf.constant([1, 2, 2, 1], positions.dtype)
        received = tf.cast(positions[-1] // window, tf.int32) + 1
        batch, height, width, channels = tf.unstack(tf.cast(pooled, tf.int64), num=4)
        count = batch * height * width * channels
        fits = tf.reduce_all(received == pooled, axis=0) & (
            tf.shape(positions, tf.int64)[0] == count
        )
        assertion = _assert(
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
        with tf.control_dependencies([_assert(in_order, disorder)]):
            return pooling.indices_to_switches(tf.identity(positions), pooled)


def _assert(condition, *data):
    return tf.debugging.Assert(condition, data, summarize=8)


# TensorFlow believes the shapes that a signature declares, and drops comparisons with them; those
# of what comes it holds against each other before any assertion is heard, in words of its own. So
# they are hidden from it.


def _hidden_shape(tensor):
    """The shape of a tensor as it really is, and the same with -1 up to five axes."""
    shape = tf.shape(_hide_sides(tensor, None))
    return shape, tf.concat([shape, [-1] * 5], axis=0)[:5]


def _hide_sides(tensor, known):
    return tf.raw_ops.PlaceholderWithDefault(input=tensor, shape=known)
