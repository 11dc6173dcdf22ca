"""Measures how well a decoder reconstructs photographs.

    python -m training.evaluate --layer=block3_conv2 --weights=imagenet \\
        --decoder=runs/vgg19-block3-conv2-decoder/decoder.h5 --photos=FOLDER

encodes and decodes each photograph as a whole, cut to sides that every pooling halves, and prints
the means over the photographs. With --output=evaluation.csv it also writes each photograph's
figures.
"""

import csv
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from absl import flags

from export import cli
from training import config
from training.console import say
from unpooling import padding, vgg19, weights
from unpooling.errors import UserError, one_line

__all__ = ["COLUMNS", "PUBLISHED_ERRORS", "evaluate", "evaluate_folder", "measure", "summarise"]

# The mean absolute error of the published decoders, values in [0, 255], on COCO's test pictures:
# https://github.com/tensorflow/tfhub.dev, assets/docs/emilutz.
PUBLISHED_ERRORS = {
    "block1_conv2": 2.494,
    "block2_conv2": 3.859,
    "block3_conv2": 5.124,
    "block4_conv2": 6.104,
    "block5_conv2": 6.626,
}

COLUMNS = ("picture", "width", "height", "error", "clipped_error", "psnr", "ssim")

_HELD_OUT = "held_out"  # validation and test: what no weight was learned from
_LEAST_SSIM = 11  # pixels, the side of the filter of `tf.image.ssim`

FLAGS = flags.FLAGS


def evaluate(
    layer: str, encoder: weights.Weights, decoder: weights.Weights, paths: Sequence[str]
) -> tuple[list[dict[str, object]], dict[str, float]]:
    """Returns the figures of each picture, see `measure`, and their means, see `summarise`."""
    rows = list(measure(layer, encoder, decoder, paths))
    return rows, summarise(rows)


def measure(
    layer: str, encoder: weights.Weights, decoder: weights.Weights, paths: Sequence[str]
) -> Iterator[dict[str, object]]:
    """Yields the figures of each picture, as `COLUMNS` names them; names those that are too small.

    `picture` is the path; `width` and `height` are those of the part that was measured, in pixels;
    `error` is the mean absolute error, values in [0, 255], of what the decoder returns, and
    `clipped_error` that of the same clipped to [0, 255]. PSNR, in decibels, and SSIM (Z. Wang et
    al., "Image quality assessment: from error visibility to structural similarity", 2004) are
    TensorFlow's, of what is clipped; SSIM is NaN for pictures with a side below 11 pixels.

    Args:
      layer: one of `LAYERS`.
      encoder, decoder: the weights of a pair that ends there.
      paths: the pictures; those with a side below 2^(K-1) pixels are left out.

    Raises:
      UserError: if a picture cannot be read.
    """
    import tensorflow as tf

    from training import model, pictures
    from unpooling.decoder import Decoder
    from unpooling.encoder import Encoder

    encode = Encoder(layer, encoder.layers, engine=model.pooling_engine()).compact
    decode = Decoder(layer, decoder.layers)

    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)])
    def figures(picture):
        images = tf.cast(picture[tf.newaxis], tf.float32)
        decoded = decode(encode(images))
        clipped = tf.clip_by_value(decoded, 0.0, 255.0)
        ssim = tf.cond(
            tf.reduce_min(tf.shape(picture)[:2]) >= _LEAST_SSIM,
            lambda: tf.image.ssim(images, clipped, max_val=255.0)[0],
            lambda: tf.constant(float("nan")),
        )
        return {
            "error": tf.reduce_mean(tf.abs(images - decoded)),
            "clipped_error": tf.reduce_mean(tf.abs(images - clipped)),
            "psnr": tf.image.psnr(images, clipped, max_val=255.0)[0],
            "ssim": ssim,
        }

    least = vgg19.downsampling(layer)
    for path in paths:
        whole = pictures.read_picture(path)
        picture = padding.cut(whole, least)
        height, width = picture.shape[:2]
        if not picture.size:
            say(
                f"left out: {one_line(path)} with {whole.shape[1]}x{whole.shape[0]} pixels; "
                f"`{layer}` needs sides of at least {least}"
            )
            continue
        numbers = {name: float(value) for name, value in figures(picture).items()}
        yield {"picture": path, "width": width, "height": height, **numbers}


def summarise(rows: Sequence[Mapping]) -> dict[str, float]:
    """Returns the means over the pictures, each counting once: error, clipped_error, psnr, ssim.

    Pictures whose SSIM is NaN do not count for SSIM.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Of the mean of nothing, which is NaN.
        return {name: float(np.nanmean([row[name] for row in rows])) for name in COLUMNS[3:]}


def evaluate_folder(
    layer: str,
    encoder: str,
    decoder: str,
    photos: str,
    *,
    seed: int = 0,
    split: str = _HELD_OUT,
    output: str | None = None,
) -> tuple[list[dict[str, object]], dict[str, float]]:
    """Measures a decoder on the photographs of a folder, and prints each photograph's figures.

    Args:
      layer: one of `LAYERS`.
      encoder: the encoder's weights, as for `weights.load`, with `seed`.
      decoder: the path of a decoder.h5.
      photos: the folder.
      split: "train", "validation", "test", "held_out" for the last two, or "all".
      output: the path of a CSV file for the figures, in an existing folder.

    Returns:
      As `evaluate`, the pictures as paths within the folder.

    Raises:
      UserError: if one of these cannot be used, or there is no photograph to measure.
    """
    from training import data

    if output is not None:
        folder = os.path.dirname(output) or "."
        if not output.endswith(".csv") or os.path.isdir(output) or not os.path.isdir(folder):
            raise UserError(f"--output must be a .csv file in an existing folder, not {output!r}.")
    encoder_weights = weights.load(encoder, layer, seed)
    decoder_weights = weights.load_decoder(decoder, layer)
    weights.check_pair(encoder_weights, decoder_weights, decoder)
    good = data.readable_pictures(photos)
    splits = {**data.split_pictures(good, photos), "all": good}
    splits[_HELD_OUT] = sorted(splits["validation"] + splits["test"])
    if not splits[split]:
        raise UserError(
            f"--split={split} holds none of the {len(good)} pictures of {photos}: pass "
            "--split=all, or a folder with more."
        )
    rows = []
    for row in measure(layer, encoder_weights, decoder_weights, splits[split]):
        rows.append({**row, "picture": os.path.relpath(row["picture"], photos)})
        say(
            f"{one_line(rows[-1]['picture'])}: error {row['error']:.3f}, "
            f"PSNR {row['psnr']:.2f} dB, SSIM {row['ssim']:.4f}"
        )
    if not rows:
        raise UserError(f"none of the pictures of {photos} is large enough.")
    if output is not None:
        _write(rows, output)
    return rows, summarise(rows)


def main() -> None:
    rows, means = evaluate_folder(
        FLAGS.layer,
        FLAGS.weights,
        FLAGS.decoder,
        FLAGS.photos,
        seed=FLAGS.seed,
        split=FLAGS.split,
        output=FLAGS.output,
    )
    published = f"published, on COCO's test pictures: {PUBLISHED_ERRORS[FLAGS.layer]:.3f}"
    say(f"photographs: {len(rows)} ({FLAGS.split})")
    say(f"mean absolute error, 0 to 255: {means['error']:.3f} ({published})")
    say(f"the same, clipped to that range: {means['clipped_error']:.3f}")
    say(f"PSNR: {means['psnr']:.2f} dB")
    say(f"SSIM: {means['ssim']:.4f}")


def _write(rows, path):
    # A file name on Linux need not be text.
    with open(
        f"{path}.partial", "w", encoding="utf-8", errors="surrogateescape", newline=""
    ) as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(f"{path}.partial", path)


def _define_flags():
    flags.DEFINE_enum("layer", "block5_conv2", vgg19.LAYERS, "The layer at which the encoder ends.")
    cli.define_weights_flags()
    flags.adopt_module_key_flags(cli)  # So that --help lists them.
    flags.DEFINE_string("decoder", None, "The decoder.h5 to measure.", required=True)
    flags.DEFINE_string("photos", None, "The folder with the photographs.", required=True)
    flags.DEFINE_enum(
        "split",
        _HELD_OUT,
        ("all", *config.SPLITS, _HELD_OUT),
        "Which of them, by the hash of the name; held_out is validation and test.",
    )
    flags.DEFINE_string("output", None, "The CSV file for each photograph's figures.")


if __name__ == "__main__":
    _define_flags()
    cli.run("evaluate", main)
