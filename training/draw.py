"""Pictures of what was learnt: photographs beside their reconstructions, curves of errors."""

from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np

__all__ = ["curves", "reconstructions"]

_DETAIL = 96  # pixels: the side of the part that is shown enlarged


def reconstructions(
    path: str, photograph: np.ndarray, decoded: Mapping[str, np.ndarray], detail: tuple[int, int]
) -> None:
    """Draws a photograph and its reconstructions side by side, and below a part of each, enlarged.

    Args:
      path: the PNG to write.
      photograph: (H, W, 3), uint8, RGB; sides of at least 96.
      decoded: {name: (H, W, 3)}, float32, RGB, values in [0, 255] or a little outside; the error,
        the mean absolute difference, is added to the name.
      detail: (y, x) of the upper left corner of the part.

    Raises:
      ValueError: if the photograph is smaller than that.
    """
    if min(photograph.shape[:2]) < _DETAIL:
        raise ValueError(
            f"the photograph must have sides of at least {_DETAIL} pixels. "
            f"Received: {photograph.shape[1]}x{photograph.shape[0]}."
        )
    panels = {"photograph": photograph}
    for name, pixels in decoded.items():
        error = np.mean(np.abs(pixels - photograph.astype(np.float32)))
        shown = np.uint8(np.clip(np.round(pixels), 0, 255))
        panels[f"{name}: error {error:.3f} of 255"] = shown
    height, width = photograph.shape[:2]
    y, x = min(detail[0], height - _DETAIL), min(detail[1], width - _DETAIL)
    columns, side = len(panels), 4.0  # inches
    figure = matplotlib.figure.Figure(
        figsize=(side * columns, side * height / width + side + 0.6), layout="constrained"
    )
    rows = figure.subplots(
        2, columns, squeeze=False, gridspec_kw={"height_ratios": [height / width, 1]}
    )
    for column, (title, pixels) in enumerate(panels.items()):
        rows[0, column].imshow(pixels)
        rows[0, column].set_title(title, fontsize=11)
        rows[0, column].add_patch(
            matplotlib.patches.Rectangle(
                (x, y), _DETAIL, _DETAIL, fill=False, edgecolor="white", linewidth=1
            )
        )
        rows[1, column].imshow(pixels[y : y + _DETAIL, x : x + _DETAIL], interpolation="nearest")
    for axes in rows.flat:
        axes.axis("off")
    figure.savefig(path, dpi=90)


def curves(
    path: str,
    errors: Mapping[str, Sequence[float]],
    steps: Mapping[str, int],
    published: Mapping[str, float],
) -> None:
    """Draws how the errors on validation pictures went down, beside the published ones.

    Args:
      path: the PNG to write.
      errors: {layer: the mean absolute error after each epoch, values in [0, 255]}.
      steps: {layer: how many steps an epoch has}.
      published: {layer: the error of the published decoder}, drawn as a dashed line.
    """
    figure = matplotlib.figure.Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for layer, values in errors.items():
        at = steps[layer] * np.arange(1, len(values) + 1)
        (line,) = axes.plot(at, values, marker="o", markersize=3, label=layer)
        axes.axhline(published[layer], color=line.get_color(), linestyle="--", linewidth=1)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("steps")
    axes.set_ylabel("mean absolute error, 0 to 255, of validation pictures")
    axes.set_title("Dashed: the published decoders, on other pictures", fontsize=10)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=110)
