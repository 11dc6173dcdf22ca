"""The demo: builds a small pair, trains its decoder, and draws what it does to a photograph."""

import contextlib
import io
import os
import sys
import textwrap
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from PIL import Image
from skimage import data

import unpooling
from export import build, manifest
from export.spec import Spec
from training import config, train
from training.panels import draw_panels, reduced
from unpooling import tiling, vgg19, weights
from unpooling.errors import UserError, one_line
from unpooling.pictures import read_picture

__all__ = ["draw", "example_photographs", "make_pair", "picture_paths", "show"]

# By the hash of its name, the last one is held out from training.
_PHOTOGRAPHS = ("astronaut", "cat", "motorcycle", "retina", "rocket", "coffee")


def example_photographs(folder: str) -> list[str]:
    """Writes photographs that scikit-image brings along as files, and returns their paths.

    The last one is held out from training, by the hash of its name.
    """
    os.makedirs(folder, exist_ok=True)
    paths = []
    for name in _PHOTOGRAPHS:
        pixels = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
        paths.append(os.path.join(folder, f"{name}.jpg"))
        Image.fromarray(pixels).save(paths[-1], quality=95)
    return paths


def make_pair(
    output_dir: str, photos: str, layer: str, steps: int, **changes: object
) -> tuple[str, str]:
    """Builds an encoder with random weights, trains a decoder for it and builds that, too.

    Args:
      output_dir: the folder for the two artifacts and the training run.
      photos: the folder with the photographs to learn from.
      layer: one of `LAYERS`.
      steps: how many batches of 8 crops the decoder learns from.
      **changes: further fields of `TrainConfig`.

    Returns:
      The paths of the encoder's and the decoder's archive.

    Raises:
      UserError: if one of the steps fails.
    """
    _say(
        f"1. Build an encoder: VGG19 up to {layer}, which also returns where each maximum of its "
        "pooling came from. Its weights are random, so that nothing has to be downloaded."
    )
    encoder = _build(Spec("encoder", layer), "random", output_dir)
    _say(
        f"2. Train a decoder, in {steps} steps, to give photographs back. l1 is the mean error of "
        "a pixel's value, 0 to 255; val_l1 is that of a photograph kept out of training."
    )
    wanted = {
        "weights": "random",
        "photos": photos,
        "output_dir": os.path.join(output_dir, "runs"),
        "overwrite": True,
        "batch_size": 8,
        "learning_rate": 2e-3,
        "l1_weight": 1.0,
        "epochs": 3,
        "steps_per_epoch": -(-steps // 3),
    }
    trained = train.train(config.recipe(layer, **wanted | changes))
    _say("3. Build the decoder, as an archive that takes what the encoder returns.")
    return encoder, _build(Spec("decoder", layer), trained, output_dir)


def _say(text):
    print(f"\n{textwrap.fill(text, 100)}", flush=True)


def _build(spec, weights, output_dir):
    """Builds an artifact with one line instead of many, and returns the path of its archive."""
    with contextlib.redirect_stdout(io.StringIO()) as lines:
        folder = build.build(spec, weights, output_dir=output_dir, overwrite=True)
    path = os.path.join(folder, spec.archive_name)
    print(f"{path}: passed {lines.getvalue().count('  ok  ')} checks", flush=True)
    return path


def picture_paths(photographs: Sequence[str], output_dir: str) -> list[str]:
    """Returns the PNG to draw for each photograph: no two are the same, and none is an input."""
    taken = {os.path.realpath(path) for path in photographs}
    paths = []
    for photograph in photographs:
        stem = os.path.splitext(os.path.basename(photograph))[0]
        number, path = 1, os.path.join(output_dir, f"{stem}.png")
        while os.path.realpath(path) in taken or _is_one_of(path, photographs):
            number += 1
            path = os.path.join(output_dir, f"{stem}-{number}.png")
        taken.add(os.path.realpath(path))
        paths.append(path)
    return paths


def _is_one_of(path, others):
    """Whether a path is another name of one of these files, such as a hard link."""
    if not os.path.exists(path):
        return False
    return any(os.path.exists(other) and os.path.samefile(path, other) for other in others)


def show(
    encoder_path: str, decoder_path: str | None, photographs: Sequence[str], output_dir: str
) -> list[str]:
    """Draws photographs as `draw` does, and prints where the drawings are.

    A photograph that cannot be read is named on stderr; the others are drawn all the same.

    Args:
      encoder_path: an encoder's archive.
      decoder_path: the archive of the decoder that mirrors it, or None.
      photographs: the paths of pictures.
      output_dir: the folder for the PNGs, see `picture_paths`.

    Returns:
      The photographs that could not be read.

    Raises:
      UserError: if an archive cannot be loaded or is of the other kind, or the two are not of one
        layer, or the decoder's manifest says that it was trained for other weights.
    """
    encoder, decoder = _load("encoder", encoder_path), None
    if decoder_path is not None:
        decoder = _load("decoder", decoder_path)
        _check_pair(encoder, decoder, encoder_path, decoder_path)
    failed = []
    for photograph, path in zip(photographs, picture_paths(photographs, output_dir), strict=True):
        try:
            error = draw(encoder, decoder, photograph, path)
        except (UserError, MemoryError, tf.errors.ResourceExhaustedError) as reason:
            reason = reason if isinstance(reason, UserError) else f"{photograph}: out of memory"
            print(f"demo: {one_line(reason)}", file=sys.stderr)
            failed.append(photograph)
            continue
        measured = "" if error is None else f"mean absolute error {error:.2f} of 255; "
        print(f"{one_line(photograph)}: {measured}picture: {one_line(path)}", flush=True)
    return failed


def _load(kind, path):
    module = unpooling.load(path)
    takes_images = "images" in module.signatures["compact"].structured_input_signature[1]
    if takes_images != (kind == "encoder"):
        raise UserError(f"--{kind} must be the archive of one. Received: {path}, which is not.")
    return module


def _check_pair(encoder, decoder, encoder_path, decoder_path):
    """Refuses a decoder of another layer, or of other weights if the manifest beside it says so."""
    if tiling.layer_of(encoder) != tiling.layer_of(decoder):
        raise UserError(f"{decoder_path} does not mirror {encoder_path}: pass a pair of one layer.")
    path = f"{decoder_path.removesuffix('.tar.gz')}.manifest.json"
    training = manifest.training_of(manifest.read(path)) if os.path.exists(path) else None
    if training and training.encoder["sha256"] != weights.digests_of(encoder.variables):
        raise UserError(
            f"{decoder_path} was trained for an encoder with other weights than {encoder_path}: "
            "pass that one, or a decoder for this one."
        )


def draw(encoder: object, decoder: object | None, photograph: str, path: str) -> float | None:
    """Encodes a photograph, decodes it again, and draws the steps on the way.

    The first row of the drawing shows the photograph, the mean of the features, how far right and
    down the maxima of block 1 lie in their windows, and the reconstruction. The second row enlarges
    a part. A photograph of any size is decoded as it is, tile by tile, and drawn reduced.

    Args:
      encoder: a loaded module.
      decoder: the module that mirrors it, or None to leave the reconstruction out.
      photograph: the path of a picture.
      path: the PNG to write.

    Returns:
      The mean absolute error of the reconstruction's pixels, 0 to 255, or None without a decoder.

    Raises:
      UserError: if the picture cannot be read.
    """
    picture = read_picture(photograph)  # (H, W, 3), uint8
    shown = reduced(picture)
    multiple = vgg19.downsampling(tiling.layer_of(encoder))
    padded = unpooling.pad_by_reflection(shown[np.newaxis], multiple).numpy()
    features, *switches = tiling.encode(encoder, padded)

    def grey(maps):
        """The mean of the channels, (H, W), as large as what is shown."""
        scale = padded.shape[1] // maps.shape[1]
        mean = np.kron(np.mean(maps[0], axis=-1), np.ones((scale, scale)))
        return mean[: shown.shape[0], : shown.shape[1]]

    panels = {
        "photograph": shown,
        f"features: mean of {features.shape[-1]} channels": grey(features),
    }
    if switches:
        offsets = switches[0] // 2 + switches[0] % 2
        panels["positions of the maxima of block 1"] = grey(offsets)
    error = None
    if decoder is not None:
        decoded = np.empty_like(picture)
        tiling.reconstruct(encoder, decoder, picture[np.newaxis], out=decoded[np.newaxis])
        rows = zip(picture, decoded, strict=True)
        error = float(np.mean([np.mean(np.abs(np.int16(row) - other)) for row, other in rows]))
        panels[f"reconstruction: error {error:.2f} of 255"] = reduced(decoded)
    draw_panels(path, panels)
    return error
