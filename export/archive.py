"""A SavedModel folder as a .tar.gz and back: the same bytes every time, and safe to unpack."""

import gzip
import os
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
    try:
        with tarfile.open(path, mode="r:gz") as tar:
            found = tar.getmembers()
            names = [member.name for member in found]
            if sorted(names) != sorted(members()):
                raise ValueError(
                    f"archive {path}: the members must be {', '.join(members())}. "
                    f"Received: {', '.join(names) or 'none'}."
                )
            for member in found:
                right_kind = member.isdir() if member.name == _FOLDER else member.isreg()
                if not right_kind:
                    raise ValueError(
                        f"archive {path}: member {member.name} must be a plain "
                        f"{'folder' if member.name == _FOLDER else 'file'}, not a link or device."
                    )
            os.mkdir(os.path.join(directory, _FOLDER))
            for member in found:
                if member.isreg():
                    with open(os.path.join(directory, member.name), "xb") as file:
                        _copy(tar.extractfile(member), file)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, OSError) as error:
        raise ValueError(
            f"archive {path}: not a complete gzip-compressed tar archive ({error})."
        ) from error


def _copy(source, target):
    while chunk := source.read(1 << 20):
        target.write(chunk)
