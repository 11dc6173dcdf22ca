"""Drawings of pictures side by side, with a part of each enlarged."""

import os
from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image

__all__ = ["draw_panels", "draw_worst", "reduced"]

_PART = 96  # pixels, the side of the part that is shown enlarged
_MOST_PIXELS = 2**19  # of a picture in a drawing; a panel is 440 pixels wide
_INCHES, _DPI = 4.0, 110
_JPEG = {"quality": 90}  # a PNG has none


def reduced(picture: np.ndarray) -> np.ndarray:
    """Returns a picture small enough for a drawing: as it is, or averaged over squares of pixels.

    Args:
      picture: (H, W, 3), uint8; or (H, W), float32.
    """
    height, width = picture.shape[:2]
    factor = int(np.ceil(np.sqrt(height * width / _MOST_PIXELS)))
    return np.asarray(Image.fromarray(picture).reduce(factor)) if factor > 1 else picture


def draw_panels(path: str, panels: Mapping[str, np.ndarray]) -> None:
    """Draws pictures side by side, and below them a part of each, enlarged.

    Args:
      path: the JPEG or PNG to write, in a folder that is made if need be.
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
    figure.savefig(path, dpi=_DPI, pil_kwargs=_JPEG)


def draw_worst(
    path: str, groups: Mapping[str, Sequence[tuple[str, np.ndarray, np.ndarray]]]
) -> None:
    """Draws pictures, where their reconstructions err, and the part where these err most.

    Args:
      path: the JPEG or PNG to write, in an existing folder.
      groups: {title: [(caption, picture, reconstruction)]}, (H, W, 3), uint8 and float32,
        values in [0, 255] or a little outside.
    """
    columns = max(map(len, groups.values()))
    figure = matplotlib.figure.Figure(
        figsize=(2.2 * columns, 7.5 * len(groups)), layout="constrained"
    )
    blocks = figure.subfigures(len(groups), 1, squeeze=False)[:, 0]
    for block, (title, shown) in zip(blocks, groups.items(), strict=True):
        maps = [np.abs(picture - decoded).mean(axis=-1) for _, picture, decoded in shown]
        most = max(np.percentile(errors, 99.5) for errors in maps)
        block.suptitle(f"{title}: photograph; error, white at {most:.0f}; part; reconstruction")
        grid = block.subplots(4, columns, squeeze=False)
        for axes, (caption, picture, decoded), errors in zip(grid.T, shown, maps, strict=False):
            top, left, side = _worst_part(errors)
            part = slice(top, top + side), slice(left, left + side)
            decoded = np.clip(np.round(decoded[part]), 0, 255).astype(np.uint8)
            # Reduced, a picture keeps its coordinates, so that the frame fits.
            whole = {"extent": (0, errors.shape[1], errors.shape[0], 0)}
            axes[0].imshow(reduced(picture), **whole)
            axes[0].set_title(caption, fontsize=8)
            axes[1].imshow(reduced(errors), cmap="gray", vmin=0, vmax=most, **whole)
            for above in axes[:2]:
                frame = Rectangle((left, top), side, side, fill=False, edgecolor="yellow")
                above.add_patch(frame)
            axes[2].imshow(picture[part], interpolation="nearest")
            axes[3].imshow(decoded, interpolation="nearest")
        for axes in grid.flat:
            axes.axis("off")
    figure.savefig(path, dpi=_DPI * 0.7, pil_kwargs=_JPEG)


def _worst_part(errors):
    """Top, left and side of the square with the highest mean."""
    side = min(_PART, *errors.shape)
    sums = np.pad(errors.astype(np.float64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    totals = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(np.argmax(totals), totals.shape)
    return top, left, side
