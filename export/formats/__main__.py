"""The check of `convert` in a process of its own: `python -m export.formats ARCHIVE FORMAT FILE`.

`float16` as a fourth argument allows for weights of half the bytes.
"""

import os
import sys

from unpooling.errors import UserError, one_line


def main(archive: str, format: str, path: str, *options: str) -> int:
    """Prints one line for each runtime, and returns the exit status."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    from export.formats import source
    from export.formats.check import check

    try:
        for line in check(source.read(archive), format, path, "float16" in options):
            print(f"ok      {line}", flush=True)
    except UserError as error:
        print(f"FAILED  {one_line(error)}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
