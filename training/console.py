"""Lines on the terminal."""

import contextlib
import datetime
import math
import sys
import time

__all__ = ["Bar", "say"]

_LENGTH = 40  # of a bar, in characters
_BETWEEN = 0.2  # seconds between two drawings of it


def say(line: str) -> None:
    """Prints a line at once; never raises, since no result may depend on whether it can be shown.

    What the encoding of the output lacks is escaped. If the output is closed or its disk is full,
    nothing is printed.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    with contextlib.suppress(OSError, ValueError):
        print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)


class Bar:
    """A bar on a terminal that shows what part of the work is done; nothing where there is none."""

    def __init__(self):
        self._started = time.monotonic()
        self._shown = -math.inf
        self._terminal = sys.stderr.isatty()

    def __call__(self, part: float) -> None:
        """Shows that this part is done, 0 to 1."""
        now = time.monotonic()
        if not self._terminal or not part or now - self._shown < _BETWEEN:
            return
        self._shown = now
        left = datetime.timedelta(seconds=round((now - self._started) * (1 / part - 1)))
        filled = "#" * round(_LENGTH * part)
        self._write(f"[{filled:.<{_LENGTH}}] {part:4.0%}, {left} left")

    def clear(self) -> None:
        """Removes the bar, for a line to be printed."""
        if self._terminal:
            self._write("")

    def _write(self, text):
        with contextlib.suppress(OSError, ValueError):
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
