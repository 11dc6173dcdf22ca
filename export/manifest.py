"""What an artifact is made of, so that anybody can compare or rebuild it: its manifest."""

import importlib.metadata
import json
import os
import pathlib
import platform
import zlib
from collections.abc import Mapping

from export.archive import describe
from export.spec import Spec
from unpooling import __version__, options
from unpooling.archive import Archive
from unpooling.errors import UserError
from unpooling.training_record import TrainingRecord
from unpooling.weights import Weights

__all__ = ["check_archive", "check_module", "make", "read", "spec_of", "training_of", "write"]

_VERSION = 1

# What determines the bytes of the module and the card.
_PACKAGES = ("tensorflow", "numpy", "protobuf", "jinja2")

_OBJECTS = ("archive", "tar", "members", "weights", "flags", "versions")
_LARGEST = 1 << 20  # bytes; what is longer is no manifest


def make(spec: Spec, weights: Weights, archive: Archive, flags: Mapping[str, object]) -> dict:
    """Returns the manifest of a built module; the same build gives the same manifest.

    docs/file-formats.md describes its fields.

    Args:
      spec: which module it is.
      weights: what it was built from.
      archive: the finished archive.
      flags: the flags of the command that shape the artifact, without any path.
    """
    training = weights.training
    return {
        "manifest_version": _VERSION,
        **_stated(spec),
        **describe(archive),
        "weights": {
            "source": weights.source,
            "seed": weights.seed,
            "file_name": weights.file_name,
            "file_sha256": weights.file_sha256,
            "training": None if training is None else training.to_dict(),
            "layers": weights.digests,
        },
        "flags": dict(flags),
        "versions": {
            "unpooling-encoders": __version__,
            "python": platform.python_version(),
            "zlib": zlib.ZLIB_RUNTIME_VERSION,
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }


def write(manifest: dict, path: str) -> None:
    """Writes a manifest as JSON, in the order of `make`."""
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    pathlib.Path(path).write_text(text, encoding="utf-8", newline="\n")


def read(path: str) -> dict:
    """Returns the manifest in the file at `path`.

    Raises:
      UserError: if the file is not one that `write` could have written.
    """
    try:
        if not os.path.isfile(path):  # A pipe would be waited for.
            raise OSError("there is no such file")
        with open(path, "rb") as file:
            manifest = json.loads(file.read(_LARGEST))
    # RecursionError: brackets in brackets in brackets.
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"manifest {path}: not a readable JSON file ({error}).") from error
    try:
        _check(manifest)
    except UserError as error:
        raise UserError(f"manifest {path}: {error}") from error
    return manifest


def _check(manifest):
    version = manifest.get("manifest_version") if isinstance(manifest, dict) else None
    if version != _VERSION:
        raise UserError(f"`manifest_version` must be {_VERSION}. Received: {version!r:.80}.")
    for key in _OBJECTS:
        if not isinstance(manifest.get(key), dict):
            raise UserError(f"`{key}` must be an object. Received: {manifest.get(key)!r:.80}.")
    weights = manifest["weights"]
    if weights.get("source") not in options.SOURCES or not isinstance(weights.get("layers"), dict):
        raise UserError(
            f"`weights` must have a `source`, one of {', '.join(options.SOURCES)}, and `layers`, "
            f"an object. Received: {weights.get('source')!r:.80}, {weights.get('layers')!r:.80}."
        )
    spec, training = spec_of(manifest), training_of(manifest)
    if training is not None and training.layer != spec.layer:
        raise UserError(
            f"it is that of the {spec}, but its weights were trained for {training.layer:.80}."
        )


def spec_of(manifest: Mapping) -> Spec:
    """Returns which module a manifest describes.

    Raises:
      UserError: if it names none.
    """
    spec = Spec(
        manifest.get("kind"),
        manifest.get("layer"),
        manifest.get("index_dtype") or "int64",
        manifest.get("pooling") or "argmax",
    )
    if _stated(spec) != {key: manifest.get(key) for key in _stated(spec)}:
        raise UserError(f"`index_dtype` and `pooling` do not suit {spec.name}.")
    return spec


def training_of(manifest: Mapping) -> TrainingRecord | None:
    """Returns how the weights were trained, as far as a manifest says.

    Raises:
      UserError: if what it says is not a training record.
    """
    training = manifest["weights"].get("training")
    return None if training is None else TrainingRecord.from_dict(training)


def check_archive(manifest: Mapping, archive: Archive) -> None:
    """Compares an archive with its manifest.

    Raises:
      UserError: names the first member that differs; or says that only the headers around the
        members do, or only the compression, which another version of zlib does differently.
    """
    found = describe(archive)
    for name, digest in found["members"].items():
        stated = manifest["members"].get(name)
        if digest != stated:
            raise UserError(
                f"the member {name} differs: it has {digest}, the manifest says {stated!r:.120}"
            )
    if found["tar"] != manifest["tar"]:
        raise UserError("the members are the manifest's, but not the tar's headers around them")
    if found["archive"] != manifest["archive"]:
        raise UserError(
            "the tar is the manifest's, but compressed in another way; the manifest's was made "
            f"with zlib {manifest['versions'].get('zlib')!r:.20}"
        )


def check_module(manifest: Mapping, spec: Spec, digests: Mapping[str, str]) -> None:
    """Compares a loaded module with its manifest.

    Args:
      manifest: as `read` returns it.
      spec: which module was loaded.
      digests: for each of its convolutions the `layer_sha256`.

    Raises:
      UserError: names what differs.
    """
    stated = spec_of(manifest)
    if stated != spec:
        raise UserError(f"the module is the {spec}, the manifest is that of the {stated}")
    layers = manifest["weights"]["layers"]
    if list(layers) != list(digests):
        raise UserError(
            f"the layers are {', '.join(digests)}, the manifest says {', '.join(layers):.200}"
        )
    for name, digest in digests.items():
        if digest != layers[name]:
            raise UserError(f"the weights of {name} are not those of the manifest")


def _stated(spec):
    """A spec by the keys of a manifest, where the engine has the name of its flag."""
    return {
        "kind": spec.kind,
        "layer": spec.layer,
        "index_dtype": spec.index_dtype,
        "pooling": spec.engine,
    }
