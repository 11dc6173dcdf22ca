"""Archives of modules, read once and safely: what a .tar.gz may hold before anything is loaded."""

import dataclasses
import hashlib
import io
import itertools
import os
import stat
import tarfile
import zlib

from unpooling import vgg19
from unpooling.errors import UserError, one_line

__all__ = ["FILES", "FOLDER", "MEMBERS", "Archive", "read"]

# A SavedModel at the top of the archive, and nothing beside it, in this order.
FOLDER = "variables"
MEMBERS = (
    "saved_model.pb",
    FOLDER,
    f"{FOLDER}/variables.data-00000-of-00001",
    f"{FOLDER}/variables.index",
)
FILES = tuple(name for name in MEMBERS if name != FOLDER)

# TensorFlow writes it, loads without it and checks nothing by it.
_TOLERATED = "fingerprint.pb"

# No archive unpacks to more: twice the parameters of the largest encoder, four bytes each.
_LARGEST = 2 * 4 * vgg19.count_parameters(vgg19.LAYERS[-1])

# The graph and the index of the variables are small, and parsing takes many times their size.
_LARGEST_SMALL = 4 << 20

# Of a header that says something of the next one, such as a long name.
_LARGEST_HEADER = 1 << 12


@dataclasses.dataclass(frozen=True)
class Archive:
    """The content of a module's .tar.gz.

    Attributes:
      path: the file.
      size: its bytes.
      sha256: their SHA-256, in hexadecimal.
      header: the ten bytes of gzip's header.
      tar: the tar within it.
      time: the modification time of the first member, in seconds since 1970.
      members: the content of each file, by name.
    """

    path: str
    size: int
    sha256: str
    header: bytes = dataclasses.field(repr=False)
    tar: bytes = dataclasses.field(repr=False)
    time: int
    members: dict[str, bytes] = dataclasses.field(repr=False)

    def unpack(self, directory: str) -> None:
        """Writes the files into an existing, empty folder."""
        os.mkdir(os.path.join(directory, FOLDER))
        for name, content in self.members.items():
            with open(os.path.join(directory, name), "xb") as file:
                file.write(content)


def read(path: str) -> Archive:
    """Reads an archive into memory. Nothing is written, nothing of it is loaded.

    Args:
      path: a .tar.gz.

    Raises:
      UserError: if there is no such file, it is not a complete gzip-compressed tar, it unpacks to
        more than any module takes, or its members are not exactly those of a SavedModel, each a
        plain file or folder: no links, no absolute or `..` names, nothing twice.
    """
    try:
        # Whoever opens a pipe waits for its other end.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("it is not a file")
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
        tar = _decompress(content)
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:", tarinfo=_Header) as reader:
            found = list(itertools.islice(reader, len(MEMBERS) + 2))
            _check_members(path, found)
            members = {m.name: reader.extractfile(m).read() for m in found if m.name in FILES}
            time = int(found[0].mtime)
    except UserError:
        raise
    # A damaged tar makes tarfile raise ValueError, and others, beside its own errors.
    except Exception as error:
        raise UserError(
            f"archive {path}: not a complete gzip-compressed tar archive ({one_line(error)})."
        ) from error
    return Archive(
        path=path,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        header=content[:10],
        tar=tar,
        time=time,
        members=members,
    )


class _Header(tarfile.TarInfo):
    """Refuses the sizes with which tarfile takes hours, or for ever.

    CVE-2024-6232 is mended in Python 3.11.10 and 3.12.6, CVE-2025-8194 in 3.13.6.
    """

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        header = super().frombuf(buf, encoding, errors)
        special = header.type not in (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE)
        if header.size < 0 or (special and header.size > _LARGEST_HEADER):
            raise OSError(f"a header states {header.size} bytes")
        return header


def _decompress(content):
    """Decompresses one gzip stream that nothing follows, up to the largest size of a module."""
    stream = zlib.decompressobj(wbits=31)
    tar = stream.decompress(content, _LARGEST + 1)
    if len(tar) > _LARGEST or len(content) > _LARGEST:
        raise OSError(f"it holds more than {_LARGEST:,} bytes, as no module does")
    if not stream.eof:
        raise EOFError("it is cut short")
    if stream.unused_data:
        raise OSError("something follows its end")
    return tar


def _check_members(path, found):
    names = [member.name for member in found if member.name != _TOLERATED]
    if sorted(names) != sorted(MEMBERS) or len(found) > len(names) + 1:
        received = ", ".join(member.name for member in found)
        raise UserError(
            f"archive {path}: the members must be {', '.join(MEMBERS)}. "
            f"Received: {one_line(received) or 'none'}."
        )
    for member in found:
        kind = tarfile.DIRTYPE if member.name == FOLDER else tarfile.REGTYPE
        # A sparse file is a plain one by its type, yet a few bytes of it unpack to any size.
        if member.type != kind or member.issparse():
            raise UserError(
                f"archive {path}: member {member.name} must be a plain "
                f"{'folder' if member.name == FOLDER else 'file'}, not a link, a device or a "
                "sparse file."
            )
        if member.size > _LARGEST_SMALL and not member.name.endswith(".data-00000-of-00001"):
            raise UserError(
                f"archive {path}: member {member.name} has {member.size:,} bytes, more than "
                f"{_LARGEST_SMALL:,}, as no module has."
            )
