"""The weights of encoders and decoders: ImageNet's, seeded ones, or those in a file."""

import dataclasses
import functools
import hashlib
import importlib
import io
import math
import os
import types
import zipfile
from collections.abc import Mapping, Sequence

import h5py
import numpy as np

from unpooling import vgg19
from unpooling.errors import UserError, one_line
from unpooling.options import SEEDS
from unpooling.training_record import TrainingRecord

__all__ = [
    "SEEDS",
    "Weights",
    "check_pair",
    "digests_of",
    "identity",
    "import_keras",
    "joint_sha256",
    "layer_sha256",
    "layers_of",
    "load",
    "load_decoder",
    "pretrained_decoders",
    "save",
]

# What to do about a file that is not there, is not Keras', or lacks a layer.
_OF_KERAS = "a file that Keras wrote for VGG19"
_OF_TRAINING = "a decoder.h5 that train_decoder.py wrote"
_ADVICE = {
    "encoder": {
        "absent": f"`weights` must be `imagenet`, `random` or the path of {_OF_KERAS}.",
        "foreign": "Weights of PyTorch must be converted to .h5 first.",
        "incomplete": "The file must be Keras' and hold every layer of VGG19 up to the one asked "
        "for.",
    },
    "decoder": {
        "absent": f"`weights` must be `pretrained`, `random` or the path of {_OF_TRAINING}.",
        "foreign": f"Pass {_OF_TRAINING}.",
        "incomplete": f"Pass {_OF_TRAINING} for this layer.",
    },
}


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of a row of convolutions, and where they came from.

    Attributes:
      layers: for each convolution its (kernel, bias): float32, (3, 3, in, out) and (out,).
      source: "imagenet", "random" or "file".
      seed: the seed of random weights, else None.
      file_name: the name, without its folder, of the file they were read from, else None.
      file_sha256: that file's SHA-256, else None.
      training: how a decoder was trained, if its file says so, else None.
    """

    layers: dict[str, tuple[np.ndarray, np.ndarray]]
    source: str
    seed: int | None = None
    file_name: str | None = None
    file_sha256: str | None = None
    training: TrainingRecord | None = None

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """The `layer_sha256` of each convolution."""
        return {name: layer_sha256(*pair) for name, pair in self.layers.items()}


def load(source: str, layer: str, seed: int = 0) -> Weights:
    """Returns the weights of VGG19 up to and including `layer`.

    Args:
      source: "imagenet" for Keras' published weights, which `keras.applications` downloads, checks
        and caches; "random" for seeded ones; or the path of a file that Keras wrote for its VGG19:
        the published .h5 files, `save_weights` (.weights.h5) or `save` (.keras), with or without
        the top layers. The file need only hold the layers up to `layer`.
      layer: one of `LAYERS`.
      seed: for "random", from 0 to 2^63 - 1.

    Raises:
      UserError: if the download fails, or a file is missing, damaged, in another format, lacks a
        layer, has a layer of another shape, is VGG16's, or holds values that are not finite.
    """
    convolutions = vgg19.convolutions(layer)
    if source == "imagenet":
        published = _imagenet()
        return Weights({c.name: published[c.name] for c in convolutions}, source)
    if source == "random":
        return Weights(_random(convolutions, seed), source, seed=seed)
    return _from_file(source, convolutions, "encoder")


def load_decoder(source: str, layer: str, seed: int = 0) -> Weights:
    """Returns the weights of the decoder for `layer`.

    Args:
      source: "pretrained" for a decoder that ships with this library, see `pretrained_decoders`;
        "random" for seeded ones; or the path of a decoder.h5 that `save` wrote. A file from
        before version 0.4 lacks convolutions after the unpoolings; these become the identity, with
        which it decodes as before.
      layer: one of `LAYERS`.
      seed: for "random", from 0 to 2^63 - 1.

    Raises:
      UserError: as `load`, if none ships for this layer, or if the file says that it is another
        layer's.
    """
    convolutions = vgg19.convolutions(layer, "decoder")
    if source == "random":
        return Weights(_random(convolutions, seed), source, seed=seed)
    if source == "pretrained":
        shipped = pretrained_decoders()
        if layer not in shipped:
            raise UserError(
                f"no trained decoder for {layer} ships, only for {', '.join(shipped)}: train one "
                f"with train_decoder.py --layer={layer}, and pass the path of its decoder.h5."
            )
        source = shipped[layer]
    more = vgg19.after_unpooling(layer)
    # Earlier versions had none of these, then one after each unpooling.
    earlier = more, more[: len(more) - len(vgg19.pooled_blocks(layer))]
    weights = _from_file(source, convolutions, "decoder", earlier)
    training = weights.training
    if training is not None and training.layer != layer:
        raise UserError(
            f"weights file {source} holds the decoder for {training.layer}, not for {layer}: pass "
            f"--layer={training.layer}, or another file."
        )
    return weights


def pretrained_decoders() -> dict[str, str]:
    """Returns {layer: the path of its decoder.h5} of the trained decoders that ship.

    They were trained for VGG19's ImageNet weights. `pretrained/README.md` says how, on what, and
    how well they reconstruct.
    """
    directory = os.path.join(os.path.dirname(__file__), "pretrained")
    paths = {layer: os.path.join(directory, f"{layer}.h5") for layer in vgg19.LAYERS}
    return {layer: path for layer, path in paths.items() if os.path.exists(path)}


def layers_of(source: str) -> tuple[str, ...]:
    """Returns the layers at which encoders with these weights can end.

    Args:
      source: as for `load`.

    Raises:
      UserError: as `load`, if there is none.
    """
    if source in ("imagenet", "random"):
        return vgg19.LAYERS
    load(source, vgg19.LAYERS[0])
    with _open(source, "encoder") as file:
        held = _arrays(file)
        return tuple(
            layer
            for layer in vgg19.LAYERS
            if all(c.name in held for c in vgg19.convolutions(layer))
        )


def check_pair(encoder: Weights, decoder: Weights, path: str) -> None:
    """Checks that a decoder was trained for an encoder, as far as its file says.

    Args:
      encoder, decoder: their weights.
      path: the decoder's file, for the message.

    Raises:
      UserError: if the file says that it was trained for an encoder with other weights.
    """
    if decoder.training is not None and decoder.training.encoder["sha256"] != encoder.digests:
        raise UserError(
            f"{path} was trained for an encoder with other weights: pass those as --weights."
        )


def layer_sha256(kernel: np.ndarray, bias: np.ndarray) -> str:
    """Returns the SHA-256 of a convolution's weights, however they are stored.

    Args:
      kernel: (3, 3, in, out), float32.
      bias: (out,), float32.

    Returns:
      That of the kernel, then the bias, in row-major order, as little-endian float32; hexadecimal.
    """
    digest = hashlib.sha256()
    for array in (kernel, bias):
        digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    return digest.hexdigest()


def digests_of(variables: Sequence) -> dict[str, str]:
    """Returns the `layer_sha256` of each convolution of a module, in the order of the layers.

    Args:
      variables: those of an `Encoder` or a `Decoder`, or of a loaded one, named as Keras names
        them: `block1_conv1/kernel:0`, `block1_conv1/bias:0`, ...
    """
    arrays = {variable.name.split(":")[0]: variable.numpy() for variable in variables}
    names = [name.removesuffix("/kernel") for name in sorted(arrays) if name.endswith("/kernel")]
    return {n: layer_sha256(arrays[f"{n}/kernel"], arrays[f"{n}/bias"]) for n in names}


def joint_sha256(digests: Mapping[str, str]) -> str:
    """Returns one SHA-256 of what `digests_of` or `Weights.digests` returns, hexadecimal."""
    return hashlib.sha256("".join(digests.values()).encode()).hexdigest()


def save(
    path: str,
    layers: Mapping[str, tuple[np.ndarray, np.ndarray]],
    training: TrainingRecord | None = None,
) -> None:
    """Writes weights as an .h5 file in the layout of Keras' published VGG19 files.

    Args:
      path: the file to write; an existing one is replaced in one step.
      layers: for each convolution its (kernel, bias), as in `Weights`.
      training: how they were trained.
    """
    content = io.BytesIO()  # On a full disk, h5py itself raises errors that say nothing.
    with h5py.File(content, "w") as file:
        file.attrs["layer_names"] = list(layers)
        if training is not None:
            file.attrs["training"] = training.to_json()
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


def import_keras() -> types.ModuleType:
    """Imports Keras, which only downloads need.

    Raises:
      UserError: if its backend is not installed.
    """
    try:
        return importlib.import_module("keras")
    except ImportError as error:
        raise UserError(
            f"Keras cannot be imported ({_reason(error)}): unset KERAS_BACKEND, or `backend` in "
            "keras.json, or install that backend."
        ) from error


@functools.cache
def _imagenet():
    """Keras' ImageNet weights of all convolutions, downloaded, checked and cached by Keras."""
    keras = import_keras()
    if keras.config.floatx() != "float32":
        raise UserError(
            f"Keras is set to {keras.config.floatx()}: set `floatx` to float32 in its keras.json."
        )
    try:
        model = keras.applications.VGG19(include_top=False, weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception when a download fails.
        raise UserError(
            "keras.applications could not provide VGG19's ImageNet weights (it looks in the "
            f"`models` folder of its cache, then downloads): {_reason(error)}. Give a copy of "
            "the file with --weights=PATH, or build an untrained module with --weights=random."
        ) from error
    convolutions = vgg19.convolutions(vgg19.LAYERS[-1])
    return {c.name: tuple(model.get_layer(c.name).get_weights()) for c in convolutions}


def _random(convolutions: Sequence[vgg19.Convolution], seed: int):
    """He-normal kernels (K. He et al., arXiv 1502.01852) and zero biases.

    The same bits on every machine: the stream of a NumPy bit generator is fixed for good, while
    its normal variates may change with the release and with the C library's logarithm. So a
    variate is made of whole numbers: the sum of twelve uniform ones, with mean 6 and variance 1,
    is normal up to its tails, which end at six standard deviations. Each convolution has a stream
    of its own, so a kernel does not depend on how many layers are built.
    """
    if not 0 <= seed <= SEEDS:
        raise UserError(f"`seed` must be from 0 to 2^63 - 1. Received: {seed}.")
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


def identity(convolution: vgg19.Convolution) -> tuple[np.ndarray, np.ndarray]:
    """Returns the (kernel, bias) with which a convolution changes nothing; as many channels out."""
    kernel = np.zeros(convolution.kernel_shape, np.float32)
    kernel[1, 1] = np.eye(convolution.out_channels)
    return kernel, np.zeros(convolution.out_channels, np.float32)


def _from_file(path, convolutions, kind, earlier=()):
    """Reads weights; what the files of an earlier version all lack becomes the identity."""
    with _open(path, kind) as file:
        try:
            held = _arrays(file)
            training = file.attrs.get("training")
        except Exception as error:  # h5py raises nearly everything when a file is damaged.
            raise UserError(
                f"weights file {path}: unreadable ({_reason(error)}). Copy it again and compare "
                "its checksum."
            ) from error
        if "block3_conv3" in held and "block3_conv4" not in held:
            raise UserError(f"weights file {path}: these are VGG16's weights, not VGG19's.")
        absent = next((e for e in earlier if not any(c.name in held for c in e)), ())
        layers = {
            c.name: identity(c) if c in absent else _read_convolution(path, held, c, kind)
            for c in convolutions
        }
    try:
        record = None if training is None else TrainingRecord.from_json(training)
    except UserError as error:
        raise UserError(
            f"weights file {path}: its attribute `training` cannot be read ({one_line(error)}). "
            "Write the file anew with train_decoder.py."
        ) from error
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Weights(layers, "file", None, os.path.basename(path), sha256, record)


def _open(path, kind):
    """Opens the HDF5 file at a path, or the one within a .keras file."""
    path = os.fspath(path)
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # A pipe keeps its reader waiting.
            raise OSError("it is not a file")
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r")
        return h5py.File(path, "r")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"weights file {path}: {_why_unreadable(path, error, kind)}") from error


def _why_unreadable(path, error, kind):
    if not os.path.exists(path):
        return f"no such file. {_ADVICE[kind]['absent']}"
    if os.path.isdir(path):
        return "this is a folder. Pass a file in it."
    if not os.path.isfile(path):
        return "this is not a file, but a pipe or a device. Write it to a file first."
    if not os.access(path, os.R_OK):
        return "it may not be read. Change its permissions."
    if "unable to lock" in str(error):
        return "another process has it open for writing. Wait until it is done."
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        return "this is a pointer of Git LFS, not the file. Fetch it with `git lfs pull`."
    foreign = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".onnx", ".npz", ".pb", ".tflite")
    if path.endswith(foreign) or (head.startswith(b"PK") and not path.endswith(".keras")):
        return f"this is not a file of Keras. {_ADVICE[kind]['foreign']}"
    return (
        f"not a readable HDF5 file, or cut short ({_reason(error)}). Copy it again and compare "
        "its checksum."
    )


def _arrays(file):
    """Where the arrays of each layer in a file are: {layer: (group, names of kernel and bias)}.

    Keras' published files and `save` name a layer's group after it and list its arrays in
    `weight_names`, whose names differ between versions; the order, kernel before bias, does not.
    A model within a model has one group, whose names begin with those of its layers. Keras 3
    numbers the arrays, "0" and "1", in a group `vars` with the layer's name.
    """
    root = file.get("model_weights", file)  # Where Keras 2 puts the weights of a whole model.
    held = {}
    for layer, group in root.items():
        if "weight_names" not in group.attrs:
            continue
        names = [n if isinstance(n, str) else n.decode() for n in group.attrs["weight_names"]]
        held[layer] = (group, names)
        for name in names if len(names) > 2 else ():
            held.setdefault(name.rpartition("/")[0].rpartition("/")[2], (group, []))[1].append(name)

    def collect(path, group):
        if path.endswith("/vars") and "name" in group.attrs:
            held[group.attrs["name"]] = (group, sorted(group))

    file.visititems(collect)
    return held


def _read_convolution(path, held, convolution, kind):
    """Returns (kernel, bias) of one convolution."""
    where = f"weights file {path}, layer {convolution.name}"
    if convolution.name not in held:
        raise UserError(
            f"{where}: missing. {_ADVICE[kind]['incomplete']} "
            f"It holds: {', '.join(map(str, held)) or 'nothing'}."
        )
    shapes = (convolution.kernel_shape, (convolution.out_channels,))
    group, names = held[convolution.name]
    try:
        arrays = [group[name] for name in names]
        found = tuple(getattr(array, "shape", None) for array in arrays)
        if found != shapes:  # Such arrays are not read: they might be of any size.
            raise UserError(
                f"{where}: kernel and bias must have the shapes {shapes[0]} and {shapes[1]}. "
                f"Received: {', '.join(map(str, found)) or 'no weights'}."
            )
        if any(array.dtype.kind != "f" for array in arrays):
            raise UserError(
                f"{where}: kernel and bias must be floating point. "
                f"Received: {', '.join(str(array.dtype) for array in arrays)}."
            )
        with np.errstate(over="ignore"):  # What float32 cannot hold becomes infinite.
            kernel, bias = (np.asarray(array[()], np.float32) for array in arrays)
    except UserError:
        raise
    except Exception as error:  # h5py raises nearly everything when a file is damaged.
        raise UserError(
            f"{where}: unreadable ({_reason(error)}). Copy the file again and compare its checksum."
        ) from error
    for name, values in (("kernel", kernel), ("bias", bias)):
        if not np.isfinite(values).all():
            raise UserError(
                f"{where}: the {name} holds NaN or infinite values. Use an undamaged file."
            )
    return kernel, bias


def _reason(error):
    return one_line(error).rstrip(".")
