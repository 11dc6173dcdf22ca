"""Charts of errors: after each epoch, by photograph, by depth."""

import collections
from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
from matplotlib.ticker import MaxNLocator

from training.evaluate import PUBLISHED_ERRORS

__all__ = ["draw_curves", "draw_errors"]

_DPI = 110
_ERROR = "mean absolute error, 0 to 255"


def draw_curves(path: str, curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> None:
    """Draws the errors on validation pictures after each epoch, beside the published ones.

    Args:
      path: the PNG to write.
      curves: {layer: (steps, errors)}.
    """
    figure = matplotlib.figure.Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for layer, (steps, errors) in curves.items():
        (line,) = axes.plot(steps, errors, marker="o", markersize=3, label=layer)
        axes.axhline(PUBLISHED_ERRORS[layer], color=line.get_color(), linestyle="--", linewidth=1)
    axes.set(xlabel="steps", ylabel=f"{_ERROR}, on validation pictures", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.set_title("Dashed: the published decoders, on other pictures", fontsize=10)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=_DPI)


def draw_errors(path: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Draws how many photographs of each set have which error, and how errors grow with depth.

    Args:
      path: the PNG to write.
      rows: of each photograph `set`, `layer` and `error`; layers and sets are drawn in the order in
        which they come.
    """
    errors = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in rows:
        errors[row["set"]][row["layer"]].append(row["error"])
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    edges = np.histogram_bin_edges([row["error"] for row in rows], 40)
    figure = matplotlib.figure.Figure(
        figsize=(3.2 * len(layers) + 4, 1.3 * len(errors) + 1.5), layout="constrained"
    )
    left, right = figure.subfigures(1, 2, width_ratios=[3.2 * len(layers), 4])
    grid = left.subplots(len(errors), len(layers), sharex=True, sharey="row", squeeze=False)
    for number, (name, by_layer) in enumerate(errors.items()):
        for axes, layer in zip(grid[number], layers, strict=True):
            axes.hist(by_layer[layer], edges, color=f"C{number}")
            axes.axvline(PUBLISHED_ERRORS[layer], color="black", linestyle="--", linewidth=1)
            axes.grid(alpha=0.3)
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        grid[number, 0].set_ylabel(f"{name},\nphotographs")
    for axes, layer in zip(grid[0], layers, strict=True):
        axes.set_title(layer, fontsize=10)
    left.supxlabel(f"{_ERROR}, of each photograph; dashed: the published mean", fontsize=10)
    axes = right.add_subplot()
    for name, by_layer in errors.items():
        axes.plot(layers, [np.mean(by_layer[layer]) for layer in layers], marker="o", label=name)
    published = [PUBLISHED_ERRORS[layer] for layer in layers]
    axes.plot(layers, published, "k--", marker="o", label="published, on COCO")
    axes.set_title("mean over the photographs", fontsize=10)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=_DPI)
