"""Measures how well a decoder reconstructs photographs.

    python -m training.evaluate --layer=block3_conv2 --weights=imagenet \\
        --decoder=runs/vgg19-block3-conv2-decoder/decoder.h5 --photos=FOLDER

encodes and decodes each photograph as a whole, cut to sides that every pooling halves, and prints
its figures and the means of all. With --output=evaluation.csv it also writes them to a file. A
photograph that cannot be measured is named and left out; the exit status is then 1.
"""

import collections
import csv
import math
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from absl import flags

from export import cli
from training import data
from training.console import say
from unpooling import padding, pictures, tiling, vgg19, weights
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder
from unpooling.errors import UserError, one_line

__all__ = [
    "COLUMNS",
    "PUBLISHED_ERRORS",
    "evaluate",
    "evaluate_folder",
    "means",
    "measure",
    "write_rows",
]

# The mean absolute error of the published decoders, values in [0, 255], on COCO's test pictures:
# https://github.com/tensorflow/tfhub.dev, assets/docs/emilutz.
PUBLISHED_ERRORS = dict(zip(vgg19.LAYERS, (2.494, 3.859, 5.124, 6.104, 6.626), strict=True))

COLUMNS = ("picture", "width", "height", "error", "clipped_error", "psnr", "ssim")

_REACH = 10  # pixels that the filter of SSIM reads beyond a pixel, below and to the right

FLAGS = flags.FLAGS


def measure(
    layer: str,
    reconstruct: Callable[[tf.Tensor], tf.Tensor],
    picture: np.ndarray,
    side: int = 512,
) -> dict[str, float]:
    """Returns how far a reconstruction is from its picture; tile by tile, for pictures of any size.

    `error` is the mean absolute error, values in [0, 255], of what the decoder returns, and
    `clipped_error` that of the same clipped to [0, 255]. PSNR, in decibels, and SSIM (Z. Wang et
    al., "Image quality assessment: from error visibility to structural similarity", 2004) are those
    of `tf.image`, of what is clipped; SSIM is NaN for pictures with a side below 11 pixels.

    Args:
      layer: one of `LAYERS`.
      reconstruct: encodes and decodes (1, h, w, 3), float32, with a pair that ends there.
      picture: (H, W, 3), uint8, RGB; H and W multiples of 2^(K-1).
      side: of a tile, in pixels.

    Returns:
      {name: value}, for the last four of `COLUMNS`.
    """
    (height, width), values = picture.shape[:2], picture.size
    multiple = vgg19.downsampling(layer)
    margin = tiling.margin(layer) + -(-_REACH // multiple) * multiple
    sums = collections.Counter()
    for tile in tiling.tiles(height, width, multiple, margin, side):
        images = tf.cast(tile.cut(picture[np.newaxis]), tf.float32)
        decoded = reconstruct(images)
        (top, bottom, left, right), (first, _, start, _) = tile.inner, tile.outer
        # From where the tile begins to where its last windows of SSIM end.
        rows = slice(top - first, bottom - first + _REACH)
        columns = slice(left - start, right - start + _REACH)
        images, decoded = images[:, rows, columns], decoded[:, rows, columns]
        if min(images.shape[1:3]) > _REACH:
            clipped = tf.clip_by_value(decoded, 0.0, 255.0)
            similar = tf.image.ssim(images, clipped, 255.0, return_index_map=True)
            sums["ssim"] += float(tf.reduce_sum(similar))
        images, decoded = (m[:, : bottom - top, : right - left] for m in (images, decoded))
        difference = images - tf.clip_by_value(decoded, 0.0, 255.0)
        sums["error"] += float(tf.reduce_sum(tf.abs(images - decoded)))
        sums["clipped_error"] += float(tf.reduce_sum(tf.abs(difference)))
        sums["square"] += float(tf.reduce_sum(tf.square(difference)))
    windows = max(height - _REACH, 0) * max(width - _REACH, 0)
    square = sums["square"] / values
    return {
        "error": sums["error"] / values,
        "clipped_error": sums["clipped_error"] / values,
        "psnr": 10 * math.log10(255**2 / square) if square else math.inf,
        "ssim": sums["ssim"] / windows if windows else math.nan,
    }


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the means of what `measure` returned, each picture counting once.

    Pictures whose SSIM is NaN do not count for SSIM. Of nothing, the mean is NaN.
    """
    found = {}
    for name in COLUMNS[3:]:
        values = [row[name] for row in rows if not math.isnan(row[name])]
        found[name] = sum(values) / len(values) if values else math.nan
    return found


def evaluate(
    layer: str,
    encoder: weights.Weights,
    decoder: weights.Weights,
    paths: Sequence[str],
    folder: str = ".",
) -> tuple[list[dict[str, object]], list[str]]:
    """Measures pictures, and prints a line for each: its figures, or why it is left out.

    Args:
      layer: one of `LAYERS`.
      encoder, decoder: the weights of a pair that ends there.
      paths: the pictures.
      folder: where paths begin in lines and rows.

    Returns:
      A row for each picture that could be measured, {name: value} as `COLUMNS` has the names:
      `width` and `height` are those of the part that was measured. And the paths of the others,
      which cannot be read, or have a side below 2^(K-1) pixels.
    """
    encode, decode = Encoder(layer, encoder.layers).compact, Decoder(layer, decoder.layers)

    @tf.function(input_signature=[tf.TensorSpec((1, None, None, 3))], autograph=False)
    def reconstruct(images):
        return decode(encode(images))

    least, rows, left_out = vgg19.downsampling(layer), [], []
    for number, path in enumerate(paths, 1):
        name = os.path.relpath(path, folder)
        try:
            picture = padding.cut(pictures.read_picture(path), least)
            if not picture.size:
                raise UserError(f"`{layer}` needs sides of at least {least} pixels")
            row = measure(layer, reconstruct, picture)
        except (UserError, MemoryError, tf.errors.ResourceExhaustedError) as error:
            reason = error if isinstance(error, UserError) else "out of memory"
            line = f"left out: {one_line(reason)}"
            left_out.append(path)
        else:
            line = "error {error:.3f}, PSNR {psnr:.2f} dB, SSIM {ssim:.4f}".format(**row)
            height, width = picture.shape[:2]
            rows.append({"picture": name, "width": width, "height": height, **row})
        say(f"{number} of {len(paths)}: {one_line(name)}: {line}")
    return rows, left_out


def evaluate_folder(
    layer: str,
    encoder: str,
    decoder: str,
    photos: str,
    seed: int = 0,
    split: str = data.HELD_OUT,
    output: str | None = None,
) -> tuple[list[dict[str, object]], list[str]]:
    """Measures a decoder on the photographs of a folder, as `evaluate` does.

    Args:
      layer: one of `LAYERS`.
      encoder: the encoder's weights, as for `weights.load`, with `seed`.
      decoder: the path of a decoder.h5, or "pretrained".
      photos: the folder.
      split: "train", "validation", "test", "held_out" for the last two, or "all".
      output: the path of a CSV file for the rows, in an existing folder.

    Returns:
      As `evaluate`, the pictures as paths within the folder.

    Raises:
      UserError: if one of these cannot be used, or no photograph can be measured.
    """
    writable = output is None or os.path.isdir(os.path.dirname(output) or ".")
    if not writable or not (output or ".csv").endswith(".csv") or os.path.isdir(output or ""):
        raise UserError(f"--output must be a .csv file in an existing folder, not {output!r}.")
    pair = weights.load(encoder, layer, seed), weights.load_decoder(decoder, layer)
    weights.check_pair(*pair, decoder)
    paths = data.find_pictures(photos)
    chosen = data.of_split(paths, photos, split)
    if not chosen:
        raise UserError(
            f"--split={split} holds none of the {len(paths)} pictures of {photos}: pass "
            "--split=all, or a folder with more."
        )
    rows, left_out = evaluate(layer, *pair, chosen, photos)
    if not rows:
        raise UserError(f"none of the {len(left_out)} pictures can be measured; see above.")
    if output is not None:
        write_rows(output, rows)
    return rows, left_out


def write_rows(path: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes rows, at least one and all with the same names, into a CSV file."""
    # A file name on Linux need not be text.
    text = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    with open(f"{path}.partial", "w", **text) as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(f"{path}.partial", path)


def main() -> int:
    names = ("layer", "weights", "decoder", "photos", "seed", "split", "output")
    rows, left_out = evaluate_folder(*(FLAGS[name].value for name in names))
    mean, published = means(rows), PUBLISHED_ERRORS[FLAGS.layer]
    say(
        f"photographs: {len(rows)} ({FLAGS.split})\n"
        f"mean absolute error, 0 to 255: {mean['error']:.3f} "
        f"(published, on COCO's test pictures: {published:.3f})\n"
        f"the same, clipped to that range: {mean['clipped_error']:.3f}\n"
        f"PSNR: {mean['psnr']:.2f} dB\n"
        f"SSIM: {mean['ssim']:.4f}"
    )
    return cli.fail("evaluate", f"{len(left_out)} left out; see above.") if left_out else 0


def _define_flags():
    flags.DEFINE_enum("layer", "block5_conv2", vgg19.LAYERS, "The layer at which the encoder ends.")
    cli.define_weights_flags()
    flags.adopt_module_key_flags(cli)  # So that --help lists them.
    flags.DEFINE_string(
        "decoder", None, "The decoder.h5 to measure, or `pretrained`.", required=True
    )
    flags.DEFINE_string("photos", None, "The folder with the photographs.", required=True)
    flags.DEFINE_enum(
        "split",
        data.HELD_OUT,
        data.SPLITS,
        "Which of them, by the hash of the name; held_out is validation and test.",
    )
    flags.DEFINE_string("output", None, "The CSV file for each photograph's figures.")


if __name__ == "__main__":
    _define_flags()
    cli.run("evaluate", main)
