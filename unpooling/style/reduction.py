"""Pictures made smaller by whole factors, and what was found there carried back."""

import math

import numpy as np
import tensorflow as tf

from unpooling.style.tiles import cut

__all__ = ["enlarged", "factor", "reduced"]

_ROWS = 64  # rows of the small picture that are made at a time


def factor(shape: tuple[int, ...]) -> int:
    """Returns by which whole factor to reduce a picture of a shape (H, W, ...), at least 1.

    A picture of more than 2.25 megapixels is left with 0.56 to 1.56.
    """
    height, width, *_ = shape
    return max(1, round(math.sqrt(height * width / 1e6)))


def reduced(picture: np.ndarray, factor: int) -> np.ndarray:
    """Returns the means of squares of pixels, those at the border filled up by reflection.

    Args:
      picture: (H, W, C), uint8 or floating.
      factor: the side of a square.

    Returns:
      (ceil(H / factor), ceil(W / factor), C), float32.
    """
    if factor == 1:
        return picture.astype(np.float32)
    height, width = (-(-length // factor) for length in picture.shape[:2])
    out = np.empty((height, width, picture.shape[2]), np.float32)
    for top in range(0, height, _ROWS):
        bottom = min(top + _ROWS, height)
        part = cut(picture, (top * factor, bottom * factor, 0, width * factor))
        squares = part.reshape(bottom - top, factor, width, factor, -1)
        out[top:bottom] = squares.astype(np.float32).mean(axis=(1, 3))
    return out


def enlarged(maps: np.ndarray, factor: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """Returns a part of small maps at the size of the large picture, by bilinear interpolation.

    Args:
      maps: (h, w, C), float32, of a picture that was `reduced`.
      factor: by which it was.
      box: (top, bottom, left, right) in the large picture.

    Returns:
      (C, bottom - top, right - left), float32: a plane for each map.
    """
    rows, columns = (
        _interpolation(start, stop, factor, length)
        for start, stop, length in zip(box[::2], box[1::2], maps.shape, strict=False)
    )
    (first, last, down), (start, stop, across) = rows, columns
    planes = np.moveaxis(maps[first:last, start:stop], -1, 0)
    return tf.matmul(tf.matmul(down, planes), across, transpose_b=True).numpy()


def _interpolation(start, stop, factor, length):
    """Which part of a side is needed from `start` to `stop`, and the matrix that interpolates."""
    place = np.clip((np.arange(start, stop) + 0.5) / factor - 0.5, 0, length - 1)
    below = np.minimum(place.astype(int), max(length - 2, 0))
    first, last = below[0], min(below[-1] + 2, length)
    part = np.abs(place[:, np.newaxis] - np.arange(first, last))
    return first, last, np.maximum(0, 1 - part).astype(np.float32)
