"""The demo: builds a small pair, trains its decoder, and draws what it does to a photograph."""

import os
import sys
from collections.abc import Sequence

import matplotlib.figure
import numpy as np
import tensorflow as tf
from matplotlib.patches import Rectangle
from PIL import Image
from skimage import data

import unpooling
from export import build
from export.spec import Spec
from training import config, train
from training.pictures import read_picture
from unpooling import vgg19
from unpooling.errors import UserError, one_line

__all__ = ["draw", "example_photographs", "make_pair", "picture_paths", "show"]

# By the hash of its name, the last one is held out from training.
_PHOTOGRAPHS = ("astronaut", "cat", "motorcycle", "retina", "rocket", "coffee")

_ENLARGED = 96  # pixels, the side of the part that is shown enlarged


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
    output_dir: str, photos: str, layer: str, weights: str, steps: int
) -> tuple[str, str]:
    """Builds an encoder, trains a decoder for it and builds that, too.

    Args:
      output_dir: the folder for the two artifacts and the training run.
      photos: the folder with the photographs to learn from.
      layer: one of `LAYERS`.
      weights: the encoder's weights, see `unpooling.weights.load`.
      steps: how many batches of 8 crops the decoder learns from.

    Returns:
      The paths of the encoder's and the decoder's archive.

    Raises:
      UserError: if one of the steps fails.
    """
    encoder, decoder = Spec("encoder", layer), Spec("decoder", layer)
    made = {"output_dir": output_dir, "overwrite": True}
    print(f"\n1. Build an encoder up to {layer} with {weights} weights.", flush=True)
    encoder_folder = build.build_encoder(encoder, weights, **made)
    print(f"\n2. Train a decoder for it, {steps} steps.", flush=True)
    trained = train.train(
        config.recipe(
            layer,
            weights=weights,
            photos=photos,
            output_dir=os.path.join(output_dir, "runs"),
            overwrite=True,
            learning_rate=2e-3,
            epochs=3,
            steps_per_epoch=-(-steps // 3),
        )
    )
    print("\n3. Build the decoder.", flush=True)
    decoder_folder = build.build_decoder(decoder, trained, **made)
    return (
        os.path.join(encoder_folder, encoder.archive_name),
        os.path.join(decoder_folder, decoder.archive_name),
    )


def picture_paths(photographs: Sequence[str], output_dir: str) -> list[str]:
    """Returns the PNG to draw for each photograph: no two are the same, and none is an input."""
    taken = {os.path.realpath(path) for path in photographs}
    paths = []
    for photograph in photographs:
        stem = os.path.splitext(os.path.basename(photograph))[0]
        number, path = 1, os.path.join(output_dir, f"{stem}.png")
        while os.path.realpath(path) in taken:
            number += 1
            path = os.path.join(output_dir, f"{stem}-{number}.png")
        taken.add(os.path.realpath(path))
        paths.append(path)
    return paths


def show(
    encoder_path: str, decoder_path: str | None, photographs: Sequence[str], output_dir: str
) -> list[str]:
    """Draws photographs as `draw` does, and prints where the pictures are.

    A photograph that cannot be read is named on stderr; the others are drawn all the same.

    Args:
      encoder_path: an encoder's archive.
      decoder_path: the archive of the decoder that mirrors it, or None.
      photographs: the paths of pictures.
      output_dir: the folder for the PNGs, see `picture_paths`.

    Returns:
      The photographs that could not be read.

    Raises:
      UserError: if an archive cannot be loaded, or the two are not of one layer.
    """
    encoder = unpooling.load(encoder_path)
    decoder = None if decoder_path is None else unpooling.load(decoder_path)
    if decoder is not None and _poolings(encoder) != _poolings(decoder):
        raise UserError(f"{decoder_path} does not mirror {encoder_path}: pass a pair of one layer.")
    failed = []
    for photograph, path in zip(photographs, picture_paths(photographs, output_dir), strict=True):
        try:
            error = draw(encoder, decoder, photograph, path)
        except UserError as reason:
            print(f"demo: {one_line(reason)}", file=sys.stderr)
            failed.append(photograph)
            continue
        measured = "" if error is None else f"mean absolute error {error:.2f} of 255; "
        print(f"{one_line(photograph)}: {measured}picture: {one_line(path)}", flush=True)
    return failed


def draw(encoder: object, decoder: object | None, photograph: str, path: str) -> float | None:
    """Encodes a photograph, decodes it again, and draws the steps on the way.

    The first row of the drawing shows the photograph, the mean of the features, how far right and
    down the maxima of block 1 lie in their windows, and the reconstruction. The second row enlarges
    a part.

    Args:
      encoder: a loaded module.
      decoder: the module that mirrors it, or None to leave the reconstruction out.
      photograph: the path of a picture.
      path: the PNG to write.

    Returns:
      The mean absolute error of the reconstruction, 0 to 255, or None without a decoder.

    Raises:
      UserError: if the picture cannot be read.
      ValueError: if a value does not return to where its maximum came from.
    """
    picture = read_picture(photograph)  # (H, W, 3), uint8
    whole = tf.constant(picture[np.newaxis], tf.float32)  # (1, H, W, 3)
    downsampling = 2 ** _poolings(encoder)
    images = unpooling.pad_by_reflection(whole, downsampling)
    outputs = encoder(images)
    features, *indices = outputs if isinstance(outputs, list) else [outputs]
    panels = {
        "photograph": picture,
        f"features: mean of {features.shape[-1]} channels": _grey(features, downsampling),
    }
    if indices:
        panels["positions of the maxima of block 1"] = _grey(_offsets(images, indices[0]), 2)
    error = None
    if decoder is not None:
        decoded = unpooling.crop(decoder(outputs), whole)[0].numpy()  # (H, W, 3)
        error = float(np.mean(np.abs(decoded - picture)))
        panels[f"reconstruction: error {error:.2f} of 255"] = np.uint8(np.clip(decoded, 0, 255))
    _draw_panels(panels, picture.shape[:2], path)
    return error


def _poolings(module):
    """How many poolings a loaded encoder has, or unpoolings a decoder."""
    signature = module.signatures["compact"]
    names = {*signature.structured_outputs, *signature.structured_input_signature[1]}
    return sum(name.endswith("_switches") for name in names)


def _offsets(images, indices):
    """0, 1 or 2 for each maximum of block 1, after a check that all return to their windows."""
    _, height, width, _ = images.shape
    channels = vgg19.blocks_up_to(unpooling.LAYERS[0])[0].channels
    pooled = (1, height // 2, width // 2, channels)
    ones = tf.ones(pooled)
    unpooled = unpooling.unpool(ones, indices, (1, height, width, channels))
    if not np.array_equal(tf.nn.max_pool2d(unpooled, 2, 2, "VALID"), ones):
        raise ValueError("block1_indices do not put every value back in its window")
    return tf.reshape(indices[:, 1] % 2 + indices[:, 2] % 2, pooled)


def _grey(values, scale):
    """The mean over the channels of (1, h, w, C), each value `scale` pixels wide and high."""
    mean = np.mean(values[0], axis=-1)
    return np.kron(mean, np.ones((scale, scale)))


def _draw_panels(panels, size, path):
    """Draws panels side by side, and below them a part of each, enlarged."""
    height, width = size
    side = min(_ENLARGED, height, width)
    y, x = (height - side) * 2 // 3, (width - side) // 2
    inches = 4.0
    figure = matplotlib.figure.Figure(
        figsize=(inches * len(panels), inches * (height / width + 1) + 0.8), layout="constrained"
    )
    axes = figure.subplots(
        2, len(panels), squeeze=False, gridspec_kw={"height_ratios": [height / width, 1]}
    )
    for column, (title, pixels) in enumerate(panels.items()):
        pixels = pixels[:height, :width]
        # A few very bright values must not leave the rest black.
        limit = {"cmap": "gray", "vmin": 0, "vmax": np.percentile(pixels, 99.5)}
        shown = {} if pixels.ndim == 3 else limit
        axes[0, column].imshow(pixels, **shown)
        axes[0, column].set_title(title, fontsize=11)
        axes[0, column].add_patch(Rectangle((x, y), side, side, fill=False, edgecolor="white"))
        axes[1, column].imshow(pixels[y : y + side, x : x + side], interpolation="nearest", **shown)
    for each in axes.flat:
        each.axis("off")
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    figure.savefig(path, dpi=110)
