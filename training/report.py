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

from export import command, vgg19
from training import evaluate

__all__ = ["define_flags"]

FLAGS = flags.FLAGS
_NAME = "report"

# Of scikit-image's coffee: a spoon, the rim of a saucer and wood.
_DETAIL = (265, 320)


def define_flags() -> None:
    """Defines the command's flags: not on import, since other commands have some of the names."""
    flags.DEFINE_string(
        "weights",
        "imagenet",
        "The encoders': `imagenet`, `random`, or the path of an .h5 file in the layout of Keras' "
        "published VGG19 files.",
    )
    flags.DEFINE_integer(
        "seed", 0, "The seed for --weights=random.", lower_bound=0, upper_bound=2**63 - 1
    )
    flags.DEFINE_string("runs", "runs", "The folder of the training runs.")
    flags.DEFINE_string(
        "photo", None, "The photograph to show. Default: one that scikit-image brings along."
    )
    flags.DEFINE_string("output_dir", "docs", "The folder for the pictures.")


def main() -> int:
    return command.run_tensorflow(_NAME, _report)


def _report():
    from export import weights
    from training import draw

    found = {}
    for layer in vgg19.LAYERS:
        path = os.path.join(FLAGS.runs, vgg19.artifact_name(layer, "decoder"), "decoder.h5")
        if os.path.exists(path):
            decoder = weights.load_decoder(path, layer)
            encoder = weights.load(FLAGS.weights, layer, FLAGS.seed)
            weights.check_pair(encoder, decoder, path)
            if not (decoder.training or {}).get("evaluation"):
                raise ValueError(f"{path} does not say how good it is: train it anew.")
            found[layer] = encoder, decoder, os.path.dirname(path)
    if not found:
        raise ValueError(f"{FLAGS.runs} holds no trained decoder: make one with train_decoder.py.")
    photograph = _photograph()
    os.makedirs(FLAGS.output_dir, exist_ok=True)
    curves, pictures = (
        os.path.join(FLAGS.output_dir, name) for name in ("curves.png", "reconstructions.png")
    )

    print("| decoder | published | here | clipped | PSNR, dB | SSIM | steps | pixels a step |")
    print("|---|---|---|---|---|---|---|---|")
    for layer, (_, decoder, _) in found.items():
        training, means = decoder.training, decoder.training["evaluation"]
        flags_ = training["flags"]
        print(
            f"| `{layer}` | {evaluate.PUBLISHED_ERRORS[layer]:.3f} | **{means['error']:.3f}** "
            f"| {means['clipped_error']:.3f} | {means.get('psnr', math.inf):.2f} "
            f"| {means.get('ssim', math.nan):.4f} | {training['steps']:,} "
            f"| {flags_['batch_size']} x {flags_['crop']}² |"
        )
    draw.curves(
        curves,
        {layer: _errors(folder) for layer, (_, _, folder) in found.items()},
        {layer: d.training["flags"]["steps_per_epoch"] for layer, (_, d, _) in found.items()},
        evaluate.PUBLISHED_ERRORS,
    )
    decoded = {
        layer: _decode(layer, encoder, decoder, photograph)
        for layer, (encoder, decoder, _) in found.items()
    }
    draw.reconstructions(pictures, photograph, decoded, _DETAIL)
    print(f"pictures: {curves}, {pictures}")


def _photograph():
    """(H, W, 3), uint8, with sides that every decoder gives back whole."""
    from training import data

    if FLAGS.photo is None:
        from skimage import data as photographs

        picture = photographs.coffee()
    else:
        picture = data.decode_picture(FLAGS.photo).numpy()
    multiple = vgg19.downsampling(vgg19.LAYERS[-1])
    height, width = (side // multiple * multiple for side in picture.shape[:2])
    return picture[:height, :width]


def _errors(folder):
    with open(os.path.join(folder, "history.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or "val_l1" not in rows[0]:
        raise ValueError(f"{folder}/history.csv has no `val_l1`: train with --l1_weight above 0.")
    return [float(row["val_l1"]) for row in rows]


def _decode(layer, encoder, decoder, photograph):
    import numpy as np
    import tensorflow as tf

    from export.decoder import Decoder
    from export.encoder import Encoder

    images = tf.constant(photograph[np.newaxis], tf.float32)
    positions = Encoder(layer, encoder.layers).compact(images)
    return Decoder(layer, decoder.layers)(positions)[0].numpy()


if __name__ == "__main__":
    define_flags()
    command.run(_NAME, main)
