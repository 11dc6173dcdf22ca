"""A folder that is made elsewhere and put in place by renaming: whole or not at all."""

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence

from unpooling.errors import UserError

__all__ = ["staged"]

_YOUNG = 60  # seconds


@contextlib.contextmanager
def staged(
    directory: str, names: Sequence[str], overwrite: bool, flag: str = "--output_dir"
) -> Iterator[str]:
    """Yields a temporary folder beside `directory`; at the end its files become that folder.

    The folder at `directory` holds the files of the last complete call or does not exist, never a
    mixture. If the body raises, nothing changes. If the process is killed between the two renames
    at the end, the old folder is left beside `directory`, and the next call puts it back. The
    temporary folder of a process that was killed is removed by a later call.

    Args:
      directory: where the files belong; made if it does not exist.
      names: the files that the body writes into the temporary folder; others are removed.
      overwrite: whether an existing folder may be replaced.
      flag: the flag that says where, for the messages.

    Raises:
      UserError: before anything is done, if `directory` exists and `overwrite` is not set, is not
        a folder, or holds anything but these files; or if it cannot be made.
      FileNotFoundError: if the body did not write one of the files.
    """
    directory = os.path.realpath(directory)
    parent, name = os.path.split(directory)
    _restore(directory)
    _check_target(directory, names, overwrite, flag)
    made = _missing_folders(parent)
    try:
        try:
            os.makedirs(parent, exist_ok=True)
            prefix = f".{name}.partial-"
            _remove_abandoned(os.path.join(parent, prefix))
            temporary = tempfile.mkdtemp(prefix=prefix, dir=parent)
        except OSError as error:
            reason = f"cannot be made ({error.strerror}): choose another {flag}."
            raise UserError(f"{directory} {reason}") from error
        lock = contextlib.ExitStack()
        try:
            with contextlib.suppress(OSError):  # Not every file system locks folders.
                lock.enter_context(_locked(temporary))
            yield temporary
            complete = os.path.join(temporary, "complete")
            os.mkdir(complete)  # With the mode that the umask gives, unlike the temporary folder.
            for file in names:
                os.rename(os.path.join(temporary, file), os.path.join(complete, file))
            _sync(complete, names)
            _check_target(directory, names, overwrite, flag)
            _swap(complete, directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            lock.close()
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # Fails, as it should, where something was put into it.


@contextlib.contextmanager
def _locked(folder):
    """Locks a folder, or raises OSError if another process has. The lock ends with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned(prefix):
    """Removes the temporary folders that nobody has locked any more."""
    for folder in glob.glob(f"{glob.escape(prefix)}*"):
        with contextlib.suppress(OSError):
            # A young one may be about to be locked.
            if time.time() - os.stat(folder).st_mtime > _YOUNG:
                with _locked(folder):
                    shutil.rmtree(folder)


def _check_target(directory, names, overwrite, flag):
    if not os.path.lexists(directory):
        return
    if not os.path.isdir(directory) or os.path.ismount(directory):
        raise UserError(f"{directory} is not a folder, or is a mount point: choose another {flag}.")
    held = sorted(os.listdir(directory))
    if others := [name for name in held if name not in names]:
        raise UserError(
            f"{directory} holds {others[0]}, which is not part of an artifact: move it away, or "
            f"choose another {flag}."
        )
    if held and not overwrite:
        raise UserError(
            f"{directory} already holds {', '.join(held)}: pass --overwrite to replace them, or "
            f"choose another {flag}."
        )


def _missing_folders(path):
    """Returns the folders on the way to `path` that do not exist, the innermost first."""
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def _swap(complete, directory):
    """Puts a folder in the place of another, which is removed."""
    try:
        if os.path.isdir(directory):
            os.rename(directory, _old_name(directory))
        os.rename(complete, directory)
        _sync(os.path.dirname(directory), [])
    finally:
        _restore(directory)  # Also if a signal comes between the two renames.


def _old_name(directory):
    return os.path.join(os.path.dirname(directory), f".{os.path.basename(directory)}.old")


def _restore(directory):
    """Puts the old folder back if no new one has taken its place, else removes it."""
    old = _old_name(directory)
    if os.path.isdir(old) and not os.path.lexists(directory):
        os.rename(old, directory)
    shutil.rmtree(old, ignore_errors=True)


def _sync(folder, names):
    """Waits until a folder and its files are on the disk: a rename may overtake their content."""
    for path in (*(os.path.join(folder, name) for name in names), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
