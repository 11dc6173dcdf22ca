"""The folder that an export leaves: made elsewhere, checked, and only then put in its place.

At every moment, whatever befalls the process, the folder holds the artifact that was there before
or the complete new one.
"""

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence

from export.exchange import exchange

__all__ = ["staged"]


@contextlib.contextmanager
def staged(directory: str, names: Sequence[str], overwrite: bool) -> Iterator[str]:
    """Gives a temporary folder beside `directory`; at the end its files get there, all at once.

    If the body raises, nothing is put in place and the temporary folder goes. If the process is
    killed, the temporary folder stays until the next call for this `directory` succeeds. Files of
    other names in `directory` are kept.

    Args:
      directory: where the files belong; made if it does not exist.
      names: the files that the body puts into the temporary folder; they may lie in sub-folders.
      overwrite: whether files of these names may be replaced.

    Yields:
      The temporary folder. What else the body leaves in it goes with it.

    Raises:
      FileExistsError: if one of the files exists and `overwrite` is not set; before anything is
        done, or at the end if it has come up meanwhile.
      OSError: if a folder cannot be made or written to, or a file cannot be put in place; if
        `directory` exists on a file system that cannot exchange two folders.
    """
    directory = os.path.realpath(directory)
    parent = os.path.dirname(directory)
    _check_target(directory, names, overwrite)
    made = _missing_folders(parent)
    try:
        os.makedirs(parent, exist_ok=True)
        prefix = f".{os.path.basename(directory)}.staging-"
        with contextlib.ExitStack() as stack:
            with _locked(parent):
                staging = tempfile.mkdtemp(prefix=prefix, dir=parent)
                stack.callback(_remove, staging)
                # Held until the process ends, so that others can tell it from litter.
                stack.enter_context(_locked(staging))
            if os.path.isdir(directory):
                _try_exchange(staging, directory, names)
            yield staging
            _put_in_place(staging, directory, names, overwrite)
        with _locked(parent):
            _remove_litter(parent, prefix)
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # Fails, as it should, where something was put into it.


def _check_target(directory, names, overwrite):
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
    if os.path.ismount(directory):
        raise OSError(f"{directory} is a mount point: choose a folder in it as --output_dir.")
    if os.path.isdir(directory) and not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"{directory} may not be written to: choose another --output_dir.")


def _missing_folders(path):
    """Which of a folder and its parents have to be made, the innermost first."""
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def _try_exchange(staging, directory, names):
    """Finds out before the long work, not after it, whether the end will succeed."""
    left, right = (tempfile.mkdtemp(dir=staging) for _ in range(2))
    _take_along(directory, left, names)
    try:
        exchange(left, right)
    except OSError as error:
        raise OSError(
            f"the file system of {directory} cannot exchange two folders in one step "
            f"({error.strerror or error}): remove {directory} first, or choose another "
            "--output_dir."
        ) from error
    _remove(left)
    _remove(right)


def _put_in_place(staging, directory, names, overwrite):
    lacking = [name for name in names if not os.path.isfile(os.path.join(staging, name))]
    if lacking:
        raise FileNotFoundError(f"{', '.join(lacking)} was not made; nothing was put in place.")
    # A name that the body cannot have taken, and the mode that the umask gives a folder.
    complete = os.path.join(tempfile.mkdtemp(dir=staging), "complete")
    os.mkdir(complete)
    for name in names:
        os.makedirs(os.path.dirname(os.path.join(complete, name)), exist_ok=True)
        os.rename(os.path.join(staging, name), os.path.join(complete, name))
    with _locked(os.path.dirname(directory)):
        _check_target(directory, names, overwrite)
        if os.path.isdir(directory):
            _take_along(directory, complete, names)
            _sync(complete, names)
            exchange(complete, directory)
            _take_latecomers(complete, directory, names)
        else:
            _sync(complete, names)
            os.rename(complete, directory)
        _sync_folder(os.path.dirname(directory))


def _take_along(directory, complete, names):
    """Gives the strangers' files in `directory` a second name in `complete`."""

    def ignore(folder, entries):
        beginning = os.path.relpath(folder, directory)
        return [e for e in entries if os.path.normpath(os.path.join(beginning, e)) in names]

    try:
        shutil.copytree(
            directory,
            complete,
            symlinks=True,
            ignore=ignore,
            copy_function=os.link,
            dirs_exist_ok=True,
        )
    except shutil.Error as error:
        path, _, reason = error.args[0][0]
        raise OSError(
            f"{path} cannot be kept beside the new files ({reason}): move it away, or choose "
            "another --output_dir."
        ) from error


def _take_latecomers(old, directory, names):
    """Moves over what a stranger put into the old folder in the last moment."""
    for name in os.listdir(old):
        if name not in names and not os.path.lexists(os.path.join(directory, name)):
            os.rename(os.path.join(old, name), os.path.join(directory, name))


def _sync(folder, names):
    """Waits until a folder and its files are on the disk: a rename may overtake their content."""
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            os.fsync(file.fileno())
    for path, _, _ in os.walk(folder):
        _sync_folder(path)


def _sync_folder(folder):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(folder, wait=True):
    """Takes the lock on a folder and holds it; the system frees it when the process ends.

    Raises:
      BlockingIOError: if another process holds it and `wait` is not set.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _remove_litter(parent, prefix):
    """Removes the temporary folders of processes that were killed."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        is_ours = re.fullmatch(re.escape(prefix) + r"[a-z0-9_]{8}", name)  # As mkdtemp names them.
        if not is_ours or os.path.islink(path) or not os.path.isdir(path):
            continue
        # Its process is at work, or it is another user's, or it has just gone.
        with contextlib.suppress(OSError), _locked(path, wait=False):
            _remove(path)


def _remove(folder):
    for path, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            os.chmod(path, 0o700)  # A folder that may not be written to keeps its files.
    shutil.rmtree(folder, ignore_errors=True)
