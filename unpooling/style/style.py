"""A style: the statistics of the features of one picture, or of several."""

import os
import zipfile
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

from unpooling import tiling, vgg19
from unpooling.errors import UserError, one_line
from unpooling.style import reduction, statistics, transforms
from unpooling.style.checks import check_picture
from unpooling.style.masks import Mask
from unpooling.style.progress import Progress
from unpooling.style.statistics import Statistics

__all__ = ["Style"]


class Style:
    """What a transfer has to know of one style picture, or of several.

    Attributes:
      statistics: {layer: {label: Statistics}}.
    """

    def __init__(self, statistics: dict[str, dict[int, Statistics]]):
        self.statistics = statistics

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose features it knows, block1 first."""
        return tuple(layer for layer in vgg19.LAYERS if layer in self.statistics)

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels of the style's mask, without 0; (1,) without a mask."""
        return tuple(sorted(self.statistics[self.layers[0]]))

    @classmethod
    def learn(
        cls,
        picture: np.ndarray,
        pairs: Sequence[tuple[object, object]],
        mask: np.ndarray | None = None,
        *,
        fast: bool = False,
        progress: Callable[[float], None] | None = None,
    ) -> Self:
        """Measures a style picture.

        Args:
          picture: (H, W, 3), uint8, RGB.
          pairs: see `load_pairs`; of each, only the encoder is used.
          mask: (H, W), labels from 0 to 255; what has label 0 does not count. None: label 1
            throughout.
          fast: whether to measure the picture reduced to about one megapixel.
          progress: is called with what part is done, up to 1.

        Raises:
          UserError: if the picture or the mask is none, or nothing has a label but 0.
        """
        check_picture(picture, "style")
        mask = Mask(mask, picture)
        if mask.labels == (0,):
            raise UserError("the mask of the style has label 0 throughout: nothing is left of it.")
        factor = reduction.factor(picture) if fast else 1
        if factor > 1:
            picture, mask = reduction.reduced(picture, factor), mask.reduced(factor)
        encoders = {tiling.layer_of(encoder): encoder for encoder, _ in pairs}
        done, pixels = Progress(progress, tuple(encoders), 1), picture.size // 3
        return cls(
            {
                layer: statistics.measure(encoder, picture, mask, step=done.step(layer, pixels))
                for layer, encoder in encoders.items()
            }
        )

    @classmethod
    def mix(cls, styles: Sequence[Self], weights: Sequence[float] | None = None) -> Self:
        """Returns what lies between several styles.

        Args:
          styles: at least one. Of a label that some do not have, the others are mixed.
          weights: one for each, at least 0; None for equal ones. Only their ratios matter.

        Raises:
          UserError: if there are no styles, or the weights do not fit.
        """
        weights = [1.0] * len(styles) if weights is None else [float(w) for w in weights]
        if not styles or len(weights) != len(styles):
            raise UserError(f"{len(styles)} styles need as many weights. Received: {len(weights)}.")
        if not all(0 <= w < np.inf for w in weights) or not any(weights):
            raise UserError(
                "weights of styles must be at least 0, and one of them above. Received: "
                f"{', '.join(f'{w:g}' for w in weights)}."
            )
        used = [(style, weight) for style, weight in zip(styles, weights, strict=True) if weight]
        mixed = {}
        for layer in vgg19.LAYERS:
            if not all(layer in style.statistics for style, _ in used):
                continue
            mixed[layer] = {}
            for label in sorted({label for style, _ in used for label in style.labels}):
                having = [(s.statistics[layer][label], w) for s, w in used if label in s.labels]
                total = sum(w for _, w in having)
                mixed[layer][label] = (
                    having[0][0]
                    if len(having) == 1
                    else transforms.barycentre(
                        [s for s, _ in having], [w / total for _, w in having]
                    )
                )
        return cls(mixed)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the statistics, .npz: some hundred kilobytes.

        An upper triangle holds each covariance, in float64: a style that is loaded again gives the
        same bits.
        """
        arrays = {}
        for layer, labels in self.statistics.items():
            for label, found in labels.items():
                rows, columns = np.triu_indices(len(found.mean))
                arrays[f"{layer}/{label}/count"] = np.float64(found.count)
                arrays[f"{layer}/{label}/mean"] = found.mean
                arrays[f"{layer}/{label}/covariance"] = found.covariance[rows, columns]
        partial = f"{os.fspath(path)}.partial"
        try:
            with open(partial, "wb") as file:
                np.savez(file, **arrays)
            os.replace(partial, path)
        except OSError as error:
            raise UserError(f"{one_line(path)} cannot be written: {error.strerror}.") from error
        finally:
            if os.path.exists(partial):
                os.remove(partial)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Reads what `save` wrote.

        Raises:
          UserError: if the file cannot be read, or holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(_read(arrays))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, AttributeError) as error:
            raise UserError(
                f"{one_line(path)} is not a style that was saved ({one_line(error)})."
            ) from error


def _read(arrays):
    """{layer: {label: Statistics}} of what `Style.save` wrote; a ValueError if it is not that."""
    found = {}
    for name in arrays.files:
        layer, label, part = name.split("/")
        channels = vgg19.blocks_up_to(layer)[-1].channels
        if part != "mean":
            continue
        count, mean, triangle = (
            np.asarray(arrays[f"{layer}/{label}/{part}"], np.float64)
            for part in ("count", "mean", "covariance")
        )
        rows, columns = np.triu_indices(channels)
        if count.shape or mean.shape != (channels,) or triangle.shape != rows.shape:
            raise ValueError(f"{name}: the shapes are not those of {layer}")
        if not all(np.isfinite(array).all() for array in (count, mean, triangle)):
            raise ValueError(f"{name}: values that are not finite")
        covariance = np.empty((channels, channels))
        covariance[rows, columns] = covariance[columns, rows] = triangle
        found.setdefault(layer, {})[int(label)] = Statistics(float(count), mean, covariance)
    if not found:
        raise ValueError("it is empty")
    return found
