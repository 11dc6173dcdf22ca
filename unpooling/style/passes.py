"""One level of the transfer: features are encoded, mapped and decoded, tile by tile."""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from unpooling import tiling, vgg19
from unpooling.style.masks import Mask
from unpooling.style.tiles import cut, padded_tiles

__all__ = ["apply"]


def apply(
    pair: tuple[object, object],
    picture: np.ndarray,
    mask: Mask,
    maps: Mapping[int, tuple[np.ndarray, np.ndarray]],
    dtype: type = np.float16,
    side: int = 512,
    step: Callable[[int], None] = lambda pixels: None,
) -> np.ndarray:
    """Returns a picture whose features were mapped.

    Args:
      pair: an encoder and its decoder, as Python objects or loaded.
      picture: (H, W, 3), uint8 or floating, RGB, values in [0, 255].
      mask: the picture's labels.
      maps: {label: (M, b)}, see `transforms.affine`; features of other labels stay as they are.
      dtype: of the result: float16 takes half the memory of float32, and is within 1/16 of a
        value up to 255; uint8 is rounded and clipped.
      side: of a tile, in pixels.
      step: is told of each tile how many pixels it has.

    Returns:
      (H, W, 3).
    """
    encoder, decoder = pair
    layer = tiling.layer_of(encoder)
    scale, margin = vgg19.downsampling(layer), tiling.margin(layer)
    height, width, _ = picture.shape
    maps = {
        label: (tf.constant(matrix, tf.float32), tf.constant(bias, tf.float32))
        for label, (matrix, bias) in maps.items()
    }
    out = np.empty(picture.shape, dtype)
    for tile in padded_tiles(height, width, scale, margin, side):
        images = np.float32(cut(picture, tile.outer)[np.newaxis])
        features, *switches = tf.nest.flatten(encoder.compact(images))
        weights = mask.weights(tile.outer, scale)
        if any(label in maps for label in weights):
            features = _mapped(features, weights, maps)
        decoded = tile.inside(decoder([features, *switches] if switches else features))[0]
        target = out[tile.place()[1:]]  # Shorter than the tile at the lower and right border.
        decoded = decoded[: target.shape[0], : target.shape[1]]
        target[...] = tf.saturate_cast(tf.round(decoded), dtype) if dtype == np.uint8 else decoded
        top, bottom, left, right = tile.inner
        step((bottom - top) * (right - left))
    return out


def _mapped(features, weights, maps):
    """Features, (1, h, w, C), mapped label by label."""
    values = tf.reshape(features, (-1, features.shape[-1]))
    parts = []
    for label, weight in weights.items():
        mapped = values
        if label in maps:
            matrix, bias = maps[label]
            mapped = tf.matmul(values, matrix) + bias
        parts.append(mapped if weight is None else mapped * weight)
    return tf.reshape(tf.add_n(parts), features.shape)
