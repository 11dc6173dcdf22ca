"""A SavedModel folder as a .tar.gz and back: the same bytes every time, and safe to unpack."""

import contextlib
import gzip
import itertools
import os
import shutil
import tarfile

__all__ = ["members", "pack", "unpack"]

# What a hub accepts: a SavedModel at the top of the archive and nothing beside it.
_FILES = ("fingerprint.pb", "saved_model.pb")
_FOLDER = "variables"
_VARIABLE_FILES = ("variables.data-00000-of-00001", "variables.index")


def members() -> tuple[str, ...]:
    """Returns the names of an archive's members, in their order."""
    return (*_FILES, _FOLDER, *(f"{_FOLDER}/{name}" for name in _VARIABLE_FILES))


def pack(directory: str, path: str) -> None:
    """Packs a SavedModel folder; the bytes depend on the files' content alone.

    Args:
      directory: the SavedModel's folder.
      path: the .tar.gz to write; it must not exist.

    Raises:
      FileNotFoundError: if `directory` lacks a member.
      FileExistsError: if `path` exists.
    """
    lacking = [
        name
        for name in members()
        if not (os.path.isdir if name == _FOLDER else os.path.isfile)(os.path.join(directory, name))
    ]
    if lacking:
        raise FileNotFoundError(f"{directory} lacks {', '.join(lacking)}: it is no SavedModel.")
    with (
        open(path, "xb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in members():
            info = tarfile.TarInfo(name)
            if name == _FOLDER:
                info.type = tarfile.DIRTYPE
                info.mode = 0o755
                tar.addfile(info)
                continue
            info.mode = 0o644
            with open(os.path.join(directory, name), "rb") as member:
                info.size = os.fstat(member.fileno()).st_size
                tar.addfile(info, member)


def unpack(path: str, directory: str) -> None:
    """Unpacks an archive made by `pack` into an empty folder.

    Nothing is written unless the archive has exactly the members of `pack`, each a plain file or
    folder: no links, no absolute or `..` names, nothing twice.

    Args:
      path: the .tar.gz to read.
      directory: an existing folder.

    Raises:
      ValueError: if `path` is not a gzip-compressed tar archive, is cut short, or has other
        members.
    """
    with _checked(path) as (tar, found):
        os.mkdir(os.path.join(directory, _FOLDER))
        for member in found:
            if member.name != _FOLDER:
                with open(os.path.join(directory, member.name), "xb") as file:
                    shutil.copyfileobj(tar.extractfile(member), file)


@contextlib.contextmanager
def _checked(path):
    """Gives the open archive and its members, once every byte and every name has been checked."""
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(gzip.open(path))
            # A tar reader stops at the tar's own end, before gzip has compared its checksum.
            while stream.read(1 << 20):
                pass
            stream.seek(0)
            tar = stack.enter_context(tarfile.open(fileobj=stream, mode="r:"))
            # One more than there may be: before Python 3.13.6 a negative size goes on for ever.
            found = list(itertools.islice(tar, len(members()) + 1))
        # A damaged tar makes `tarfile` raise ValueError, and worse, beside its own errors.
        except Exception as error:
            raise ValueError(
                f"archive {path}: not a complete gzip-compressed tar archive ({error})."
            ) from error
        names = [member.name for member in found]
        if sorted(names) != sorted(members()):
            raise ValueError(
                f"archive {path}: the members must be {', '.join(members())}. "
                f"Received: {', '.join(names) or 'none'}."
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
        yield tar, found
