"""Loads a module from a folder, an archive or an address, without TensorFlow Hub."""

import contextlib
import glob
import hashlib
import os
import pathlib
import shutil
import tempfile
import urllib.parse

import tensorflow as tf

from unpooling import archive, graph
from unpooling.errors import UserError, one_line
from unpooling.weights import import_keras

__all__ = ["load"]

# What TensorFlow raises for damaged files, those of the variables and the graph.
_DAMAGED = (FileNotFoundError, LookupError, ValueError, AttributeError, tf.errors.OpError)


def load(path_or_url: str | os.PathLike, sha256: str | None = None) -> object:
    """Loads an encoder or a decoder that this project has exported.

    Loading a SavedModel executes its graph. So before anything is loaded, the archive must have
    exactly the members of a SavedModel, and the graph must hold only operations that encoders and
    decoders use: none that touches files, the network or Python.

    Args:
      path_or_url: the folder of an unpacked module, the path of its .tar.gz, or the http or https
        address of one. `keras.utils.get_file` downloads it once and caches it.
      sha256: the SHA-256 of the .tar.gz, in hexadecimal, or None to accept any. Pass it for a
        module from an address: a module's manifest and card state it.

    Returns:
      The loaded module. An encoder has `module(images)`, `module.compact(images)` and
      `module.features(images)`, a decoder `module(inputs)`; both have `variables`,
      `trainable_variables` and `signatures`. See `Encoder` and `Decoder` for shapes and ranges.

    Raises:
      UserError: if there is no module at this place, it has another SHA-256, or it is refused or
        damaged.
    """
    place = os.fspath(path_or_url)
    sha256 = sha256 and sha256.lower()
    if place.startswith(("http://", "https://")):
        return _load_url(place, sha256)
    if os.path.isdir(place):
        if sha256 is not None:
            raise UserError(
                f"`sha256` is that of an archive, but {place} is a folder: pass the .tar.gz."
            )
        return _load_folder(place, place)
    return _load_archive(place, path_or_url, sha256)


def _load_archive(path, name, sha256):
    """Loads the module in an archive; `name` is how the caller knows it."""
    packed = archive.read(path)
    if sha256 not in (None, packed.sha256):
        raise UserError(f"{name} must have the SHA-256 {sha256}. Received: {packed.sha256}.")
    # Python removes the folder, TensorFlow has read all of it by then.
    with tempfile.TemporaryDirectory() as directory:
        packed.unpack(directory)
        return _load_folder(directory, name)


def _load_url(url, sha256):
    """Loads the archive at a URL. What is refused does not stay in the cache."""
    path = _download(url, sha256)
    try:
        return _load_archive(path, url, sha256)
    except UserError as error:
        os.remove(path)
        reason = str(error).replace(path, url)
        raise UserError(f"{reason} The next call downloads it again.") from error


def _load_folder(directory, name):
    """Loads the module in a folder; `name` is how the caller knows it."""
    if not pathlib.Path(directory, "saved_model.pb").is_file():
        raise UserError(f"{name} holds no saved_model.pb: it is not a module.")
    try:
        graph.check(directory)
    except ValueError as error:
        raise UserError(f"{name} is refused: {one_line(error)}.") from error
    with contextlib.ExitStack() as stack:
        if glob.escape(directory) != directory:  # TensorFlow takes such a path for a pattern.
            copy = stack.enter_context(tempfile.TemporaryDirectory())
            directory = shutil.copytree(directory, copy, dirs_exist_ok=True)
        try:
            module = tf.saved_model.load(directory)
        except tf.errors.ResourceExhaustedError:
            raise
        except _DAMAGED as error:
            reason = one_line(str(error).partition("\n")[0])  # The next lines advise programmers.
            raise UserError(
                f"{name} is damaged or incomplete ({reason}). Copy or download it again and "
                "compare its checksum."
            ) from error
    # A function holds its variables by weak references: without these, those of
    # `load(path).compact(images)` would be gone before the call.
    functions = (getattr(module, name, None) for name in ("compact", "features"))
    for function in (*filter(None, functions), *module.signatures.values()):
        function.module = module
    return module


def _download(url, sha256):
    """Returns the path of the cached file of a URL."""
    # Keras caches by name, and every encoder has the same.
    name = os.path.basename(urllib.parse.urlsplit(url).path)
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"
    try:
        return import_keras().utils.get_file(
            name, url, file_hash=sha256, hash_algorithm="sha256", cache_subdir="unpooling"
        )
    except UserError:
        raise
    except Exception as error:  # Keras raises a bare Exception when a download fails.
        raise UserError(f"{url} cannot be downloaded: {one_line(error)}.") from error
