"""Draws the pictures of docs/style.md, of photographs that scikit-image brings along.

python -m benchmarks.style_pictures --weights=vgg19.h5
"""

import functools
import os

import matplotlib.figure
import numpy as np
from absl import flags
from PIL import Image, ImageFilter
from skimage import data

from export import cli
from training.panels import draw_panels
from unpooling.style import METHODS, SMOOTHINGS, transfer

__all__ = ["draw"]

FLAGS = flags.FLAGS

# Photograph and style.
_EXAMPLES = {
    "night": ("garage", "rocket"),
    "dusk": ("rocket", "coffee"),
    "failure": ("astronaut", "rocket"),
}
_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_NEAR = 40.0  # pixels of disparity between the two pictures of the garage: what is nearer


def draw(pairs: tuple, folder: str) -> None:
    """Draws each picture into a folder, as style-NAME.jpg.

    Args:
      pairs: see `load_pairs`.
      folder: where they belong.
    """
    garage, _, disparity = data.stereo_motorcycle()
    photographs = {"garage": garage}
    for name in ("rocket", "coffee", "astronaut", "retina"):
        photographs[name] = getattr(data, name)()

    @functools.cache
    def made(content, style, depth=None, **options):
        return transfer(photographs[content], photographs[style], pairs[:depth], **options)

    def save(draw, name, panels):
        path = os.path.join(folder, f"style-{name}.jpg")
        draw(path, panels)
        print(path, flush=True)

    for name, (content, style) in _EXAMPLES.items():
        panels = [photographs[content], photographs[style], made(content, style)]
        save(_draw_row, name, dict(zip(("photograph", "style", "result"), panels, strict=True)))
    strengths = {f"strength {s:g}": made("garage", "rocket", strength=s) for s in _STRENGTHS}
    save(_draw_row, "strength", strengths)
    depths = {f"depth {d}": made("garage", "coffee", d) for d in range(1, len(pairs) + 1)}
    save(draw_panels, "depth", depths)
    methods = {f"method {m}": made("garage", "coffee", method=m) for m in METHODS}
    save(draw_panels, "method", methods)
    smoothings = {f"smoothing {s}": made("garage", "coffee", smoothing=s) for s in SMOOTHINGS}
    save(draw_panels, "smoothing", smoothings)
    exact, fast = (made("retina", "rocket", fast=fast) for fast in (False, True))
    save(draw_panels, "fast", {"photograph": photographs["retina"], "exact": exact, "fast": fast})

    mask = Image.fromarray(np.where(disparity > _NEAR, 0, 255).astype(np.uint8))
    mask = np.asarray(mask.filter(ImageFilter.MedianFilter(9)))
    masked = transfer(
        garage, photographs["rocket"], pairs, content_mask=np.minimum(mask, 1), remark=print
    )
    panels = {"photograph": garage, "mask": mask, "result": masked}
    save(_draw_row, "mask", panels)


def _draw_row(path, panels):
    """Draws pictures of any sizes side by side, equally high."""
    widths = [picture.shape[1] / picture.shape[0] for picture in panels.values()]
    figure = matplotlib.figure.Figure(figsize=(12, 12 / sum(widths) + 0.3), layout="constrained")
    axes = figure.subplots(1, len(panels), gridspec_kw={"width_ratios": widths})
    for axis, (title, picture) in zip(axes, panels.items(), strict=True):
        axis.imshow(picture, cmap="gray")
        axis.set_title(title, fontsize=11)
        axis.axis("off")
    figure.savefig(path, dpi=100)


def main() -> None:
    draw(cli.pairs(), FLAGS.output_dir)


if __name__ == "__main__":
    cli.define_pairs_flags()
    flags.DEFINE_string("output_dir", "docs", "The folder for the pictures.")
    cli.run("benchmarks.style_pictures", main)
