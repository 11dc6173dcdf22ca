"""Two folders change names in one step, which no kill and no power cut can find half-done."""

import ctypes
import os
import sys

__all__ = ["exchange"]

# (function, how it says "the working folder", the flag for an exchange), see renameat2(2) on
# Linux and renamex_np(2) on macOS. Python has neither.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_RENAME_SWAP = 2


def exchange(left: str, right: str) -> None:
    """Lets two existing files or folders of one file system change names, atomically.

    Raises:
      OSError: if one does not exist, or system or file system cannot do it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(left), os.fsencode(right)
    if sys.platform == "darwin":
        failed = libc.renamex_np(*paths, ctypes.c_uint(_RENAME_SWAP))
    elif hasattr(libc, "renameat2"):
        failed = libc.renameat2(
            _AT_FDCWD, paths[0], _AT_FDCWD, paths[1], ctypes.c_uint(_RENAME_EXCHANGE)
        )
    else:
        raise OSError(f"this system cannot exchange {left} and {right} in one step")
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), left, None, right)
