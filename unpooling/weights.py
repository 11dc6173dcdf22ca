"""Where weights come from: Keras' ImageNet download, an .h5 file, or a seed; and where they go."""

import dataclasses
import io
import json
import math
import os
from collections.abc import Mapping, Sequence

import h5py
import keras
import numpy as np

from export import checksums
from unpooling import vgg19

__all__ = ["Weights", "check_pair", "layers_of", "load", "load_decoder", "save"]


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of a row of convolutions, and where they came from.

    Attributes:
      layers: for each convolution its (kernel, bias): float32, (3, 3, in, out) and (out,).
      source: one of `options.SOURCES`.
      seed: the seed of random weights, else None.
      file_name: the name, without its folder, of the file they were read from, else None.
      file_sha256: that file's SHA-256, else None.
      training: how they were trained, as `save` wrote it into the file, else None.
    """

    layers: dict[str, tuple[np.ndarray, np.ndarray]]
    source: str
    seed: int | None = None
    file_name: str | None = None
    file_sha256: str | None = None
    training: dict | None = None


def load(source: str, layer: str, seed: int = 0) -> Weights:
    """Returns the weights of VGG19 up to and including `layer`.

    Args:
      source: "imagenet" for Keras' published weights (downloaded, checked and cached by
        `keras.applications`), "random" for seeded ones, anything else is the path of an .h5 file
        in the layout of Keras' published VGG19 files, with or without the top layers; it need
        only hold the layers up to `layer`.
      layer: one of `vgg19.LAYERS`.
      seed: for "random", from 0 to 2^64 - 1.

    Raises:
      ValueError: if the download is impossible, or a file is missing, is not HDF5, is damaged,
        lacks a layer, has a layer of another shape, or holds values that are not finite.
    """
    convolutions = vgg19.convolutions(layer)
    if source == "imagenet":
        return Weights(_imagenet(convolutions), source)
    if source == "random":
        return Weights(_random(convolutions, seed), source, seed=seed)
    return _from_file(source, convolutions)


def layers_of(source: str) -> tuple[str, ...]:
    """Returns the layers, of `vgg19.LAYERS`, at which encoders with these weights can end.

    Args:
      source: as for `load`.

    Raises:
      ValueError: as `load`, if there is none.
    """
    if source in ("imagenet", "random"):
        return vgg19.LAYERS
    load(source, vgg19.LAYERS[0])
    with h5py.File(source, "r") as file:
        held = set(file.get("model_weights", file))
    return tuple(
        layer for layer in vgg19.LAYERS if all(c.name in held for c in vgg19.convolutions(layer))
    )


def load_decoder(source: str, layer: str, seed: int = 0) -> Weights:
    """Returns the weights of the decoder for `layer`.

    Args:
      source: "random" for seeded ones, anything else is the path of an .h5 file that `save` wrote.
      layer: one of `vgg19.LAYERS`.
      seed: for "random", from 0 to 2^64 - 1.

    Raises:
      ValueError: as `load`.
    """
    convolutions = vgg19.convolutions(layer, "decoder")
    if source == "random":
        return Weights(_random(convolutions, seed), source, seed=seed)
    return _from_file(source, convolutions)


def check_pair(encoder: Weights, decoder: Weights, path: str) -> None:
    """Checks that a decoder was trained for an encoder, as far as its file tells.

    Args:
      encoder, decoder: their weights.
      path: the decoder's file, for the message.

    Raises:
      ValueError: if it says that it was trained for an encoder with other weights.
    """
    stated = (decoder.training or {}).get("encoder")
    trained_for = stated.get("sha256") if isinstance(stated, dict) else None
    found = {name: checksums.layer_sha256(*pair) for name, pair in encoder.layers.items()}
    if trained_for not in (None, found):
        raise ValueError(
            f"{path} was trained for an encoder with other weights: pass those as --weights."
        )


def save(
    path: str, layers: Mapping[str, tuple[np.ndarray, np.ndarray]], training: dict | None = None
) -> None:
    """Writes weights as an .h5 file in the layout of Keras' published VGG19 files.

    Args:
      path: the file to write; an existing one is replaced in one step.
      layers: for each convolution its (kernel, bias), as in `Weights`.
      training: what is to be known of how they were trained: values that JSON has.
    """
    content = io.BytesIO()  # On a full disk, HDF5 fails in ways of its own.
    with h5py.File(content, "w") as file:
        file.attrs["layer_names"] = list(layers)
        if training is not None:
            file.attrs["training"] = json.dumps(training, allow_nan=False)
        for name, arrays in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = ["kernel", "bias"]
            for part, array in zip(("kernel", "bias"), arrays, strict=True):
                group[part] = np.asarray(array, np.float32)
    with open(f"{path}.partial", "wb") as file:
        file.write(content.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.partial", path)


def _from_file(path, convolutions):
    layers, training = _read_h5(path, convolutions)
    return Weights(
        layers,
        source="file",
        file_name=os.path.basename(path),
        file_sha256=checksums.file_digest(path)["sha256"],
        training=training,
    )


def _imagenet(convolutions):
    """Keras' ImageNet weights, by Keras' own download, checksum, cache and progress bar."""
    if keras.config.floatx() != "float32":
        raise ValueError(
            f"Keras is set to {keras.config.floatx()} weights: set `floatx` to float32 in its "
            "keras.json."
        )
    try:
        model = keras.applications.VGG19(include_top=False, weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception when a download fails.
        raise ValueError(
            "keras.applications could not provide VGG19's ImageNet weights (it looks in the "
            f"`models` folder of its cache, then downloads): {_one_line(error)}. Give a copy of "
            "the file with --weights=PATH, or build an untrained module with --weights=random."
        ) from error
    return {c.name: tuple(model.get_layer(c.name).get_weights()) for c in convolutions}


def _random(convolutions: Sequence[vgg19.Convolution], seed: int):
    """He-normal kernels (K. He et al., arXiv 1502.01852) and zero biases.

    The same bits on every machine: the stream of a NumPy bit generator is fixed for good, while
    its normal variates may change with the release and with the C library's logarithm. So a
    variate is made of whole numbers: the sum of twelve uniform ones, with mean 6 and variance 1,
    is normal up to its tails, which end at six standard deviations. Each convolution has a stream
    of its own, so a kernel does not depend on how many layers are built.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"`seed` must be from 0 to 2^64 - 1. Received: {seed}.")
    layers = {}
    for number, convolution in enumerate(convolutions):
        count = math.prod(convolution.kernel_shape)
        stream = np.random.Philox(key=np.array([seed, number], np.uint64))
        # Six 64-bit words are twelve uniform 32-bit numbers, in either order of bytes.
        uniform = stream.random_raw(6 * count).view(np.uint32).reshape(count, 12)
        total = uniform.sum(axis=1, dtype=np.int64) - 6 * (2**32 - 1)
        normal = total / 2.0**32
        fan_in = math.prod(convolution.kernel_shape[:3])
        kernel = (normal * math.sqrt(2.0 / fan_in)).astype(np.float32)
        layers[convolution.name] = (
            kernel.reshape(convolution.kernel_shape),
            np.zeros(convolution.out_channels, np.float32),
        )
    return layers


def _read_h5(path, convolutions):
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise ValueError(
            f"weights file {path}: no such file. `weights` must be `imagenet`, `random` or the "
            "path of an .h5 file."
        ) from None
    except OSError as error:
        raise ValueError(
            f"weights file {path}: not a readable HDF5 file, or cut short "
            f"({_one_line(error)}). Copy it again and compare its checksum."
        ) from error
    with file:
        # Keras saves the weights of a whole model in a group of that name.
        root = file.get("model_weights", file)
        layers = {c.name: _read_convolution(path, root, c) for c in convolutions}
        return layers, _read_training(path, file)


def _read_training(path, file):
    try:
        training = json.loads(file.attrs.get("training", "null"))
        if not isinstance(training, dict | None):
            raise ValueError(f"it is {training!r:.80}")
    except Exception as error:  # h5py raises nearly everything when a file is damaged.
        raise ValueError(
            f"weights file {path}: its attribute `training` is not a JSON object "
            f"({_one_line(error)}). Write the file anew with train_decoder.py."
        ) from error
    return training


def _read_convolution(path, root, convolution):
    """Returns (kernel, bias) of one convolution, or raises ValueError."""
    where = f"weights file {path}, layer {convolution.name}"
    shapes = (convolution.kernel_shape, (convolution.out_channels,))
    try:
        held = tuple(root)
        if convolution.name in held:
            group = root[convolution.name]
            # Names differ between versions of Keras (`block1_conv1_W_1:0`,
            # `block1_conv1/kernel:0`); the order, kernel before bias, does not.
            arrays = [group[name] for name in group.attrs.get("weight_names", ())]
            found = tuple(getattr(array, "shape", None) for array in arrays)
            dtypes = [getattr(array, "dtype", None) for array in arrays]
            # What does not fit is not read: it might be of any size.
            if found == shapes:
                arrays = [array[()] for array in arrays]
    except Exception as error:  # h5py raises nearly everything when a file is damaged.
        raise ValueError(
            f"{where}: unreadable ({_one_line(error)}). The file is damaged or not in "
            "the layout of Keras' published VGG19 files."
        ) from error
    if convolution.name not in held:
        raise ValueError(
            f"{where}: missing. The file must be in the layout of Keras' published VGG19 "
            "files and hold every layer up to the one asked for. It holds: "
            f"{', '.join(map(str, held)) or 'nothing'}."
        )
    if found != shapes:
        raise ValueError(
            f"{where}: kernel and bias must have the shapes {shapes[0]} and {shapes[1]}. "
            f"Received: {', '.join(map(str, found)) or 'no weights'}."
        )
    if any(dtype.kind != "f" for dtype in dtypes):
        raise ValueError(
            f"{where}: kernel and bias must be floating point. "
            f"Received: {', '.join(map(str, dtypes))}."
        )
    with np.errstate(over="ignore"):  # What float32 cannot hold becomes infinite: refused below.
        kernel, bias = (np.asarray(array, np.float32) for array in arrays)
    for name, values in (("kernel", kernel), ("bias", bias)):
        if not np.isfinite(values).all():
            raise ValueError(
                f"{where}: the {name} holds NaN or infinite values. Use an undamaged file."
            )
    return kernel, bias


def _one_line(error):
    return " ".join(str(error).split()).rstrip(".")
