"""Lines on the terminal."""

import contextlib
import sys

__all__ = ["say"]


def say(line: str) -> None:
    """Prints a line at once; never raises, since no result may depend on whether it can be shown.

    What the encoding of the output lacks is escaped. If the output is closed or its disk is full,
    nothing is printed.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    with contextlib.suppress(OSError, ValueError):
        print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)
