"""What a decoder starts from: the encoder's kernels, random ones, or a decoder trained already."""

from collections.abc import Mapping

import h5py
import numpy as np
import tensorflow as tf

from training import model
from training.config import TrainConfig
from unpooling import decoder, vgg19, weights
from unpooling.convolutions import convolve

__all__ = ["initial_layers"]

_Layers = dict[str, tuple[np.ndarray, np.ndarray]]

# The standard deviation of the first pictures, in units of `model.PIXEL_SCALE`.
_LAST_DEVIATION = 0.3


def initial_layers(
    config: TrainConfig,
    encoder_layers: Mapping[str, tuple[np.ndarray, np.ndarray]],
    images: tf.Tensor,
) -> tuple[_Layers, list[str]]:
    """Returns the weights with which `model.Reconstruction` starts, in its units.

    Kernels are "he_normal", random (K. He et al., arXiv 1502.01852), with zero biases; or
    "mirrored": the encoder's, transposed as in a convolution's gradient. These are then scaled one
    after the other, each by one number, and given biases, so that on `images` the outputs have mean
    0 and, on average over the channels, standard deviation 1, but 0.3 for the last (after
    D. Mishkin and J. Matas, arXiv 1511.06422). The convolutions after the unpoolings, which mirror
    none, start as the identity.

    Convolutions that a decoder's file also holds are copied from there, so that deep decoders can
    start where shallow ones ended; those after an unpooling only from a decoder with as many there.
    If the file lacks some of its own layer, they start as the identity.

    Args:
      config: of which `layer`, `seed`, `initial_kernels` and `initial_weights` count.
      encoder_layers: the encoder's, up to the layer: (kernel, bias), float32.
      images: (B, H, W, 3), float32, RGB, values in [0, 255]; what is measured is measured on them.

    Returns:
      {name: (kernel, bias)}, float32, (3, 3, in, out) and (out,); and the names of the
      convolutions that come from the file.

    Raises:
      UserError: if the file is not a decoder's, see `weights.load_decoder`.
    """
    layer, source = config.layer, config.initial_weights
    taken = {}
    if source is not None:
        held = _layer_of(source)
        trained = _trained(source, held, layer, encoder_layers, images)
        taken = {name: trained[name] for name in _common(layer, held)}
    if config.initial_kernels == "mirrored":
        layers = _mirrored(config, taken, encoder_layers, images)
    else:
        layers = {**weights.load_decoder("random", layer, config.seed).layers, **taken}
    return layers, list(taken)


def _common(layer, held):
    """The names of what the decoder for `layer` has in common with that for `held`, in order."""
    theirs, more = vgg19.convolutions(held, "decoder"), vgg19.after_unpooling(layer)
    blocks = vgg19.mirror(held)
    for block in vgg19.mirror(layer):
        as_many = block in blocks
        for c in block.convolutions:
            if c in theirs and (as_many or c not in more):
                yield c.name


def _trained(source, held, layer, encoder_layers, images):
    """The layers of a file, without what `Reconstruction.decoder_layers` folded into them."""
    trained = dict(weights.load_decoder(source, held).layers)
    first, *_, last = trained
    # (Of a deeper decoder, the convolution that takes features is not copied.)
    scale = model.root_mean_square(min(held, layer, key=vgg19.LAYERS.index), encoder_layers, images)
    trained[first] = trained[first][0] * np.float32(scale), trained[first][1]
    kernel, bias = trained[last]
    trained[last] = kernel / model.PIXEL_SCALE, (bias - model.MEAN_RGB) / model.PIXEL_SCALE
    return trained


def _layer_of(source):
    """The deepest layer whose decoder the file holds; the shallowest if it holds none."""
    try:
        with h5py.File(source, "r") as file:
            held = set(file)
    except OSError:
        held = set()  # The loader says what is wrong.
    for layer in reversed(vgg19.LAYERS):
        if all(f"decoder_{c.name}" in held for c in vgg19.convolutions(layer)):
            return layer
    return vgg19.LAYERS[0]


def _mirrored(config, taken, encoder_layers, images):
    """`taken`, and the encoder's kernels for the others, scaled one after the other."""
    constants = {name: tuple(map(tf.constant, pair)) for name, pair in encoder_layers.items()}
    layer = config.layer
    features, switches = model.encode_with_switches(layer, constants, images)
    identities = {c.name: weights.identity(c) for c in vgg19.after_unpooling(layer)}
    last = vgg19.convolutions(layer, "decoder")[-1].name
    layers = {}

    def convolution(values, name):
        if name in taken:
            kernel, bias = taken[name]
        elif name in identities:
            kernel, bias = identities[name]
        else:
            kernel = encoder_layers[name.removeprefix("decoder_")][0]
            kernel = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
            raw = convolve(values, tf.constant(kernel), tf.zeros(kernel.shape[-1]), relu=False)
            mean, variance = tf.nn.moments(raw, axes=[0, 1, 2])
            # One scale for all channels: what differs between them says something.
            deviation = float(tf.reduce_mean(tf.sqrt(variance)))
            gain = (_LAST_DEVIATION if name == last else 1.0) / max(deviation, 1e-12)
            kernel, bias = kernel * np.float32(gain), -mean.numpy() * np.float32(gain)
        layers[name] = kernel, bias
        return convolve(values, tf.constant(kernel), tf.constant(bias), relu=False)

    scale = tf.sqrt(tf.reduce_mean(tf.square(features)))
    decoder.decode(layer, convolution, features / tf.maximum(scale, 1e-12), switches)
    return layers
