"""What a decoder starts from: random weights, and those of decoders that are trained already."""

from collections.abc import Mapping

import h5py
import numpy as np
import tensorflow as tf

from export import vgg19, weights
from training import model

__all__ = ["initial_layers"]

_Layers = dict[str, tuple[np.ndarray, np.ndarray]]


def initial_layers(
    layer: str,
    seed: int,
    source: str | None,
    encoder_layers: Mapping[str, tuple[np.ndarray, np.ndarray]],
    images: tf.Tensor,
) -> tuple[_Layers, list[str]]:
    """Returns the weights with which `model.Reconstruction` begins, in the units of its learning.

    They are He-normal (K. He et al., arXiv 1502.01852) with zero biases; convolutions that a file
    holds too are taken from there, so that deep decoders can begin where shallow ones ended.

    Args:
      layer: one of `vgg19.LAYERS`.
      seed: of the random weights, from 0 to 2^64 - 1.
      source: the path of a decoder's .h5 file, of this or another layer, or None.
      encoder_layers: the encoder's, up to `layer`: (kernel, bias), float32.
      images: (B, H, W, 3), float32, RGB, values in [0, 255]; what the scale of features of the
        file's layer is measured on.

    Returns:
      {name: (kernel, bias)}, float32, (3, 3, in, out) and (out,), and the names of the
      convolutions that come from the file.

    Raises:
      ValueError: if the file is not that of a decoder, see `weights.load_decoder`.
    """
    layers = dict(weights.load_decoder("random", layer, seed).layers)
    if source is None:
        return layers, []
    held = _layer_of(source)
    trained = dict(weights.load_decoder(source, held).layers)
    names = list(trained)
    # What `Reconstruction.decoder_layers` folded in, taken out again.
    # (Of a deeper layer's, the convolution that took features is not taken over.)
    scale = model.root_mean_square(min(held, layer), encoder_layers, images)
    kernel, bias = trained[names[0]]
    trained[names[0]] = kernel * np.float32(scale), bias
    kernel, bias = trained[names[-1]]
    pixel_scale = np.float32(model.PIXEL_SCALE)
    trained[names[-1]] = kernel / pixel_scale, (bias - model.MEAN_RGB) / pixel_scale
    taken = [name for name in layers if name in trained]
    return {**layers, **{name: trained[name] for name in taken}}, taken


def _layer_of(source):
    """The deepest layer whose decoder the file holds; the shallowest if it holds none."""
    try:
        with h5py.File(source, "r") as file:
            held = set(file)
    except OSError:
        held = set()  # The loader says what is wrong.
    for layer in reversed(vgg19.LAYERS):
        if all(c.name in held for block in vgg19.mirror(layer) for c in block.convolutions):
            return layer
    return vgg19.LAYERS[0]
