"""Tiles with a full margin on all sides: beyond the picture's border, its reflection.

Convolutions pad with zeros, which is a dark frame to statistics and to the maps made of them. With
a margin everywhere, no zero reaches what is kept.
"""

from collections.abc import Iterator

import numpy as np

from unpooling import tiling
from unpooling.tiling import Tile

__all__ = ["cut", "padded_tiles"]


def padded_tiles(
    height: int, width: int, multiple: int = 1, margin: int = 0, side: int = 512
) -> Iterator[Tile]:
    """Yields the tiles of a picture, row by row; their outer parts may lie outside of it.

    Args:
      height, width: of the picture, in pixels; tiles cover the next multiples.
      multiple, margin, side: as for `tiling.tiles`.
    """
    height, width = (-(-length // multiple) * multiple for length in (height, width))
    for tile in tiling.tiles(height, width, multiple, 0, side):
        top, bottom, left, right = tile.inner
        yield Tile(tile.inner, (top - margin, bottom + margin, left - margin, right + margin))


def cut(maps: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Returns a part of maps (H, W, ...), reflected where it lies outside of them.

    Args:
      maps: (H, W, ...).
      box: (top, bottom, left, right), as in `Tile`.
    """
    top, bottom, left, right = box
    rows, columns = _reflected(top, bottom, len(maps)), _reflected(left, right, maps.shape[1])
    inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    if rows[-1] - rows[0] == len(rows) - 1 and columns[-1] - columns[0] == len(columns) - 1:
        return maps[inside]  # Nothing is reflected.
    return maps[rows][:, columns]


def _reflected(start, stop, length):
    """Which row or column stands where, from `start` to `stop`; the border is not repeated."""
    place = np.arange(start, stop) % max(2 * (length - 1), 1)
    return np.minimum(place, 2 * (length - 1) - place)
