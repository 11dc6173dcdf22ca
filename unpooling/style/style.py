"""A style: the statistics of the features of one picture, or of several."""

import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import numpy as np

from unpooling import tiling, vgg19
from unpooling.errors import UserError, one_line
from unpooling.style import reduction, statistics, transforms
from unpooling.style.checks import check_picture
from unpooling.style.masks import Mask
from unpooling.style.progress import Progress
from unpooling.style.statistics import Statistics
from unpooling.weights import digests_of, joint_sha256

__all__ = ["Style", "check_weights"]


class Style:
    """What a transfer has to know of one style picture, or of several.

    Attributes:
      statistics: {layer: {label: Statistics}}.
      encoders: {layer: a SHA-256 of the weights of the encoder that it was learnt with}.
      has_mask: whether there was a mask; without one, the only label is 1.
    """

    def __init__(
        self,
        statistics: Mapping[str, Mapping[int, Statistics]],
        encoders: Mapping[str, str],
        has_mask: bool = False,
    ):
        self.statistics, self.encoders, self.has_mask = statistics, encoders, has_mask

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose features it knows, block1 first."""
        return tuple(layer for layer in vgg19.LAYERS if layer in self.statistics)

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels that it has statistics of: those of its mask, without 0."""
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
        has_mask, mask = mask is not None, Mask(mask, picture)
        if mask.labels == (0,):
            raise UserError("the mask of the style has label 0 throughout: nothing is left of it.")
        factor = reduction.factor(picture.shape) if fast else 1
        if factor > 1:
            picture, mask = reduction.reduced(picture, factor), mask.reduced(factor)
        encoders = {tiling.layer_of(encoder): encoder for encoder, _ in pairs}
        done, pixels = Progress(progress, tuple(encoders), 1), picture.size // 3
        found = {
            layer: statistics.measure(encoder, picture, mask, step=done.step(layer, pixels))
            for layer, encoder in encoders.items()
        }
        return cls(found, _digests(pairs), has_mask)

    @classmethod
    def mix(cls, styles: Sequence[Self], weights: Sequence[float] | None = None) -> Self:
        """Returns what lies between several styles.

        Args:
          styles: at least one. Of a label that some do not have, the others are mixed.
          weights: one for each, at least 0; None for equal ones. Only their ratios matter.

        Raises:
          UserError: if there are no styles, they were learnt with different encoders, or the
            weights do not fit.
        """
        weights = check_weights(weights, len(styles))
        used = [(style, weight) for style, weight in zip(styles, weights, strict=True) if weight]
        mixed, encoders = {}, {}
        for layer in vgg19.LAYERS:
            if not all(layer in style.statistics for style, _ in used):
                continue
            if len({style.encoders[layer] for style, _ in used}) > 1:
                raise UserError(
                    f"these styles were learnt with different encoders of {layer}: learn them "
                    "anew with one."
                )
            mixed[layer], encoders[layer] = {}, used[0][0].encoders[layer]
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
        return cls(mixed, encoders, any(style.has_mask for style, _ in used))

    def check_pairs(self, pairs: Sequence[tuple[object, object]]) -> None:
        """Checks that it was learnt with the encoders of these pairs.

        Raises:
          UserError: if it lacks the layer of one, or was learnt with other weights.
        """
        digests = _digests(pairs)
        if missing := [layer for layer in digests if layer not in self.encoders]:
            raise UserError(
                f"this style knows the features of {', '.join(self.layers)}, not of "
                f"{', '.join(missing)}: transfer with a smaller depth, or learn the style anew."
            )
        for layer, digest in digests.items():
            if self.encoders[layer] != digest:
                raise UserError(
                    f"this style was learnt with another encoder of {layer}: pass that one, or "
                    "learn the style anew with this one."
                )

    def save(self, path: str | os.PathLike) -> None:
        """Writes the statistics, .npz: some hundred kilobytes.

        An upper triangle holds each covariance, in float64: a style that is loaded again gives the
        same bits.
        """
        arrays = {"has_mask": np.bool_(self.has_mask)}
        for layer, labels in self.statistics.items():
            arrays[f"{layer}/encoder"] = np.str_(self.encoders[layer])
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
                return cls(*_read(arrays))
        # The last three are NumPy's and Python's for an empty file and for a single array.
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError, TypeError) as error:
            raise UserError(
                f"{one_line(path)} is not a style that was saved ({one_line(error)})."
            ) from error


def check_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """Returns the weights of so many styles, equal ones for None.

    Raises:
      UserError: if they are not as many, none is above 0, or one is below.
    """
    weights = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if not count or len(weights) != count:
        raise UserError(f"{count} styles need as many weights. Received: {len(weights)}.")
    if not all(0 <= weight < np.inf for weight in weights) or not any(weights):
        raise UserError(
            "weights of styles must be at least 0, and one of them above. Received: "
            f"{', '.join(f'{weight:g}' for weight in weights)}."
        )
    return weights


def _digests(pairs):
    """{layer: a SHA-256 of all weights of the pair's encoder}."""
    return {tiling.layer_of(e): joint_sha256(digests_of(e.variables)) for e, _ in pairs}


def _read(arrays):
    """The arguments of a `Style` of what `save` wrote; a ValueError if it is not that."""
    found = {}
    for name in arrays.files:
        if not name.endswith("/mean"):
            continue
        layer, label, _ = name.split("/")
        channels = vgg19.blocks_up_to(layer)[-1].channels
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
    encoders = {layer: str(arrays[f"{layer}/encoder"]) for layer in found}
    return found, encoders, bool(arrays["has_mask"])
