"""Measures how well a decoder gives photographs back.

    python -m training.evaluate --layer=block3_conv2 --weights=imagenet \\
        --decoder=runs/vgg19-block3-conv2-decoder/decoder.h5 --photos=FOLDER

encodes and decodes each photograph as a whole, cut to sides that every pooling halves, and prints
the means over the photographs; with --output=evaluation.csv also each photograph's figures.
"""

import csv
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence

from absl import flags

from export import cli
from training import config
from unpooling import vgg19

__all__ = ["COLUMNS", "PUBLISHED_ERRORS", "define_flags", "measure", "summarise"]

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

_HELD_OUT = "held_out"  # What training saw nothing of, or only as numbers: validation and test.
_NAME = "evaluate"
_LEAST_SSIM = 11  # pixels, the side of the filter of `tf.image.ssim`

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags: not on import, since other commands have some of the names."""
    flags.DEFINE_enum("layer", "block5_conv2", vgg19.LAYERS, "The layer at which encoders end.")
    cli.define_weights_flags()
    flags.adopt_module_key_flags(cli)  # So that --help tells them.
    flags.DEFINE_string("decoder", None, "The decoder.h5 to measure.", required=True)
    flags.DEFINE_string("photos", None, "The folder with the photographs.", required=True)
    flags.DEFINE_enum(
        "split",
        _HELD_OUT,
        ("all", *config.SPLITS, _HELD_OUT),
        "Which of them, by the hash of the name; held_out is validation and test.",
    )
    flags.DEFINE_string("output", None, "The CSV file for each photograph's figures.")


def measure(
    layer: str,
    encoder_layers: Mapping,
    decoder_layers: Mapping,
    paths: Sequence[str],
) -> Iterator[dict[str, object]]:
    """Yields the figures of each picture, as `COLUMNS` names them; tells which are too small.

    The picture is the path; width and height are those of the part that was measured, in pixels;
    the error is the mean absolute one, values in [0, 255], of what the decoder returns, and once
    more of that clipped to [0, 255]. PSNR, in decibels, and SSIM (Z. Wang et al., "Image quality
    assessment: from error visibility to structural similarity", 2004) are TensorFlow's, of what is
    clipped; SSIM is NaN for pictures with a side of less than 11 pixels.

    Args:
      layer: one of `vgg19.LAYERS`.
      encoder_layers: for each convolution of the encoder its (kernel, bias), float32.
      decoder_layers: likewise for each convolution of `vgg19.mirror(layer)`.
      paths: the pictures; those with a side of less than 2^(K-1) pixels are left out.

    Raises:
      tf.errors.OpError: if a picture cannot be read.
    """
    import tensorflow as tf

    from training import data, distribution
    from unpooling import padding, text
    from unpooling.decoder import Decoder
    from unpooling.encoder import Encoder

    encoder = Encoder(layer, encoder_layers, engine=distribution.pooling_engine())
    decoder = Decoder(layer, decoder_layers)

    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)])
    def figures(picture):
        images = tf.cast(picture[tf.newaxis], tf.float32)
        decoded = decoder(encoder.compact(images))
        clipped = tf.clip_by_value(decoded, 0.0, 255.0)
        height, width = tf.shape(picture)[0], tf.shape(picture)[1]
        ssim = tf.cond(
            tf.minimum(height, width) >= _LEAST_SSIM,
            lambda: tf.image.ssim(images, clipped, max_val=255.0)[0],
            lambda: tf.constant(float("nan")),
        )
        return {
            "error": tf.reduce_mean(tf.abs(images - decoded)),
            "clipped_error": tf.reduce_mean(tf.abs(images - clipped)),
            "psnr": tf.image.psnr(images, clipped, max_val=255.0)[0],
            "ssim": ssim,
        }

    multiple = vgg19.downsampling(layer)
    for path in paths:
        whole = data.decode_picture(path)
        picture = padding.cut(whole, multiple)
        height, width = picture.shape[:2]
        if not height or not width:
            print(
                f"left out: {text.one_line(path)} with {whole.shape[1]}x{whole.shape[0]} pixels; "
                f"`{layer}` needs sides of at least {multiple}",
                flush=True,
            )
            continue
        found = figures(picture)
        numbers = {name: float(found[name]) for name in COLUMNS[3:]}
        yield {"picture": path, "width": width, "height": height, **numbers}


def summarise(rows: Sequence[Mapping]) -> dict[str, float]:
    """Returns the means over the pictures, each counting once: error, clipped_error, psnr, ssim.

    Pictures whose SSIM is NaN do not count for SSIM.
    """
    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Of the mean of nothing, which is NaN.
        return {name: float(np.nanmean([row[name] for row in rows])) for name in COLUMNS[3:]}


def main() -> int:
    return cli.run_tensorflow(_NAME, _evaluate)


def _evaluate():
    from unpooling import text, weights

    encoder = weights.load(FLAGS.weights, FLAGS.layer, FLAGS.seed)
    decoder = weights.load_decoder(FLAGS.decoder, FLAGS.layer)
    weights.check_pair(encoder, decoder, FLAGS.decoder)
    _check_output(FLAGS.output)
    paths = _paths()
    rows = []
    for row in measure(FLAGS.layer, encoder.layers, decoder.layers, paths):
        rows.append({**row, "picture": os.path.relpath(row["picture"], FLAGS.photos)})
        print(
            f"{text.one_line(rows[-1]['picture'])}: error {row['error']:.3f}, "
            f"PSNR {row['psnr']:.2f} dB, SSIM {row['ssim']:.4f}",
            flush=True,
        )
    if not rows:
        raise ValueError(f"none of the pictures of {FLAGS.photos} is large enough.")
    means = summarise(rows)
    if FLAGS.output:
        _write(rows, FLAGS.output)
        print(f"each photograph: {FLAGS.output}")
    print(f"photographs: {len(rows)} ({FLAGS.split})")
    published = f"published, on COCO's test pictures: {PUBLISHED_ERRORS[FLAGS.layer]:.3f}"
    print(f"mean absolute error, 0 to 255: {means['error']:.3f} ({published})")
    print(f"the same, clipped to that range: {means['clipped_error']:.3f}")
    print(f"PSNR: {means['psnr']:.2f} dB")
    print(f"SSIM: {means['ssim']:.4f}")


def _paths():
    """The readable pictures of the split; the others are counted and named."""
    from training import data

    good = data.readable_pictures(FLAGS.photos)
    if FLAGS.split == "all":
        return good
    splits = data.split_pictures(good)
    names = ("validation", "test") if FLAGS.split == _HELD_OUT else (FLAGS.split,)
    paths = [path for name in names for path in splits[name]]
    if not paths:
        raise ValueError(
            f"--split={FLAGS.split} holds none of the {len(good)} pictures of {FLAGS.photos}: "
            "pass --split=all, or a folder with more."
        )
    return sorted(paths)


def _check_output(path):
    folder = os.path.dirname(path or "") or "."
    if path is not None and (os.path.isdir(path) or not os.path.isdir(folder) or not path):
        raise ValueError(f"--output must be a file in an existing folder. Received: {path!r}.")


def _write(rows, path):
    with open(f"{path}.partial", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(f"{path}.partial", path)


if __name__ == "__main__":
    define_flags()
    cli.run(_NAME, main)
