"""What an artifact is made of, for a stranger who compares or rebuilds it: its manifest."""

import importlib.metadata
import json
import math
import os
import pathlib
import platform
import stat
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from export import __version__, checksums, spec
from unpooling import archive, vgg19

if TYPE_CHECKING:  # Whoever reads manifests need not wait for TensorFlow.
    from unpooling.weights import Weights

__all__ = ["check_archive", "check_model", "evaluation", "make", "read", "write"]

_VERSION = 1

# What decides on the bytes: of the model, of the compression, of the diagram, of the card.
_PACKAGES = ("tensorflow", "numpy", "protobuf", "matplotlib", "pillow", "jinja2")

_OBJECTS = ("archive", "tar", "members", "weights", "flags", "versions")
_LARGEST = 1 << 20  # bytes; what is longer is no manifest


def make(
    *,
    layer: str,
    weights: "Weights",
    archive_path: str,
    flags: Mapping[str, object],
    kind: str = "encoder",
    index_dtype: str | None = None,
    pooling: str | None = None,
) -> dict:
    """Returns the manifest of a built module; the same build gives the same manifest.

    docs/file-formats.md says what stands where.

    Args:
      layer: one of `vgg19.LAYERS`.
      weights: what the module was built from.
      archive_path: path of the finished archive.
      flags: the flags of the command that shape the artifact, without any path.
      kind: one of `spec.KINDS`.
      index_dtype: an encoder's, "int64" or "int32".
      pooling: what finds an encoder's maxima, "argmax" or "xla".
    """
    return {
        "manifest_version": _VERSION,
        **_model(kind, layer, index_dtype, pooling),
        **archive.describe(archive_path),
        "weights": {
            "source": weights.source,
            "seed": weights.seed,
            "file_name": weights.file_name,
            "file_sha256": weights.file_sha256,
            "training": weights.training,
            "layers": {
                name: checksums.layer_sha256(*arrays) for name, arrays in weights.layers.items()
            },
        },
        "flags": dict(flags),
        "versions": {
            "unpooling-encoders": __version__,
            "python": platform.python_version(),
            "zlib": zlib.ZLIB_RUNTIME_VERSION,
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }


def evaluation(training: Mapping | None) -> dict[str, float]:
    """Returns what the training of a decoder says of how good it is, as far as that is numbers.

    Args:
      training: as in `weights.Weights`.

    Returns:
      `photographs`, how many held out from training were measured, and the means over them:
      `error`, the mean absolute one of a pixel, 0 to 255, `clipped_error`, `psnr`, `ssim`; or some
      of these, or nothing.
    """
    found = training.get("evaluation") if isinstance(training, Mapping) else None
    if not isinstance(found, Mapping):
        return {}
    return {name: v for name, v in found.items() if type(v) in (int, float) and math.isfinite(v)}


def write(manifest: dict, path: str) -> None:
    """Writes a manifest as JSON, in the order of `make`."""
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    pathlib.Path(path).write_text(text, encoding="utf-8", newline="\n")


def read(path: str) -> dict:
    """Returns the manifest in the file at `path`.

    Raises:
      ValueError: if the file is not one that `write` could have written.
    """
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            raise OSError("it is a pipe")  # Which would be waited for.
        with open(path, "rb") as file:
            manifest = json.loads(file.read(_LARGEST))
    # RecursionError: brackets in brackets in brackets.
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"manifest {path}: not a readable JSON file ({error}).") from error
    version = manifest.get("manifest_version") if isinstance(manifest, dict) else None
    if version != _VERSION:
        raise ValueError(
            f"manifest {path}: `manifest_version` must be {_VERSION}. Received: {version!r:.80}."
        )
    for key in _OBJECTS:
        if not isinstance(manifest.get(key), dict):
            raise ValueError(
                f"manifest {path}: `{key}` must be an object. Received: {manifest.get(key)!r:.80}."
            )
    source = manifest["weights"].get("source")
    if source not in spec.SOURCES:
        raise ValueError(
            f"manifest {path}: the source of the weights must be one of "
            f"{', '.join(spec.SOURCES)}. Received: {source!r:.80}."
        )
    return manifest


def check_archive(manifest: dict, path: str) -> None:
    """Holds the archive at `path` against its manifest; nothing of it is loaded or unpacked.

    Raises:
      ValueError: names the first member that differs; or says that only the headers around the
        members do, or only the compression, which another version of zlib does differently.
    """
    found = archive.describe(path)
    for name, digest in found["members"].items():
        stated = manifest["members"].get(name)
        if digest != stated:
            raise ValueError(
                f"the member {name} differs: it has {digest}, the manifest says {stated!r:.120}"
            )
    if found["tar"] != manifest["tar"]:
        raise ValueError("the members are the manifest's, but not the tar's headers around them")
    if found["archive"] != manifest["archive"]:
        raise ValueError(
            "the tar is the manifest's, but compressed in another way; the manifest's was made "
            f"with zlib {manifest['versions'].get('zlib')!r:.20}"
        )


def check_model(
    manifest: dict,
    *,
    layer: str,
    weights: Mapping[str, tuple[np.ndarray, np.ndarray]],
    kind: str = "encoder",
    index_dtype: str | None = None,
    pooling: str | None = None,
) -> None:
    """Holds a loaded module against its manifest.

    Args:
      manifest: as `read` returns it.
      layer: the layer at which the encoder ends.
      weights: for each convolution its (kernel, bias), as `weights.load` returns them.
      kind: one of `spec.KINDS`.
      index_dtype: the dtype of an encoder's indices.
      pooling: what finds an encoder's maxima.

    Raises:
      ValueError: names what differs.
    """
    for key, value in _model(kind, layer, index_dtype, pooling).items():
        if manifest.get(key) != value:
            raise ValueError(f"`{key}` is {value}, the manifest says {manifest.get(key)!r:.80}")
    stated = manifest["weights"].get("layers")
    stated = stated if isinstance(stated, dict) else {}
    if list(stated) != list(weights):
        raise ValueError(
            f"the layers are {', '.join(weights)}, the manifest says {', '.join(stated):.200}"
        )
    for name, arrays in weights.items():
        if checksums.layer_sha256(*arrays) != stated[name]:
            raise ValueError(f"the weights of {name} are not those of the manifest")


def _model(kind, layer, index_dtype, pooling):
    """Which module it is. An encoder that pools nothing is the same whatever the last two say."""
    chooses = kind == "encoder" and len(vgg19.blocks_up_to(layer)) > 1
    return {
        "kind": kind,
        "layer": layer,
        "index_dtype": index_dtype if chooses else None,
        "pooling": pooling if chooses else None,
    }
