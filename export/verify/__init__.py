"""Checks an archive from scratch: its files, its graph, and what its module promises.

`python -m export.verify encoder.tar.gz` prints one line per check. Nothing of the archive is loaded
before its files and its graph have been checked. `export.verify.checks` has the checks; nothing
here needs TensorFlow.
"""

import os
import pathlib
import subprocess
import sys

from unpooling.errors import UserError

__all__ = ["run_in_fresh_process"]


def run_in_fresh_process(path: str) -> None:
    """Runs `python -m export.verify` on the archive at `path` and prints its lines as they come.

    Raises:
      UserError: if a check failed or was skipped; the message names those.
    """
    not_passed = []
    with subprocess.Popen(
        [sys.executable, "-m", "export.verify", os.path.abspath(path)],
        cwd=pathlib.Path(__file__).parent.parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout:
            print(f"  {line}", end="", flush=True)
            if not line.startswith("ok"):
                not_passed.append(line.split(maxsplit=1)[1].strip())
    if process.returncode != 0:
        reasons = "; ".join(not_passed) or f"verification ended with status {process.returncode}"
        raise UserError(f"the built archive does not keep its contract: {reasons}")
