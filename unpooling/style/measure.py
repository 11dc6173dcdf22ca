"""How good a transfer is: what it keeps of the content, and how near it comes to the style.

Pictures are (H, W, 3), uint8, RGB.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from unpooling import tiling
from unpooling.style import statistics
from unpooling.style.masks import Mask
from unpooling.style.style import Style

__all__ = [
    "colour_distances",
    "edge_ssim",
    "feature_distances",
    "psnr",
    "reinhard",
    "ssim",
]

_LUMA = np.float32([0.299, 0.587, 0.114])  # ITU-R BT.601

# Logarithms of the responses of the eye's cones, and from them lightness and two opponent colours:
# E. Reinhard et al., "Color transfer between images", 2001, equations 2 to 6.
_CONES = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_OPPONENTS = np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]]) / np.sqrt([[3], [6], [2]])
_FLOOR = 1 / 255  # So that black has a logarithm.


def edge_ssim(content: np.ndarray, picture: np.ndarray) -> float:
    """Returns the SSIM between the edges of two pictures, at most 1.

    As J. Yoo et al., "Photorealistic style transfer via wavelet transforms", arXiv 1903.09760,
    measure what a transfer keeps of the content, but edges are Sobel's gradient magnitude of the
    luma, from 0 to 255, instead of a network's.
    """
    one, other = (_edges(image) for image in (content, picture))
    return float(tf.image.ssim(one, other, 255.0)[0])


def _edges(picture):
    luma = tf.constant(picture.astype(np.float32) @ _LUMA)[tf.newaxis, ..., tf.newaxis]
    gradient = tf.image.sobel_edges(luma)[..., 0, :] / 4
    return tf.sqrt(tf.reduce_mean(gradient**2, axis=-1, keepdims=True))


def ssim(picture: np.ndarray, reference: np.ndarray) -> float:
    """Returns the SSIM of two pictures (Z. Wang et al., 2004), of `tf.image.ssim`."""
    one, other = (tf.constant(image[np.newaxis]) for image in (picture, reference))
    return float(tf.image.ssim(one, other, 255)[0])


def psnr(picture: np.ndarray, reference: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio of two pictures, in decibels."""
    square = np.mean((picture.astype(np.float32) - reference) ** 2, dtype=np.float64)
    return float(10 * np.log10(255**2 / square)) if square else float("inf")


def colour_distances(picture: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Returns how far a picture's colours are from another's, 0 to 255.

    Returns:
      `mean` and `deviation`: the differences of the means, and of the standard deviations, of red,
      green and blue, as the mean of the three absolute values.
    """
    found = {}
    for name, function in (("mean", np.mean), ("deviation", np.std)):
        one, other = (function(p, axis=(0, 1), dtype=np.float64) for p in (picture, reference))
        found[name] = float(np.mean(np.abs(one - other)))
    return found


def feature_distances(
    picture: np.ndarray, style: Style, pairs: Sequence[tuple[object, object]]
) -> dict[str, tuple[float, float]]:
    """Returns how far the statistics of a picture's features are from a style's without labels.

    Returns:
      {layer: (mean, covariance)}: the Euclidean distance of the means and the Frobenius distance of
      the covariances, each divided by the norm of the style's.
    """
    found = {}
    for encoder, _ in pairs:
        layer = tiling.layer_of(encoder)
        one = statistics.measure(encoder, picture, Mask(None, picture))[1]
        other = style.statistics[layer][1]
        found[layer] = tuple(
            float(np.linalg.norm(a - b) / np.linalg.norm(b))
            for a, b in ((one.mean, other.mean), (one.covariance, other.covariance))
        )
    return found


def reinhard(content: np.ndarray, style: np.ndarray) -> np.ndarray:
    """Returns the content with the means and deviations of the style's colours, in Ruderman's Lab.

    The transfer of E. Reinhard et al., "Color transfer between images", 2001: what needs no
    network, and what one with a network has to surpass.
    """
    values, wanted = (_to_lab(picture) for picture in (content, style))
    values = (values - values.mean(axis=(0, 1))) / (values.std(axis=(0, 1)) + 1e-6)
    values = values * wanted.std(axis=(0, 1)) + wanted.mean(axis=(0, 1))
    cones = 10 ** (values @ np.linalg.inv(_OPPONENTS).T)
    colours = (cones - _FLOOR) @ np.linalg.inv(_CONES).T
    return np.clip(np.round(colours * 255), 0, 255).astype(np.uint8)


def _to_lab(picture):
    return np.log10(picture / 255 @ _CONES.T + _FLOOR) @ _OPPONENTS.T
