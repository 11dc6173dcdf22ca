"""The command `python -m export.verify`."""

import argparse
import os
import sys

from unpooling.errors import UserError, one_line

__all__ = ["main"]

_STATUS = """\
exit status:
  0  every check passed
  1  a check failed
  2  wrong arguments, or no such file
  3  no check failed, but some were skipped (with --archive_only: 0)
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command, and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m export.verify",
        description="Checks an encoder's or a decoder's archive from scratch, and the files beside "
        "it: SHA256SUMS, manifest, card, diagram. Prints one line per check.",
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("archive", metavar="ARCHIVE", help="such as encoder.tar.gz")
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        help="the manifest to compare it with; by default the one beside the archive",
    )
    parser.add_argument(
        "--archive_only",
        action="store_true",
        help="accept an archive without the files beside it: skipped checks are no failure",
    )
    options = parser.parse_args(arguments)

    os.environ["KERAS_BACKEND"] = "tensorflow"  # Whatever the user's keras.json says.
    from export.verify.checks import verify  # Needs TensorFlow, which --help does not.

    checks = []
    try:
        for check in verify(options.archive, options.manifest):
            print(check, flush=True)
            checks.append(check)
    except UserError as error:
        print(f"export.verify: {one_line(error)}", file=sys.stderr)
        return 2
    outcomes = {check.outcome for check in checks}
    if "failed" in outcomes:
        return 1
    if "skipped" in outcomes and not options.archive_only:
        names = ", ".join(check.name for check in checks if check.outcome == "skipped")
        print(
            f"export.verify: nothing failed, but these checks were skipped: {names}. "
            "If you only have the archive, add --archive_only.",
            file=sys.stderr,
        )
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
