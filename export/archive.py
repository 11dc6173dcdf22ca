"""A SavedModel folder as a .tar.gz: the same bytes every time."""

import gzip
import io
import os
import pathlib
import re
import tarfile

from export import checksums
from unpooling.archive import FILES, FOLDER, MEMBERS, Archive
from unpooling.errors import UserError

__all__ = ["check_form", "describe", "pack"]

# What Python's gzip writes around the time: no name, no comment, slowest compression, no system.
_GZIP_HEADER = (b"\x1f\x8b\x08\x00", b"\x02\xff")
_LATEST = 2**32 - 1  # the last second that gzip can store


def pack(directory: str, path: str) -> None:
    """Packs a SavedModel folder; the bytes depend on the files' content alone.

    All times in the archive are 0, or what the environment variable SOURCE_DATE_EPOCH says
    (https://reproducible-builds.org/specs/source-date-epoch/).

    Args:
      directory: the SavedModel's folder.
      path: the .tar.gz to write; it must not exist.

    Raises:
      FileExistsError: if `path` exists.
      FileNotFoundError: if `directory` lacks a file of a SavedModel.
      UserError: if SOURCE_DATE_EPOCH is not a number of seconds.
    """
    contents = {name: pathlib.Path(directory, name).read_bytes() for name in FILES}
    time = _source_date_epoch()
    with (
        open(path, "xb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=time) as stream,
    ):
        stream.write(_tar(contents, time))


def describe(archive: Archive) -> dict:
    """Returns sizes and SHA-256 of an archive, of the tar within it and of each member.

    Returns:
      {"archive": {"bytes", "sha256", "source_date_epoch"}, "tar": {"bytes", "sha256"},
      "members": {name: {"bytes", "sha256"}}}, sizes in bytes, the time in seconds since 1970.
    """
    return {
        "archive": {
            "bytes": archive.size,
            "sha256": archive.sha256,
            "source_date_epoch": archive.time,
        },
        "tar": checksums.digest(archive.tar),
        "members": {name: checksums.digest(archive.members[name]) for name in FILES},
    }


def check_form(archive: Archive) -> None:
    """Compares an archive with what `pack` makes of the same files, apart from the compression.

    Other bytes (an owner, another time, something after the end) do no harm once the archive is
    unpacked, but nobody could rebuild them.

    Raises:
      UserError: if the archive is not in the form that `pack` gives it.
    """
    magic, end = _GZIP_HEADER
    in_form = 0 <= archive.time <= _LATEST and archive.tar == _tar(archive.members, archive.time)
    if not in_form or archive.header != magic + archive.time.to_bytes(4, "little") + end:
        raise UserError(
            f"archive {archive.path}: its {'gzip header' if in_form else 'tar'} is not in the form "
            "that this package writes, so it could not be rebuilt bit for bit. Make archives with "
            "build_encoder.py."
        )


def _source_date_epoch():
    value = os.environ.get("SOURCE_DATE_EPOCH") or "0"
    if not re.fullmatch(r"\d{1,10}", value, re.ASCII) or int(value) > _LATEST:
        raise UserError(
            "SOURCE_DATE_EPOCH must be a whole number of seconds since 1970, at most "
            f"{_LATEST}: correct or unset it. Received: {value!r}."
        )
    return int(value)


def _tar(contents, time):
    """The bytes of a tar of these files: fixed order and modes, no owner."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in MEMBERS:
            info = tarfile.TarInfo(name)
            info.mtime = time
            if name == FOLDER:
                info.type = tarfile.DIRTYPE
                info.mode = 0o755
                tar.addfile(info)
            else:
                info.mode = 0o644
                info.size = len(contents[name])
                tar.addfile(info, io.BytesIO(contents[name]))
    return stream.getvalue()
