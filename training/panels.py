"""Drawings of pictures side by side, with a part of each enlarged."""

import os
from collections.abc import Mapping

import matplotlib.figure
import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image

__all__ = ["draw_panels", "reduced"]

_PART = 96  # pixels, the side of the part that is shown enlarged
_MOST_PIXELS = 2**19  # of a picture in a drawing; a panel is 440 pixels wide
_INCHES, _DPI = 4.0, 110


def reduced(picture: np.ndarray) -> np.ndarray:
    """Returns a picture small enough for a drawing: as it is, or averaged over squares of pixels.

    Args:
      picture: (H, W, 3), uint8.
    """
    height, width = picture.shape[:2]
    factor = int(np.ceil(np.sqrt(height * width / _MOST_PIXELS)))
    return np.asarray(Image.fromarray(picture).reduce(factor)) if factor > 1 else picture


def draw_panels(path: str, panels: Mapping[str, np.ndarray]) -> None:
    """Draws pictures side by side, and below them a part of each, enlarged.

    Args:
      path: the PNG to write, in a folder that is made if need be.
      panels: {title: picture}, all of one size: (H, W, 3), uint8, or (H, W) for shades of grey.
    """
    height, width = next(iter(panels.values())).shape[:2]
    side = min(_PART, height, width)
    y, x = (height - side) * 2 // 3, (width - side) // 2
    figure = matplotlib.figure.Figure(
        figsize=(_INCHES * len(panels), _INCHES * (height / width + 1) + 0.8), layout="constrained"
    )
    ratios = {"height_ratios": [height / width, 1]}
    whole, parts = figure.subplots(2, len(panels), squeeze=False, gridspec_kw=ratios)
    for above, below, (title, pixels) in zip(whole, parts, panels.items(), strict=True):
        # A few very bright values must not leave the rest black.
        grey = {} if pixels.ndim == 3 else {"cmap": "gray", "vmin": 0}
        if grey:
            grey["vmax"] = np.percentile(pixels, 99.5)
        above.imshow(pixels, **grey)
        above.set_title(title, fontsize=11)
        above.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor="white"))
        below.imshow(pixels[y : y + side, x : x + side], interpolation="nearest", **grey)
    for axes in figure.axes:
        axes.axis("off")
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    figure.savefig(path, dpi=_DPI)
