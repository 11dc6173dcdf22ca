"""The folder that an export leaves: made elsewhere, checked, and only then moved into place."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence

__all__ = ["staged"]


@contextlib.contextmanager
def staged(directory: str, names: Sequence[str], overwrite: bool) -> Iterator[str]:
    """Gives a temporary folder beside `directory`; moves the files into place at the end.

    If the body raises, nothing is moved and the temporary folder goes.

    Args:
      directory: where the files belong; made if it does not exist.
      names: the files that the body puts into the temporary folder, in the order of moving.
      overwrite: whether files of these names may be replaced.

    Yields:
      The temporary folder.

    Raises:
      FileExistsError: before anything is done, if one of the files exists and `overwrite` is not
        set.
      OSError: if a folder cannot be made, or a file cannot be moved.
    """
    taken = [name for name in names if os.path.lexists(os.path.join(directory, name))]
    if taken and not overwrite:
        raise FileExistsError(
            f"{directory} already holds {', '.join(taken)}: pass --overwrite to replace them, or "
            "choose another --output_dir."
        )
    if os.path.lexists(directory) and not os.path.isdir(directory):
        raise NotADirectoryError(f"{directory} is not a folder: choose another --output_dir.")
    folders = [name for name in taken if os.path.isdir(os.path.join(directory, name))]
    if folders:
        raise IsADirectoryError(f"in {directory}, {', '.join(folders)} must be a file: remove it.")
    parent = os.path.dirname(os.path.abspath(directory))
    os.makedirs(parent, exist_ok=True)
    staging = tempfile.mkdtemp(prefix=f".{os.path.basename(directory)}-", dir=parent)
    try:
        yield staging
        lacking = [name for name in names if not os.path.isfile(os.path.join(staging, name))]
        if lacking:
            raise FileNotFoundError(f"{', '.join(lacking)} was not made; nothing was moved.")
        os.makedirs(directory, exist_ok=True)
        for name in names:
            os.replace(os.path.join(staging, name), os.path.join(directory, name))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
