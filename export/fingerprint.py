"""The fingerprint of a SavedModel: written anew, with a UUID that seals the model's content.

TensorFlow draws the UUID at random. Here it is a hash of everything else, so two builds have the
same one, and damage to any file of the model shows before anything is loaded.
"""

import hashlib
import os
import pathlib

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import fingerprint_pb2

# Not public, yet the only way to the fingerprint of a SavedModel that was changed on the disk.
from tensorflow.python.saved_model import fingerprinting_utils

from unpooling import archive

__all__ = ["check", "write"]

_FILE = "fingerprint.pb"


def write(directory: str) -> None:
    """Writes the fingerprint of the SavedModel in `directory`, in place of any that is there."""
    fingerprinting_utils.write_fingerprint(directory)
    fingerprint = _read(directory)
    fingerprint.uuid = _uuid(fingerprint, directory)
    pathlib.Path(directory, _FILE).write_bytes(fingerprint.SerializeToString(deterministic=True))


def check(directory: str) -> str:
    """Holds the files of a SavedModel against its fingerprint, without loading anything.

    Args:
      directory: the SavedModel's folder, with all files of an archive.

    Returns:
      The UUID.

    Raises:
      ValueError: if the fingerprint was not made from these files by `write`.
    """
    fingerprint = _read(directory)
    in_form = fingerprint.SerializeToString(deterministic=True)
    if (
        fingerprint.uuid != _uuid(fingerprint, directory)
        or pathlib.Path(directory, _FILE).read_bytes() != in_form
    ):
        raise ValueError(
            f"{_FILE} does not fit {', '.join(_others())}: a file is damaged, or the archive was "
            "not made by build_encoder.py."
        )
    return fingerprint.uuid


def _read(directory):
    fingerprint = fingerprint_pb2.FingerprintDef()
    try:
        fingerprint.ParseFromString(pathlib.Path(directory, _FILE).read_bytes())
    except DecodeError as error:
        raise ValueError(f"{_FILE} is not a fingerprint ({error}).") from error
    return fingerprint


def _uuid(fingerprint, directory):
    """128 bits, in decimal as TensorFlow writes them, of a hash of all other fields and files."""
    unsigned = fingerprint_pb2.FingerprintDef()
    unsigned.CopyFrom(fingerprint)
    unsigned.ClearField("uuid")
    digest = hashlib.sha256(unsigned.SerializeToString(deterministic=True))
    for name in _others():
        content = pathlib.Path(directory, name).read_bytes()
        digest.update(hashlib.sha256(content).digest())
    return str(int.from_bytes(digest.digest()[:16], "big"))


def _others():
    return [name for name in archive.files() if os.path.basename(name) != _FILE]
