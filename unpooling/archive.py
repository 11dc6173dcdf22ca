"""A SavedModel folder as a .tar.gz and back: the same bytes every time, and safe to unpack."""

import contextlib
import gzip
import io
import itertools
import os
import pathlib
import re
import stat
import tarfile
import zlib

from export import checksums
from unpooling import text, vgg19

__all__ = ["check_form", "describe", "files", "members", "pack", "unpack"]

# What a hub accepts: a SavedModel at the top of the archive and nothing beside it.
_FOLDER = "variables"
_MEMBERS = (
    "fingerprint.pb",
    "saved_model.pb",
    _FOLDER,
    f"{_FOLDER}/variables.data-00000-of-00001",
    f"{_FOLDER}/variables.index",
)

# No archive unpacks to more: twice the parameters of the largest encoder, four bytes each.
_LIMIT = 2 * 4 * vgg19.count_parameters(vgg19.LAYERS[-1])

# The graph and the two indices are small, and reading a graph takes many times its size.
_SMALL_LIMIT = 4 << 20

# What Python's gzip writes around the time: no name, no comment, slowest compression, no system.
_GZIP_HEADER = (b"\x1f\x8b\x08\x00", b"\x02\xff")
_LATEST = 2**32 - 1  # the last second that gzip can tell


def members() -> tuple[str, ...]:
    """Returns the names of an archive's members, in their order."""
    return _MEMBERS


def files() -> tuple[str, ...]:
    """Returns the names of those members that are files, in their order."""
    return tuple(name for name in _MEMBERS if name != _FOLDER)


def pack(directory: str, path: str) -> None:
    """Packs a SavedModel folder; the bytes depend on the files' content alone.

    All times in the archive are 0, or what the environment variable SOURCE_DATE_EPOCH says
    (https://reproducible-builds.org/specs/source-date-epoch/).

    Args:
      directory: the SavedModel's folder.
      path: the .tar.gz to write; it must not exist.

    Raises:
      FileNotFoundError: if `directory` lacks a member.
      FileExistsError: if `path` exists.
      ValueError: if SOURCE_DATE_EPOCH is not a number of seconds.
    """
    lacking = [
        name
        for name in _MEMBERS
        if not (os.path.isdir if name == _FOLDER else os.path.isfile)(os.path.join(directory, name))
    ]
    if lacking:
        raise FileNotFoundError(f"{directory} lacks {', '.join(lacking)}: it is no SavedModel.")
    contents = {name: pathlib.Path(directory, name).read_bytes() for name in files()}
    time = _source_date_epoch()
    with (
        open(path, "xb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=time) as stream,
    ):
        stream.write(_tar(contents, time))


def unpack(path: str, directory: str) -> None:
    """Unpacks an archive made by `pack` into an empty folder.

    Nothing is written unless the archive has exactly the members of `pack`, each a plain file or
    folder: no links, no absolute or `..` names, nothing twice, nothing that grows beyond what an
    encoder takes.

    Args:
      path: the .tar.gz to read.
      directory: an existing folder.

    Raises:
      ValueError: if `path` is not a gzip-compressed tar archive, is cut short, has other members
        or is larger than any encoder.
    """
    _, _, contents = _read(path)
    os.mkdir(os.path.join(directory, _FOLDER))
    for name, content in contents.items():
        with open(os.path.join(directory, name), "xb") as file:
            file.write(content)


def describe(path: str) -> dict:
    """Returns sizes and SHA-256 of an archive, of the tar within it and of each member.

    Args:
      path: the .tar.gz to read.

    Returns:
      {"archive": {"bytes", "sha256", "source_date_epoch"}, "tar": {"bytes", "sha256"},
      "members": {name: {"bytes", "sha256"}}}, sizes in bytes, the time in seconds since 1970.

    Raises:
      ValueError: as `unpack`.
    """
    tar, time, contents = _read(path)
    return {
        "archive": {**checksums.file_digest(path), "source_date_epoch": time},
        "tar": checksums.digest(tar),
        "members": {name: checksums.digest(contents[name]) for name in files()},
    }


def check_form(path: str) -> None:
    """Holds an archive against what `pack` makes of the same files, compression apart.

    Other bytes (an owner, a time of its own, something after the end) can do no harm once the
    archive is unpacked, but nobody could rebuild them.

    Args:
      path: the .tar.gz to read.

    Raises:
      ValueError: as `unpack`, or if the archive is not in the form that `pack` gives it.
    """
    tar, time, contents = _read(path)
    with open(path, "rb") as file:
        header = file.read(10)
    magic, end = _GZIP_HEADER
    in_form = tar == _tar(contents, time) if 0 <= time <= _LATEST else False
    if not in_form or header != magic + time.to_bytes(4, "little") + end:
        raise ValueError(
            f"archive {path}: its {'gzip header' if in_form else 'tar'} is not in the form that "
            "this package writes, so it could not be rebuilt bit for bit. Make archives with "
            "build_encoder.py."
        )


def _source_date_epoch():
    value = os.environ.get("SOURCE_DATE_EPOCH") or "0"
    if not re.fullmatch(r"\d{1,10}", value, re.ASCII) or int(value) > _LATEST:
        raise ValueError(
            "SOURCE_DATE_EPOCH must be a whole number of seconds since 1970, at most "
            f"{_LATEST}: correct or unset it. Received: {value!r}."
        )
    return int(value)


def _tar(contents, time):
    """The bytes of a tar of these files: fixed order and modes, no owner."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in _MEMBERS:
            info = tarfile.TarInfo(name)
            info.mtime = time
            if name == _FOLDER:
                info.type = tarfile.DIRTYPE
                info.mode = 0o755
                tar.addfile(info)
            else:
                info.mode = 0o644
                info.size = len(contents[name])
                tar.addfile(info, io.BytesIO(contents[name]))
    return stream.getvalue()


def _read(path):
    """The tar within an archive, its time and its files, once every byte has been checked."""
    with _damage_named(path):
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is a folder, a device or the like")
        compressed = pathlib.Path(path).read_bytes() if status.st_size <= _LIMIT else b""
        stream = zlib.decompressobj(wbits=31)  # gzip, with its checksum and length compared
        tar = stream.decompress(compressed, _LIMIT)
        too_large = status.st_size > _LIMIT or stream.unconsumed_tail
        if not too_large and (not stream.eof or stream.unused_data):
            raise EOFError("something follows its end" if stream.eof else "it is cut short")
    if too_large:
        raise ValueError(f"archive {path}: holds more than {_LIMIT:,} bytes, as no encoder does.")
    _check_headers(path, tar)
    with contextlib.ExitStack() as stack:
        with _damage_named(path):
            reader = stack.enter_context(tarfile.open(fileobj=io.BytesIO(tar), mode="r:"))
            # One more than there may be: before Python 3.13.6 a negative size goes on for ever.
            found = list(itertools.islice(reader, len(_MEMBERS) + 1))
        _check_members(path, found)
        with _damage_named(path):
            contents = {m.name: reader.extractfile(m).read() for m in found if m.name != _FOLDER}
            return tar, int(found[0].mtime), contents


@contextlib.contextmanager
def _damage_named(path):
    # A damaged tar makes `tarfile` raise ValueError, and worse, beside its own errors.
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"archive {path}: not a complete gzip-compressed tar archive ({text.one_line(error)})."
        ) from error


def _check_headers(path, tar):
    """Refuses long extended headers: before Python 3.11.10 `tarfile` takes hours over them.

    See CVE-2024-6232. Blocks of a file's content that look like such a header are rarer than any
    other damage: they would have to hold their own checksum.
    """
    extended = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
    for start in range(0, len(tar) - tarfile.BLOCKSIZE + 1, tarfile.BLOCKSIZE):
        if tar[start + 156 : start + 157] in extended:
            block = tar[start : start + tarfile.BLOCKSIZE]
            with contextlib.suppress(tarfile.HeaderError):
                header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                # `tarfile` takes a negative size for all that is left.
                if not 0 <= header.size <= tarfile.BLOCKSIZE:
                    raise ValueError(
                        f"archive {path}: an extended header of {header.size:,} bytes; the "
                        "members of an encoder need none."
                    )


def _check_members(path, found):
    names = [member.name for member in found]
    if sorted(names) != sorted(_MEMBERS):
        raise ValueError(
            f"archive {path}: the members must be {', '.join(_MEMBERS)}. "
            f"Received: {text.one_line(', '.join(names)) or 'none'}."
        )
    for member in found:
        kind = tarfile.DIRTYPE if member.name == _FOLDER else tarfile.REGTYPE
        # A sparse file is a plain one by its type, yet a few bytes of it unpack to any size.
        if member.type != kind or member.issparse() or member.size < 0:
            raise ValueError(
                f"archive {path}: member {member.name} must be a plain "
                f"{'folder' if member.name == _FOLDER else 'file'}, not a link, a device or "
                "a sparse file."
            )
        if member.size > _SMALL_LIMIT and not member.name.endswith(".data-00000-of-00001"):
            raise ValueError(
                f"archive {path}: member {member.name} has {member.size:,} bytes, more than "
                f"{_SMALL_LIMIT:,}, as no encoder has."
            )
