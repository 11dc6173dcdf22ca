"""What the commands have in common: flags alone, and one line for what went wrong."""

import sys
from collections.abc import Callable

from absl import app, flags

from export import text

__all__ = ["fail", "run"]


def fail(name: str, reason: str) -> int:
    """Prints one line on stderr, `NAME: REASON`, and returns the exit status for it."""
    print(f"{name}: {text.one_line(reason)}", file=sys.stderr)
    return 1


def run(name: str, main: Callable[[], int]) -> None:
    """Parses the flags, runs `main` and exits with the status that it returns.

    Args:
      name: what the command is called in its messages.
      main: does the work; called only if the flags are right and no other arguments came.
    """

    def parse(argv):
        try:
            return flags.FLAGS(argv)
        except flags.Error as error:
            sys.exit(fail(name, str(error)))

    def checked(argv):
        if len(argv) > 1:
            received = " ".join(argv[1:])
            return fail(name, f"no arguments but flags are taken. Received: {received}.")
        return main()

    app.run(checked, flags_parser=parse)
