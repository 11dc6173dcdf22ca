"""Checks an archive from scratch: its files, its graph, and what its module promises.

`python -m export.verify encoder.tar.gz` prints one line per check. Nothing of the archive is loaded
before its files and its graph have been checked.
"""

import contextlib
import dataclasses
import glob
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

from export.verify import decoder, encoder
from export.verify.files import Files, Skipped, check_weights
from export.verify.loaded import (
    check_gradients,
    check_signatures,
    check_variables,
    check_xla,
    load,
)
from unpooling import graph
from unpooling.errors import UserError, one_line

__all__ = ["Check", "run_in_fresh_process", "verify"]


@dataclasses.dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
      name: which one.
      outcome: "passed", "failed" or "skipped".
      detail: what was seen, or why not.
    """

    name: str
    outcome: str
    detail: str

    def __str__(self):
        outcome = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}[self.outcome]
        return f"{outcome:7} {self.name}: {self.detail}"


# The checks after one of these need it.
_NEEDED = "checksums members manifest graph loads variables signatures".split()


class _Stop(Exception):
    """A check has failed that the next ones need."""


def verify(path: str, manifest_path: str | None = None) -> Iterator[Check]:
    """Checks the archive at `path`, and the other files of an artifact as far as they are there.

    Turns TensorFlow's TF32 off for the process, and sets Keras to float32 and channels last.

    Args:
      path: an `encoder.tar.gz` or a `decoder.tar.gz`.
      manifest_path: the manifest to compare it with; by default the one beside it, named after the
        archive or the only one.

    Yields:
      A `Check` for each promise. If the files or the graph are wrong, or the SavedModel cannot be
      loaded, the rest is left out.

    Raises:
      UserError: if there is no such archive or manifest.
    """
    artifact = Files(pathlib.Path(path), manifest_path and pathlib.Path(manifest_path))
    with tempfile.TemporaryDirectory() as directory, contextlib.suppress(_Stop):
        yield from _check("checksums", artifact.check_checksums)
        archive = yield from _check("members", artifact.read_archive, directory)
        manifest = yield from _check("manifest", artifact.read_manifest, archive)
        yield from _check("graph", graph.check, directory)
        loaded = yield from _check("loads", load, directory)
        yield from _check("variables", check_variables, loaded)
        yield from _check("signatures", check_signatures, loaded)
        yield from _check("weights", check_weights, loaded, manifest)
        yield from _check("card", artifact.check_card, archive, loaded.spec, manifest)
        yield from _check("diagram", artifact.check_diagram, loaded.spec)
        kind = {"encoder": encoder, "decoder": decoder}[loaded.spec.kind]
        for name, function in kind.checks(loaded.spec).items():
            yield from _check(name, function, loaded)
        example = kind.example(loaded.spec)
        yield from _check("gradients", check_gradients, loaded, example)
        if loaded.spec.engine != "argmax":  # XLA cannot compile `tf.nn.max_pool_with_argmax`.
            yield from _check("XLA", check_xla, loaded, example)


def _check(name: str, function: Callable, *arguments: object):
    """Yields the outcome of a check, and returns what it read for the next ones, if anything.

    `function` returns what it found in words, or that and what it read.
    """
    value = None
    try:
        found = function(*arguments)
    except Skipped as reason:
        check = Check(name, "skipped", str(reason))
    except Exception as error:  # Whatever a broken archive makes TensorFlow raise.
        check = Check(name, "failed", one_line(error) or type(error).__name__)
    else:
        detail, value = found if isinstance(found, tuple) else (found, None)
        check = Check(name, "passed", detail)
    yield check
    if name in _NEEDED and check.outcome == "failed":
        raise _Stop
    return value


def run_in_fresh_process(path: str) -> None:
    """Runs `python -m export.verify` on the archive at `path` and prints its lines as they come.

    Temporary files go into the archive's folder, so that they are removed with it if it is
    temporary.

    Raises:
      UserError: if a check failed or was skipped; the message names those.
    """
    path = os.path.abspath(path)
    folder = os.path.dirname(path)
    # TensorFlow takes a path with special characters for a pattern.
    temporary = {"TMPDIR": folder} if glob.escape(folder) == folder else {}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "export.verify", path],
            cwd=pathlib.Path(__file__).parent.parent.parent,
            env=os.environ | temporary,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        not_passed = []
        with process:
            for line in process.stdout:
                print(f"  {line}", end="", flush=True)
                if not line.startswith("ok"):
                    not_passed.append(line.split(maxsplit=1)[1].strip())
        if process.returncode != 0 and not not_passed:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["no message"])[-1]
            not_passed.append(f"verification ended with status {process.returncode}: {last}")
    if not_passed:
        raise UserError(f"the built archive does not keep its contract: {'; '.join(not_passed)}")
