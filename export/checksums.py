"""Checksums of files, and SHA256SUMS, which `sha256sum -c` reads."""

import hashlib
import os
import pathlib
import re
from collections.abc import Sequence

from unpooling.errors import UserError

__all__ = ["FILE", "check", "digest", "file_digest", "read", "write"]

FILE = "SHA256SUMS"

_LARGEST = 1 << 16  # characters; what is longer is no list of a few files

# No slash: nothing outside the folder is ever read.
_LINE = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<name>[\w-][\w.-]*)", re.ASCII)


def digest(content: bytes) -> dict[str, int | str]:
    """Returns {"bytes": size, "sha256": in hexadecimal}."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def file_digest(path: str) -> dict[str, int | str]:
    """Returns the `digest` of a file's content."""
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": sha256}


def write(directory: str, names: Sequence[str]) -> None:
    """Writes the checksums of the files `names` of `directory` into its SHA256SUMS."""
    lines = [
        f"{file_digest(os.path.join(directory, name))['sha256']}  {name}\n"
        for name in sorted(names)
    ]
    pathlib.Path(directory, FILE).write_text("".join(lines), encoding="ascii", newline="\n")


def read(directory: str) -> dict[str, str]:
    """Returns what the SHA256SUMS of `directory` lists: {name: SHA-256}.

    Raises:
      UserError: if the list is in another form, or names a file twice or outside the folder.
    """
    if not os.path.isfile(os.path.join(directory, FILE)):  # A pipe would be waited for.
        raise UserError(f"{FILE} is not a file")
    try:
        with open(os.path.join(directory, FILE), encoding="ascii") as file:
            lines = file.read(_LARGEST).splitlines()
    except ValueError as error:
        raise UserError(f"{FILE} is not text in ASCII ({error})") from error
    matches = [_LINE.fullmatch(line) for line in lines]
    if not all(matches):
        line = lines[matches.index(None)]
        raise UserError(f"{FILE} must hold lines of `SHA-256  NAME`. Received: {line!r:.100}")
    listed = {match["name"]: match["sha256"] for match in matches}
    if len(listed) != len(lines):
        names = ", ".join(match["name"] for match in matches)
        raise UserError(f"{FILE} must list each file once. Received: {names:.200}")
    return listed


def check(directory: str, needed: str) -> list[str]:
    """Compares the files of `directory` with its SHA256SUMS.

    Files that are listed but not there are passed over, as `sha256sum --ignore-missing` does.

    Args:
      directory: a folder with a SHA256SUMS.
      needed: the name of a file that must be listed.

    Returns:
      The names of the files that were compared.

    Raises:
      UserError: if a file differs, `needed` is not listed, or the list is in another form.
    """
    listed = read(directory)
    if needed not in listed:
        raise UserError(f"{FILE} must list {needed}. Received: {', '.join(listed):.200}")
    present = [name for name in listed if os.path.isfile(os.path.join(directory, name))]
    for name in present:
        sha256 = file_digest(os.path.join(directory, name))["sha256"]
        if sha256 != listed[name]:
            raise UserError(f"{name} has the SHA-256 {sha256}, not the listed {listed[name]}")
    return present
