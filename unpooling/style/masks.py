"""Labels of regions, as weights that pass softly from one region into the next."""

from collections.abc import Callable, Collection
from typing import Self

import numpy as np

from unpooling.errors import UserError
from unpooling.style.tiles import cut, padded_tiles

__all__ = ["Mask", "blended"]

# The width of the seam between two labels: this part of the mean side of the picture.
_SEAM = 0.01

_SIDE = 256  # of a tile, in pixels


class Mask:
    """The labels of a picture.

    Attributes:
      labels: the labels that it has, 0 included, ascending.
    """

    def __init__(self, labels: np.ndarray | None, picture: np.ndarray):
        """Takes the labels of a picture.

        Args:
          labels: (H, W), integers from 0 to 255, or None: label 1 throughout.
          picture: (H, W, 3).

        Raises:
          UserError: if they are none, or not of the picture's size.
        """
        self._labels = labels
        self.labels = (1,)
        self._shape = picture.shape[:2]
        if labels is None:
            return
        if labels.dtype.kind not in "bui" or labels.ndim != 2:
            raise UserError(
                "a mask must hold one integer for each pixel, of shape (H, W). Received: "
                f"{labels.dtype} of shape {labels.shape}."
            )
        if labels.shape != self._shape:
            (height, width), (rows, columns) = self._shape, labels.shape
            raise UserError(
                f"a mask must have the size of its picture, {width}x{height} pixels. Received: "
                f"{columns}x{rows}."
            )
        self.labels = tuple(int(label) for label in np.unique(labels))
        if self.labels[0] < 0 or self.labels[-1] > 255:
            raise UserError(
                "labels of a mask must be from 0 to 255. Received: "
                f"{self.labels[0]} to {self.labels[-1]}."
            )
        self._labels = labels.astype(np.uint8, copy=False)
        self._radius = max(1, round(_SEAM * np.sqrt(labels.size) / 2))

    def only(self, labels: Collection[int]) -> Self:
        """Returns these labels alone; all others become 0."""
        if set(self.labels) <= {0, *labels}:
            return self
        kept = np.zeros(256, np.uint8)
        kept[list(labels)] = list(labels)
        found = np.zeros(self._shape, np.uint8) if self._labels is None else kept[self._labels]
        return Mask(found, found)

    def reduced(self, factor: int) -> Self:
        """Returns the labels in the middle of squares with sides of `factor` pixels."""
        if self._labels is None or factor == 1:
            return self
        rows, columns = (
            np.minimum(np.arange(0, length, factor) + factor // 2, length - 1)
            for length in self._labels.shape
        )
        labels = self._labels[rows][:, columns]
        return Mask(labels, labels)

    def weights(self, box: tuple[int, int, int, int], scale: int) -> dict[int, np.ndarray | None]:
        """Returns how much of each label the positions of a part of the picture have.

        Args:
          box: (top, bottom, left, right), in pixels, multiples of `scale`; see `tiles.cut`.
          scale: how many pixels one position stands for along each side.

        Returns:
          {label: weights}, (N, 1), float32, above 0 somewhere; None if all are 1.
          The weights of a position have the sum 1.
        """
        if len(self.labels) == 1:
            return {self.labels[0]: None}
        # The mean over the square around each position.
        reach = max(0, self._radius - scale // 2)
        top, bottom, left, right = box
        labels = cut(self._labels, (top - reach, bottom + reach, left - reach, right + reach))
        found = np.unique(labels)
        if len(found) == 1:
            return {int(found[0]): None}
        weights = {}
        for label in found:
            sums = np.pad(labels == label, ((1, 0), (1, 0))).astype(np.int32)
            sums = sums.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)
            size = scale + 2 * reach
            sums = sums[size:] - sums[:-size]
            sums = (sums[:, size:] - sums[:, :-size])[::scale, ::scale]
            weights[int(label)] = (sums / np.float32(size**2)).reshape(-1, 1)
        return weights


def blended(
    content: np.ndarray,
    mask: Mask,
    changed: Callable[[int, tuple[int, int, int, int], np.ndarray], np.ndarray],
) -> np.ndarray:
    """Returns a picture in which each label is changed in its own way, and label 0 in none.

    Args:
      content: (H, W, 3), uint8.
      mask: its labels.
      changed: takes a label, a box (top, bottom, left, right), and the content's pixels in it,
        (h, w, 3), float32; returns what they become, of that shape.

    Returns:
      (H, W, 3), uint8: of label 0 the content's bits, but where it passes into other labels.
    """
    out = np.empty_like(content)
    for tile in padded_tiles(*content.shape[:2], side=_SIDE):
        place = tile.place()[1:]
        pixels = content[place].astype(np.float32)
        values = []
        for label, weight in mask.weights(tile.inner, 1).items():
            value = changed(label, tile.inner, pixels) if label else pixels
            values.append(value if weight is None else value * weight.reshape(*value.shape[:2], 1))
        out[place] = np.clip(np.rint(sum(values)), 0, 255)
    return out
