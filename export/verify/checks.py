"""All checks of an archive, in order."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Iterator

from export.verify import decoder, encoder, files, loaded
from unpooling import graph
from unpooling.errors import UserError, one_line

__all__ = ["Check", "verify"]


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
    for each in filter(None, (path, manifest_path)):
        if not pathlib.Path(each).is_file():
            folder = pathlib.Path(each).is_dir()
            raise UserError(
                f"{each}: {'a folder: pass a file in it' if folder else 'no such file'}."
            )
    path = pathlib.Path(path).absolute()
    with tempfile.TemporaryDirectory() as directory, contextlib.suppress(_Stop):
        yield from _check("checksums", files.check_checksums, path)
        archive = yield from _check("members", files.read_archive, path, directory)
        manifest = yield from _check("manifest", files.read_manifest, path, manifest_path, archive)
        yield from _check("graph", graph.check, directory)
        module = yield from _check("loads", loaded.load, directory)
        spec = module.spec
        yield from _check("variables", loaded.check_variables, module)
        yield from _check("signatures", loaded.check_signatures, module)
        yield from _check("weights", files.check_weights, module, manifest)
        yield from _check("card", files.check_card, path, archive, spec, manifest)
        yield from _check("diagram", files.check_diagram, path, spec)
        kind = {"encoder": encoder, "decoder": decoder}[spec.kind]
        for name, function in kind.checks(spec).items():
            yield from _check(name, function, module)
        example = kind.example(spec)
        yield from _check("gradients", loaded.check_gradients, module, example)
        if spec.engine != "argmax":  # XLA cannot compile `tf.nn.max_pool_with_argmax`.
            yield from _check("XLA", loaded.check_xla, module, example)


def _check(name: str, function: Callable, *arguments: object):
    """Yields the outcome of a check, and returns what it read for the next ones, if anything.

    `function` returns what it found in words, or that and what it read.
    """
    value = None
    try:
        found = function(*arguments)
    except files.Skipped as reason:
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
