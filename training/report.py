"""Shows the results of training runs: a table, the curves, a photograph and its reconstructions.

    python -m training.report --weights=vgg19.h5 --runs=runs --output_dir=docs

reads every finished run in --runs, prints a table of their errors, and writes

    curves.png             the error on validation pictures after each epoch
    reconstructions.png    a photograph and a part of it, and what each decoder makes of it
"""

import math
import os

import matplotlib.figure
import numpy as np
from absl import flags
from skimage import data

from export import cli
from training.console import say
from training.evaluate import PUBLISHED_ERRORS
from training.panels import draw_panels, reduced
from training.pictures import read_picture
from training.run_folder import RunFolder
from unpooling import tiling, vgg19, weights
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder
from unpooling.errors import UserError

__all__ = ["report"]

FLAGS = flags.FLAGS

_TABLE = """\
| decoder | published | here | clipped | PSNR, dB | SSIM | steps | pixels a step |
|---|---|---|---|---|---|---|---|"""


def report(
    runs: str, encoder: str, output_dir: str, *, seed: int = 0, photo: str | None = None
) -> str:
    """Draws the pictures of all finished runs, and returns the table in Markdown.

    Args:
      runs: the folder of the runs.
      encoder: the encoder's weights, as for `weights.load`, with `seed`.
      output_dir: the folder for the pictures.
      photo: the path of the photograph to show; None for scikit-image's coffee.

    Raises:
      UserError: if no run is finished, or one of them lacks what is to be shown.
    """
    paths = [os.path.join(output_dir, name) for name in ("curves.png", "reconstructions.png")]
    if photo is not None and os.path.realpath(photo) in map(os.path.realpath, paths):
        raise UserError(f"--photo={photo} would be written over: choose another --output_dir.")
    picture = data.coffee() if photo is None else read_picture(photo)
    figure = matplotlib.figure.Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    rows, panels = [_TABLE], {"photograph": reduced(picture)}
    for layer in vgg19.LAYERS:
        folder = RunFolder(runs, layer)
        if not folder.is_finished():
            continue
        loaded = weights.load(encoder, layer, seed)
        trained = weights.load_decoder(folder.decoder, layer)
        weights.check_pair(loaded, trained, folder.decoder)
        errors = [row["val_l1"] for row in folder.metrics() if "val_l1" in row]
        record = trained.training
        if not (errors and record and record.evaluation and "crop" in record.flags):
            raise UserError(
                f"{folder.directory} does not say how its decoder was trained and how good it is: "
                "train it again, with an --l1_weight."
            )
        means, (batch, crop) = record.evaluation, (record.flags[n] for n in ("batch_size", "crop"))
        rows.append(
            f"| `{layer}` | {PUBLISHED_ERRORS[layer]:.3f} | **{means['error']:.3f}** "
            f"| {means['clipped_error']:.3f} | {means.get('psnr', math.inf):.2f} "
            f"| {means.get('ssim', math.nan):.4f} | {record.steps:,} | {batch} x {crop}² |"
        )
        steps = record.steps // len(errors) * np.arange(1, len(errors) + 1)
        (line,) = axes.plot(steps, errors, marker="o", markersize=3, label=layer)
        axes.axhline(PUBLISHED_ERRORS[layer], color=line.get_color(), linestyle="--", linewidth=1)
        decoded = np.empty_like(picture)
        pair = Encoder(layer, loaded.layers), Decoder(layer, trained.layers)
        tiling.reconstruct(*pair, picture[np.newaxis], out=decoded[np.newaxis])
        panels[layer] = reduced(decoded)
    if len(rows) == 1:
        raise UserError(f"{runs} holds no trained decoder: make one with train_decoder.py.")
    draw_panels(paths[1], panels)
    axes.set(xlabel="steps", ylabel="mean absolute error, 0 to 255, on validation pictures")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.set_title("Dashed: the published decoders, on other pictures", fontsize=10)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(paths[0], dpi=110)
    return "\n".join(rows)


def main() -> None:
    say(report(FLAGS.runs, FLAGS.weights, FLAGS.output_dir, seed=FLAGS.seed, photo=FLAGS.photo))


def _define_flags():
    cli.define_weights_flags()
    flags.adopt_module_key_flags(cli)  # So that --help lists them.
    flags.DEFINE_string("runs", "runs", "The folder of the training runs.")
    flags.DEFINE_string("photo", None, "The photograph to show. Default: scikit-image's coffee.")
    flags.DEFINE_string("output_dir", "docs", "The folder for the pictures.")


if __name__ == "__main__":
    _define_flags()
    cli.run("report", main)
