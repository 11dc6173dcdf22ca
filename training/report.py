"""Shows the results of training runs: a table, the curves, a photograph and its reconstructions.

    python -m training.report --weights=vgg19.h5 --runs=runs --output_dir=docs

reads every finished run in --runs, prints a table of their errors, and writes

    curves.png             the error on validation pictures after each epoch
    reconstructions.png    a photograph and a part of it, and what each decoder makes of it
"""

import math
import os
from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
from absl import flags
from PIL import Image

from export import cli
from training import pictures
from training.console import say
from training.evaluate import PUBLISHED_ERRORS
from training.run_folder import RunFolder
from unpooling import padding, vgg19, weights
from unpooling.errors import UserError

__all__ = ["draw_curves", "draw_reconstructions", "report"]

FLAGS = flags.FLAGS

_PART = 96  # pixels: the side of the part that is shown enlarged
_CORNER = (265, 320)  # (y, x) of that part; of scikit-image's coffee, a spoon and wood


def draw_reconstructions(path: str, photograph: np.ndarray, decoded: Sequence[np.ndarray]) -> None:
    """Draws a photograph and its reconstructions side by side, and below a part of each, enlarged.

    Args:
      path: the PNG to write.
      photograph: (H, W, 3), uint8, RGB.
      decoded: each (H, W, 3), float32, RGB, values in [0, 255] or a little outside.

    Raises:
      UserError: if the photograph has a side below 96.
    """
    height, width = photograph.shape[:2]
    if min(height, width) < _PART:
        raise UserError(
            f"the photograph must have sides of at least {_PART} pixels. "
            f"Received: {width}x{height}."
        )
    y, x = min(_CORNER[0], height - _PART), min(_CORNER[1], width - _PART)
    columns = []
    for pixels in (photograph, *decoded):
        shown = np.uint8(np.clip(np.round(pixels), 0, 255))
        part = Image.fromarray(shown[y : y + _PART, x : x + _PART])
        enlarged = part.resize((width, width), Image.Resampling.NEAREST)
        columns.append(np.concatenate([shown, enlarged]))
    Image.fromarray(np.concatenate(columns, axis=1)).save(path)


def draw_curves(path: str, errors: Mapping[str, Sequence[float]], steps: Mapping[str, int]) -> None:
    """Draws how the errors on validation pictures fell, with the published errors dashed.

    Args:
      path: the PNG to write.
      errors: {layer: the mean absolute error after each epoch, values in [0, 255]}.
      steps: {layer: the number of steps in an epoch}.
    """
    figure = matplotlib.figure.Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for layer, values in errors.items():
        at = steps[layer] * np.arange(1, len(values) + 1)
        (line,) = axes.plot(at, values, marker="o", markersize=3, label=layer)
        axes.axhline(PUBLISHED_ERRORS[layer], color=line.get_color(), linestyle="--", linewidth=1)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("steps")
    axes.set_ylabel("mean absolute error, 0 to 255, on validation pictures")
    axes.set_title("Dashed: the published decoders, on other pictures", fontsize=10)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=110)


def report(
    runs: str, encoder: str, output_dir: str, *, seed: int = 0, photo: str | None = None
) -> list[str]:
    """Draws the pictures of all finished runs, and returns the rows of the table in Markdown.

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
    photograph = _photograph(photo)
    rows, errors, steps, decoded = [], {}, {}, []
    for layer in vgg19.LAYERS:
        folder = RunFolder(runs, layer)
        if folder.is_finished():
            decoder = weights.load_decoder(folder.decoder, layer)
            pair = weights.load(encoder, layer, seed), decoder
            weights.check_pair(*pair, folder.decoder)
            rows.append(_row(layer, decoder.training, folder.decoder))
            errors[layer] = [row["val_l1"] for row in folder.metrics() if "val_l1" in row]
            if not errors[layer]:
                raise UserError(f"{folder.history} has no `val_l1`: train with an --l1_weight.")
            steps[layer] = decoder.training.steps // len(errors[layer])
            decoded.append(_decode(layer, *pair, photograph))
    if not rows:
        raise UserError(f"{runs} holds no trained decoder: make one with train_decoder.py.")
    os.makedirs(output_dir, exist_ok=True)
    draw_curves(paths[0], errors, steps)
    draw_reconstructions(paths[1], photograph, decoded)
    return [
        "| decoder | published | here | clipped | PSNR, dB | SSIM | steps | pixels a step |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]


def main() -> None:
    for row in report(
        FLAGS.runs, FLAGS.weights, FLAGS.output_dir, seed=FLAGS.seed, photo=FLAGS.photo
    ):
        say(row)


def _photograph(path):
    """(H, W, 3), uint8, with sides that every decoder gives back whole."""
    if path is None:
        from skimage import data

        picture = data.coffee()
    else:
        picture = pictures.read_picture(path)
    return padding.cut(picture, vgg19.downsampling(vgg19.LAYERS[-1]))


def _row(layer, record, path):
    """A row of the table."""
    if record is None or not record.evaluation or not {"batch_size", "crop"} <= set(record.flags):
        raise UserError(f"{path} does not say how it was trained and how good it is: train again.")
    means = record.evaluation
    return (
        f"| `{layer}` | {PUBLISHED_ERRORS[layer]:.3f} | **{means['error']:.3f}** "
        f"| {means['clipped_error']:.3f} | {means.get('psnr', math.inf):.2f} "
        f"| {means.get('ssim', math.nan):.4f} | {record.steps:,} "
        f"| {record.flags['batch_size']} x {record.flags['crop']}² |"
    )


def _decode(layer, encoder, decoder, photograph):
    from unpooling.decoder import Decoder
    from unpooling.encoder import Encoder

    images = photograph[np.newaxis].astype(np.float32)
    positions = Encoder(layer, encoder.layers).compact(images)
    return Decoder(layer, decoder.layers)(positions)[0].numpy()


def _define_flags():
    cli.define_weights_flags()
    flags.adopt_module_key_flags(cli)  # So that --help lists them.
    flags.DEFINE_string("runs", "runs", "The folder of the training runs.")
    flags.DEFINE_string("photo", None, "The photograph to show. Default: scikit-image's coffee.")
    flags.DEFINE_string("output_dir", "docs", "The folder for the pictures.")


if __name__ == "__main__":
    _define_flags()
    cli.run("report", main)
