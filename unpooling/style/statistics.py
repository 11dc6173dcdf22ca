"""Means and covariances of features: sums over tiles, for each label, in float64."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from unpooling import tiling, vgg19
from unpooling.style.masks import Mask
from unpooling.style.tiles import cut, padded_tiles

__all__ = ["Statistics", "measure"]

_ROWS = 256  # positions that are summed in float32
_AT_ONCE = 256  # such groups


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What is known of the features of one label.

    Attributes:
      count: how many positions there are: the sum of the label's weights.
      mean: (C,), float64.
      covariance: (C, C), float64, symmetric: the mean product of differences from the mean.
    """

    count: float
    mean: np.ndarray
    covariance: np.ndarray


class _Sums:
    """Sums of features and of their products, of what differs from a reference.

    The reference, float32, keeps the covariance of nearly constant features from drowning in their
    squares. Groups of rows are summed in float32, for speed, and all that follows in float64.
    """

    def __init__(self, reference):
        self._reference = reference
        self._products = np.zeros((len(reference) + 1, len(reference) + 1))

    def add(self, features, weights):
        """Adds features, (N, C), with weights, (N, 1), or None for 1."""
        for start in range(0, len(features), _AT_ONCE * _ROWS):
            part = slice(start, start + _AT_ONCE * _ROWS)
            # With a column of ones, the products hold the sums and the count as well.
            values = tf.pad(features[part] - self._reference, [(0, 0), (0, 1)], constant_values=1)
            if weights is not None:
                values *= np.sqrt(weights[part])
            values = tf.pad(values, [(0, -len(values) % _ROWS), (0, 0)])
            values = tf.reshape(values, (-1, _ROWS, values.shape[1]))
            products = tf.matmul(values, values, transpose_a=True).numpy()
            self._products += products.sum(axis=0, dtype=np.float64)

    def statistics(self):
        count = float(self._products[-1, -1])
        mean = self._products[-1, :-1] / count
        covariance = self._products[:-1, :-1] / count - np.outer(mean, mean)
        return Statistics(count, self._reference + mean, (covariance + covariance.T) / 2)


def measure(
    encoder: object,
    picture: np.ndarray,
    mask: Mask,
    side: int = 512,
    step: Callable[[int], None] = lambda pixels: None,
) -> dict[int, Statistics]:
    """Returns the statistics of a picture's features, tile by tile.

    Args:
      encoder: an `Encoder` or a loaded one.
      picture: (H, W, 3), uint8 or floating, RGB, values in [0, 255].
      mask: the picture's labels; what has label 0 is not measured.
      side: of a tile, in pixels. The order of the sums depends on it.
      step: is told of each tile how many pixels it has.

    Returns:
      {label: statistics} for the labels that the picture has.
    """
    layer = tiling.layer_of(encoder)
    scale, margin = vgg19.downsampling(layer), tiling.margin(layer, decoded=False)
    height, width = picture.shape[:2]
    sums = {}
    for tile in padded_tiles(height, width, scale, margin, side):
        weights = mask.weights(tile.inner, scale)
        if any(weights):
            images = np.float32(cut(picture, tile.outer)[np.newaxis])
            features = tile.inside(encoder.features(images), scale)
            features = tf.reshape(features, (-1, features.shape[-1]))
            for label, weight in weights.items():
                if label:
                    if label not in sums:
                        sums[label] = _Sums(tf.reduce_mean(features[:_ROWS], axis=0).numpy())
                    sums[label].add(features, weight)
        top, bottom, left, right = tile.inner
        step((bottom - top) * (right - left))
    return {label: sums[label].statistics() for label in sorted(sums)}
