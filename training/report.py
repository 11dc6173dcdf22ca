"""Shows what training runs came to: a table, the curves, a photograph and its reconstructions.

    python -m training.report --weights=vgg19.h5 --runs=runs --output_dir=docs

reads every finished run in --runs, prints a table of their errors, and writes

    curves.png             the error of validation pictures after each epoch
    reconstructions.png    a photograph, whole and a part enlarged, as each decoder gives it back
"""

import csv
import math
import os

from absl import flags

from export import cli
from training import evaluate
from unpooling import vgg19

__all__ = ["define_flags"]

FLAGS = flags.FLAGS
_NAME = "report"

# Of scikit-image's coffee: a spoon, the rim of a saucer and wood.
_DETAIL = (265, 320)


def define_flags() -> None:
    """Defines the command's flags: not on import, since other commands have some of the names."""
    cli.define_weights_flags()
    flags.adopt_module_key_flags(cli)  # So that --help tells them.
    flags.DEFINE_string("runs", "runs", "The folder of the training runs.")
    flags.DEFINE_string(
        "photo", None, "The photograph to show. Default: one that scikit-image brings along."
    )
    flags.DEFINE_string("output_dir", "docs", "The folder for the pictures.")


def main() -> int:
    return cli.run_tensorflow(_NAME, _report)


def _report():
    from training import draw, run_folder
    from unpooling import weights

    found = {}
    for layer in vgg19.LAYERS:
        folder = run_folder.Run(FLAGS.runs, layer)
        if folder.is_finished():
            decoder = weights.load_decoder(folder.decoder, layer)
            encoder = weights.load(FLAGS.weights, layer, FLAGS.seed)
            weights.check_pair(encoder, decoder, folder.decoder)
            found[layer] = encoder, decoder, _errors(folder.history), _row(layer, decoder, folder)
    if not found:
        raise ValueError(f"{FLAGS.runs} holds no trained decoder: make one with train_decoder.py.")
    photograph = _photograph()
    os.makedirs(FLAGS.output_dir, exist_ok=True)
    curves, pictures = (
        os.path.join(FLAGS.output_dir, name) for name in ("curves.png", "reconstructions.png")
    )

    print("| decoder | published | here | clipped | PSNR, dB | SSIM | steps | pixels a step |")
    print("|---|---|---|---|---|---|---|---|")
    for _, _, _, row in found.values():
        print(row)
    draw.curves(
        curves,
        {layer: errors for layer, (_, _, errors, _) in found.items()},
        {
            layer: decoder.training["steps"] // len(errors)
            for layer, (_, decoder, errors, _) in found.items()
        },
        evaluate.PUBLISHED_ERRORS,
    )
    decoded = {
        layer: _decode(layer, encoder, decoder, photograph)
        for layer, (encoder, decoder, _, _) in found.items()
    }
    draw.reconstructions(pictures, photograph, decoded, _DETAIL)
    print(f"pictures: {curves}, {pictures}")


def _photograph():
    """(H, W, 3), uint8, with sides that every decoder gives back whole."""
    from training import data
    from unpooling import padding

    if FLAGS.photo is None:
        from skimage import data as photographs

        picture = photographs.coffee()
    else:
        picture = data.decode_picture(FLAGS.photo).numpy()
    return padding.cut(picture, vgg19.downsampling(vgg19.LAYERS[-1]))


def _row(layer, decoder, folder):
    """A row of the table."""
    try:
        training, means = decoder.training, decoder.training["evaluation"]
        used = training["flags"]
        return (
            f"| `{layer}` | {evaluate.PUBLISHED_ERRORS[layer]:.3f} | **{means['error']:.3f}** "
            f"| {means['clipped_error']:.3f} | {means.get('psnr', math.inf):.2f} "
            f"| {means.get('ssim', math.nan):.4f} | {training['steps']:,} "
            f"| {used['batch_size']} x {used['crop']}² |"
        )
    except (TypeError, LookupError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{folder.decoder} does not say how it was trained and how good it is: train it anew."
        ) from error


def _errors(path):
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or "val_l1" not in rows[0]:
        raise ValueError(f"{path} has no `val_l1`: train with --l1_weight above 0.")
    return [float(row["val_l1"]) for row in rows]


def _decode(layer, encoder, decoder, photograph):
    import numpy as np
    import tensorflow as tf

    from unpooling.decoder import Decoder
    from unpooling.encoder import Encoder

    images = tf.constant(photograph[np.newaxis], tf.float32)
    positions = Encoder(layer, encoder.layers).compact(images)
    return Decoder(layer, decoder.layers)(positions)[0].numpy()


if __name__ == "__main__":
    define_flags()
    cli.run(_NAME, main)
