"""The pooling pair and the two halves in Keras 3, on any of its backends.

Nothing here imports TensorFlow, unless it is Keras' backend. Positions are switches, as
`unpooling.pooling` lays them out: uint8, (B, h, w, C), 2 * dy + dx. Importing this module registers
its layers, so that `keras.saving.load_model` finds them.
"""

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from unpooling import vgg19
from unpooling import weights as weights_module

__all__ = [
    "MaxPooling2DWithSwitches",
    "MaxUnpooling2D",
    "VGG19Preprocessing",
    "decoder_model",
    "encoder_model",
]

_register = keras.saving.register_keras_serializable("unpooling")


@_register
class VGG19Preprocessing(keras.layers.Layer):
    """RGB in [0, 255] to what VGG19 was trained on: BGR, ImageNet's mean subtracted.

    Takes and returns (B, H, W, 3), in its compute dtype; `encoder_model` sets float32.
    """

    def call(self, images):
        blue_green_red = ops.flip(images, axis=-1)
        return blue_green_red - ops.convert_to_tensor(vgg19.MEAN_BGR, dtype=images.dtype)

    def compute_output_spec(self, images):
        return keras.KerasTensor(images.shape, self.compute_dtype)


@_register
class MaxPooling2DWithSwitches(keras.layers.Layer):
    """Max pooling, 2x2 windows of stride 2, that also returns where each maximum came from.

    Takes values, (B, H, W, C), any floating dtype, B >= 1, H and W at least 2. Returns the maxima,
    (B, H // 2, W // 2, C), in the layer's compute dtype, and the switches of that shape, uint8,
    2 * dy + dx. An odd last row or column is dropped. In a tie the first in row-major order wins,
    as in `tf.nn.max_pool_with_argmax`, and it alone has the gradient. A NaN wins if it is the first
    of its window and loses otherwise. After M. Zeiler and R. Fergus, arXiv 1311.2901.

    Raises:
      ValueError: if H or W is less than 2.
    """

    def call(self, values):
        _, height, width, channels = ops.shape(values)
        shape = (-1, height // 2, width // 2, channels)
        if any(isinstance(side, int) and side < 1 for side in shape[1:3]):
            raise ValueError(
                "`values` must have the shape (B, H, W, C), H and W at least 2: enlarge or pad "
                f"small pictures. Received: shape {tuple(values.shape)}."
            )
        windows = values[:, : 2 * shape[1], : 2 * shape[2]]
        windows = ops.reshape(windows, (-1, 2, shape[2], 2, channels))
        rows = (ops.unstack(row, 2, axis=2) for row in ops.unstack(windows, 2, axis=1))
        greatest, *others = (place for row in rows for place in row)  # (B * h, w, C) each
        wins = []
        for candidate in others:
            wins.append(greatest < candidate)
            greatest = ops.where(wins[-1], candidate, greatest)
        upper_right, lower_left, lower_right = wins
        below = ops.logical_or(lower_left, lower_right)
        right = ops.logical_and(upper_right, ops.logical_not(lower_left))
        right = ops.logical_or(lower_right, right)
        switches = 2 * ops.cast(below, "int32") + ops.cast(right, "int32")
        return ops.reshape(greatest, shape), ops.reshape(ops.cast(switches, "uint8"), shape)

    def compute_output_spec(self, values):
        batch, *sides, channels = values.shape
        shape = (batch, *(None if side is None else side // 2 for side in sides), channels)
        return keras.KerasTensor(shape, self.compute_dtype), keras.KerasTensor(shape, "uint8")


@_register
class MaxUnpooling2D(keras.layers.Layer):
    """Puts every value back where its maximum came from, with zeros everywhere else.

    Takes values, (B, h, w, C), any floating dtype, and the switches that
    `MaxPooling2DWithSwitches` returned, uint8, of the same shape. Returns (B, 2h, 2w, C), in the
    layer's compute dtype. The values need not be the maxima themselves.

    Raises:
      ValueError: if the two have different shapes.
    """

    def call(self, pooled, switches):
        if tuple(pooled.shape) != tuple(switches.shape) and _known(pooled, switches):
            raise ValueError(
                "`switches` must be one for each value of `pooled`: those of another picture or "
                "layer, or of a picture whose sides the poolings do not halve evenly, do not fit. "
                f"Received: shapes {tuple(pooled.shape)} and {tuple(switches.shape)}."
            )
        # In at most four axes, and not by comparing bytes: LiteRT can do neither.
        _, height, width, channels = ops.shape(pooled)
        places = ops.convert_to_tensor(np.arange(4, dtype=np.int32)[:, np.newaxis])
        switches = ops.reshape(
            ops.cast(switches, "int32"), (-1, ops.shape(switches)[2], 1, channels)
        )
        won = ops.equal(switches, places)  # (B * h, w, 4, C)
        values = ops.reshape(pooled, (-1, width, 1, channels))
        values = ops.where(won, values, ops.zeros((), dtype=pooled.dtype))
        rows = ops.transpose(ops.reshape(values, (-1, width, 2, 2 * channels)), (0, 2, 1, 3))
        return ops.reshape(rows, (-1, 2 * height, 2 * width, channels))

    def compute_output_spec(self, pooled, switches):
        batch, *sides, channels = pooled.shape
        shape = (batch, *(None if side is None else 2 * side for side in sides), channels)
        return keras.KerasTensor(shape, self.compute_dtype)


def encoder_model(
    layer: str,
    weights: str | Mapping[str, tuple[np.ndarray, np.ndarray]] = "imagenet",
    seed: int = 0,
) -> keras.Model:
    """Returns the encoder as a Keras model, on whatever backend Keras runs.

    Its outputs are those of `Encoder.compact`: features equal up to rounding, the same switches but
    where rounding decides between two values that are nearly equal.

    Args:
      layer: one of `LAYERS`.
      weights: "imagenet", "random" or the path of a file, as for `Encoder.load`; or for each
        convolution its (kernel, bias), float32, (3, 3, in, out) and (out,).
      seed: the seed of random weights.

    Returns:
      A model from `images`, (B, H, W, 3), float32, RGB, values in [0, 255], H and W at least
      2^(K-1), to the list [features, block1_switches, ..., block{K-1}_switches]; for block1, which
      pools nothing, to the bare features. Features are (B, H/2^(K-1), W/2^(K-1), C), in the compute
      dtype of Keras' policy; the switches of block k are (B, H/2^k, W/2^k, C_k), uint8. Its
      convolutions have the names of `keras.applications.VGG19`.

    Raises:
      ValueError: if `layer` is not one of those, or the weights are not to be had.
    """
    blocks = vgg19.blocks_up_to(layer)
    if isinstance(weights, str):
        weights = weights_module.load(weights, layer, seed).layers
    images = keras.Input((None, None, 3), dtype="float32", name="images")
    values = VGG19Preprocessing(dtype="float32", name="preprocessing")(images)
    switches = []
    for block in blocks:
        for convolution in block.convolutions:
            values = _convolution(convolution)(values)
        if block.pooled:
            values, position = MaxPooling2DWithSwitches(name=block.pool_name)(values)
            switches.append(position)
    return _model(images, [values, *switches], f"vgg19_{layer}_unpooling_encoder", weights)


def decoder_model(
    layer: str,
    weights: str | Mapping[str, tuple[np.ndarray, np.ndarray]] = "pretrained",
    seed: int = 0,
) -> keras.Model:
    """Returns the decoder as a Keras model, on whatever backend Keras runs.

    Args:
      layer: one of `LAYERS`.
      weights: "pretrained", "random" or the path of a file, as for `Decoder.load`; or for each
        convolution its (kernel, bias), float32, (3, 3, in, out) and (out,).
      seed: the seed of random weights.

    Returns:
      A model from the list that `encoder_model` of the same layer returns, for block1 from the bare
      features, to pictures, (B, H, W, 3), float32, RGB, values in [0, 255] or a little outside. The
      sides of the encoded pictures must have been multiples of 2^(K-1).

    Raises:
      ValueError: if `layer` is not one of those, or the weights are not to be had.
    """
    blocks = vgg19.mirror(layer)
    if isinstance(weights, str):
        weights = weights_module.load_decoder(weights, layer, seed).layers
    channels = vgg19.blocks_up_to(layer)[-1].channels
    inputs = [keras.Input((None, None, channels), dtype="float32", name="features")]
    for block in vgg19.pooled_blocks(layer):
        shape = (None, None, block.channels)
        inputs.append(keras.Input(shape, dtype="uint8", name=block.switches_name))
    values = inputs[0]
    for block in blocks:
        if block.unpooled:
            unpool = MaxUnpooling2D(name=f"block{block.number}_unpool")
            values = unpool(values, inputs[block.number])
        for convolution in block.convolutions:
            last = convolution is blocks[-1].convolutions[-1]
            values = _convolution(convolution, last=last)(values)
    return _model(inputs, [values], f"vgg19_{layer}_unpooling_decoder", weights)


def _convolution(convolution, last=False):
    """A convolution; the last of a decoder is linear, and makes float32 under any policy."""
    return keras.layers.Conv2D(
        convolution.out_channels,
        3,
        padding="same",
        data_format="channels_last",
        activation=None if last else "relu",
        dtype="float32" if last else None,
        name=convolution.name,
    )


def _model(inputs, outputs, name, weights):
    inputs, outputs = (
        tensors[0] if isinstance(tensors, list) and len(tensors) == 1 else tensors
        for tensors in (inputs, outputs)
    )
    model = keras.Model(inputs, outputs, name=name)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(weights[layer.name])
    return model


def _known(*tensors):
    """Whether no side of these is unknown, as it may be in a graph of TensorFlow."""
    return all(side is not None for tensor in tensors for side in tensor.shape)
