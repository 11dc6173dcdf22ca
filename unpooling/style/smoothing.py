"""Details from the content, colours and light from the stylised picture.

The guided filter (K. He et al., "Guided image filtering", 2010) with the content as guide fits in
every window an affine map of colours by least squares. Three things are different here:

* It filters the difference between the stylised picture and the content, which is then added to the
  content. So the regularisation pulls each map towards the content's own contrast instead of none,
  which looks like fog.
* Windows are wide, a third of the picture. No map can follow what deep features bring into skies,
  halos and grain, which the content does not have.
* What contrast is lost all the same is given back: each channel gets the mean and the standard
  deviation of the stylised picture.

Each label of a mask has its own maps. They change slowly, so they are fitted on small pictures and
enlarged (K. He and J. Sun, "Fast guided filter", arXiv 1505.00996). That also carries a transfer to
a larger picture.
"""

import math

import numpy as np

from unpooling.style import reduction
from unpooling.style.masks import Mask, blended

__all__ = ["smoothed"]

_RADIUS = 0.15  # of the windows: this part of the mean side of the picture
_REGULARISATION = 0.03  # the variance, of values in [0, 1], below which a window counts as flat
_FITTED_RADIUS = 16  # pixels; maps are fitted where windows have about this radius
_MOST_GAIN = 3  # of the contrast that is given back
_NOTHING = 1e-6  # a weight


def smoothed(content: np.ndarray, picture: np.ndarray, mask: Mask, factor: int = 1) -> np.ndarray:
    """Returns the content with its colours changed, window by window, as in the stylised picture.

    Args:
      content: (H, W, 3), uint8.
      picture: what was made of it, floating, (H, W, 3), or of `reduction.reduced(content, factor)`.
      mask: the content's labels. What has label 0 stays as it is.
      factor: see there.

    Returns:
      (H, W, 3), uint8.
    """
    maps, spacing = _local_maps(content, picture, mask, factor)

    def changed(label, box, pixels):
        if label not in maps:  # It is too small for the reduced picture.
            return pixels
        return _applied(maps[label], spacing, box, pixels)

    return blended(content, mask, changed)


def _local_maps(content, picture, mask, factor):
    """{label: maps of colours}, see `_fit`, and how many pixels they are apart.

    Contrast is compared on pictures of about a megapixel, maps are fitted on still smaller ones.
    """
    more = max(1, reduction.factor(content.shape) // factor)
    factor *= more
    goal = reduction.reduced(picture, more)
    guide = reduction.reduced(content, factor)
    box = 0, guide.shape[0], 0, guide.shape[1]
    radius = _RADIUS * math.sqrt(content.size / 3) / factor
    spacing = max(1, round(radius / _FITTED_RADIUS))
    maps = {}
    for label, weight in mask.reduced(factor).weights(box, 1).items():
        if not label:
            continue
        weight = np.ones(_plane(guide)) if weight is None else weight.reshape(_plane(guide))
        small = (reduction.reduced(each, spacing) for each in (guide, goal - guide, weight))
        found = _fit(*small, max(1, round(radius / spacing)))
        changed = _applied(found, spacing, box, guide)
        (mean, deviation), (wanted, contrast) = (_moments(p, weight) for p in (changed, goal))
        gain = np.clip(contrast / np.maximum(deviation, 1e-3), 1 / _MOST_GAIN, _MOST_GAIN)
        found[..., 3, :] -= mean
        found *= gain
        found[..., 3, :] += wanted
        maps[label] = found
    return maps, factor * spacing


def _fit(guide, difference, weights, radius):
    """Fits maps of colours, (h, w, 4, 3), float32, by the guided filter.

    Args:
      guide, difference: (h, w, 3).
      weights: (h, w, 1), how much each pixel counts.
      radius: of the windows.

    Returns:
      At each pixel a 3x3 matrix and below it a vector: guide M + v is nearly guide + difference.
    """
    guide, difference, weights = (np.float64(each) for each in (guide, difference, weights))
    values = np.concatenate([guide / 255, difference / 255], axis=-1)
    products = values[..., :3, np.newaxis] * values[..., np.newaxis, :]  # (h, w, 3, 6)
    mass = _box(weights, radius)
    mean = _box(weights * values, radius) / np.maximum(mass, _NOTHING)
    products = _box(weights[..., np.newaxis] * products, radius)
    products /= np.maximum(mass, _NOTHING)[..., np.newaxis]
    products -= mean[..., :3, np.newaxis] * mean[..., np.newaxis, :]
    matrix = np.linalg.solve(products[..., :3] + _REGULARISATION * np.eye(3), products[..., 3:])
    vector = mean[..., np.newaxis, 3:] - mean[..., np.newaxis, :3] @ matrix
    maps = np.concatenate([matrix + np.eye(3), 255 * vector], axis=-2)
    mass = mass[..., np.newaxis]
    return np.float32(_box(mass * maps, radius) / np.maximum(_box(mass, radius), _NOTHING))


def _applied(maps, spacing, box, pixels):
    """The part of a picture in a box, (h, w, 3), float32, mapped by what `_fit` returned."""
    planes = reduction.enlarged(maps.reshape(*maps.shape[:2], 12), spacing, box)
    out = np.empty_like(pixels)
    for channel in range(3):
        out[..., channel] = planes[9 + channel]
        for other in range(3):
            out[..., channel] += planes[3 * other + channel] * pixels[..., other]
    return out


def _moments(picture, weights):
    """The means and standard deviations of the channels."""
    total = weights.sum(dtype=np.float64)
    mean = (weights * picture).sum(axis=(0, 1), dtype=np.float64) / total
    square = (weights * (picture - mean) ** 2).sum(axis=(0, 1), dtype=np.float64) / total
    return mean, np.sqrt(square)


def _box(maps, radius):
    """The sums of maps (h, w, ...) over the window around each pixel, as far as it is inside."""
    for axis in (0, 1):
        sums = np.insert(np.cumsum(maps, axis), 0, 0, axis)
        place = np.arange(maps.shape[axis])
        last = np.minimum(place + radius + 1, len(place))
        maps = sums.take(last, axis) - sums.take(np.maximum(place - radius, 0), axis)
    return maps


def _plane(pixels):
    return (*pixels.shape[:2], 1)
