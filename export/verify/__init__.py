"""Reloads an archive as a stranger would and holds it against what its module promises.

    python -m export.verify PATH/TO/encoder.tar.gz [PATH/TO/encoder.manifest.json]

prints one line for each check; the exit status is 0 only if all of them passed. SHA256SUMS, the
manifest, the card and the diagram are checked too if they lie beside the archive. Nothing of the
archive is loaded before its files and its graph have been looked at. What a loaded module promises
is in `verify_encoder` and `verify_decoder`.
"""

import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from PIL import Image

from export import card, checksums, diagram, fingerprint, manifest
from export.verify import decoder, encoder
from export.verify.loaded import Subject, expect, plain
from unpooling import archive, graph, text, vgg19

__all__ = ["Check", "run_in_fresh_process", "verify"]


@dataclasses.dataclass(frozen=True)
class Check:
    """The outcome of one check: its name, whether it passed, and what was seen."""

    name: str
    passed: bool
    detail: str

    def __str__(self):
        return f"{'ok    ' if self.passed else 'FAILED'} {self.name}: {self.detail}"


def verify(path: str, manifest_path: str | None = None) -> Iterator[Check]:
    """Checks the archive at `path`, and what else of an artifact lies beside it.

    Args:
      path: an `encoder.tar.gz` or a `decoder.tar.gz`.
      manifest_path: the manifest to hold it against; by default the one beside it, if any.

    Yields:
      A `Check` for each promise. Once something is wrong with the files or the graph, or the
      SavedModel cannot be loaded, the rest is left out.
    """
    with tempfile.TemporaryDirectory() as directory:
        subject = Subject(path, manifest_path, directory)
        for name, function, needed in _checks(subject):
            try:
                check = Check(name, True, function(subject))
            except Exception as error:  # Whatever a broken archive makes TensorFlow raise.
                check = Check(name, False, text.one_line(error) or type(error).__name__)
            yield check
            if needed and not check.passed:
                return


def _checks(subject):
    yield from _FILES
    signatures, *others = {  # The kind is known by now.
        "encoder": encoder.CHECKS,
        "decoder": decoder.CHECKS,
    }[subject.kind]
    yield signatures
    yield from _VARIABLES
    yield from others
    yield from _PAGE


def run_in_fresh_process(path: str) -> None:
    """Runs `python -m export.verify` on the archive at `path` and prints its lines as they come.

    Temporary files go into the archive's folder, so that they vanish with it if it is one.

    Raises:
      ValueError: if a check failed; the message names the failed ones.
    """
    root = pathlib.Path(__file__).parent.parent.parent
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "export.verify", os.path.abspath(path)],
            cwd=root,
            env={**os.environ, "TMPDIR": os.path.dirname(os.path.abspath(path))},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        failed = []
        with process:
            for line in process.stdout:
                print(f"  {line}", end="", flush=True)
                if line.startswith("FAILED"):
                    failed.append(line.split(maxsplit=1)[1].strip())
        if process.returncode != 0 and not failed:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["no message"])[-1]
            failed.append(f"the check broke off with status {process.returncode}: {last}")
    if failed:
        raise ValueError(f"the built archive does not keep its contract: {'; '.join(failed)}")


def _checksums(subject):
    if not subject.beside(checksums.FILE):
        return "none beside the archive"
    folder, name = os.path.split(os.path.abspath(subject.path))
    return f"{', '.join(checksums.check(folder, needed=name))} as listed"


def _manifest(subject):
    path = subject.manifest_path or subject.beside(f"{_kind(subject.path)}.manifest.json")
    if not path:
        return "none beside the archive"
    subject.manifest = manifest.read(path)
    manifest.check_archive(subject.manifest, subject.path)
    return "archive, tar and members have the hashes it states"


def _kind(path):
    """What an archive is by its name, before anything of it has been read."""
    return "decoder" if os.path.basename(path).startswith("decoder") else "encoder"


def _members(subject):
    archive.unpack(subject.path, subject.directory)
    archive.check_form(subject.path)
    return ", ".join(archive.members())


def _fingerprint(subject):
    return f"fits the files, UUID {fingerprint.check(subject.directory)}"


def _graph(subject):
    return graph.check(subject.directory)


def _loads(subject):
    subject.loaded = tf.saved_model.load(subject.directory)
    names = [plain(v) for v in subject.loaded.variables]
    layers = [name.split("/")[0] for name in names if name.endswith("/kernel")] or [""]
    if layers[-1] in vgg19.LAYERS:
        subject.kind, subject.layer = "encoder", layers[-1]
        subject.blocks = vgg19.blocks_up_to(subject.layer)
        serving = subject.loaded.signatures["serving_default"].graph.as_graph_def()
        operations = {n.op for function in serving.library.function for n in function.node_def}
        has_argmax = "MaxPoolWithArgmax" in operations or len(subject.blocks) == 1
        subject.pooling = "argmax" if has_argmax else "xla"
        return f"an encoder up to {subject.layer}, {subject.pooling} pooling"
    mirrored = layers[0].removeprefix("decoder_")
    if mirrored != layers[0] and mirrored in vgg19.LAYERS:
        subject.kind, subject.layer = "decoder", mirrored
        subject.blocks = vgg19.mirror(subject.layer)
        return f"a decoder for {subject.layer}"
    raise ValueError(
        f"the last convolution of an encoder is one of {', '.join(vgg19.LAYERS)}, and so is the "
        f"first of a decoder, with decoder_ in front. Received: {', '.join(layers):.200}"
    )


def _variables(subject):
    expected = [
        (f"{c.name}/{part}", shape)
        for c in subject.convolutions
        for part, shape in (("kernel", c.kernel_shape), ("bias", (c.out_channels,)))
    ]
    for attribute in ("variables", "trainable_variables"):
        found = [(plain(v), tuple(v.shape)) for v in getattr(subject.loaded, attribute)]
        expect(found == expected, f"{attribute} are {found}")
    expect(all(v.trainable for v in subject.loaded.variables), "a variable is not trainable")
    expect(
        all(np.isfinite(v.numpy()).all() for v in subject.loaded.variables),
        "a variable holds NaN or infinite values",
    )
    losses = list(subject.loaded.regularization_losses)
    expect(losses == [], f"regularization_losses are {losses}")
    return f"{len(expected)} trainable, named after Keras' layers"


def _weights(subject):
    """Holds which encoder it is, and its weights, against the manifest."""
    if subject.manifest is None:
        return "no manifest states them"
    values = {plain(v): v.numpy() for v in subject.loaded.variables}
    manifest.check_model(
        subject.manifest,
        kind=subject.kind,
        layer=subject.layer,
        index_dtype=subject.index_dtype,
        pooling=subject.pooling,
        weights={
            c.name: (values[f"{c.name}/kernel"], values[f"{c.name}/bias"])
            for c in subject.convolutions
        },
    )
    source = subject.manifest["weights"]["source"]
    return f"those of {len(subject.convolutions)} layers as stated, source: {source}"


def _card(subject):
    path = subject.beside(f"{subject.kind}.md")
    if not path:
        return "none beside the archive"
    card.check(
        pathlib.Path(path).read_text(encoding="utf-8"),
        kind=subject.kind,
        layer=subject.layer,
        index_dtype=subject.index_dtype,
        pooling=subject.pooling,
        archive_path=subject.path,
        source=subject.manifest["weights"]["source"] if subject.manifest else None,
    )
    return "keeps the hub's rules and describes this archive"


def _diagram(subject):
    path = subject.beside(f"{subject.kind}.png")
    if not path:
        return "none beside the archive"
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        diagram.draw(subject.layer, file.name, subject.kind)
        with Image.open(file.name) as drawn, Image.open(path, formats=["PNG"]) as picture:
            # The size stands in front: no pixel of a picture that is too large is ever decoded.
            expect(picture.size == drawn.size, f"not the diagram of {subject.layer}")
            picture.load()
    return f"{picture.width}x{picture.height} pixels"


# (name, function, whether the rest needs it)
_FILES = (
    ("checksums", _checksums, True),
    ("manifest", _manifest, True),
    ("members", _members, True),
    ("fingerprint", _fingerprint, True),
    ("graph", _graph, True),
    ("loads", _loads, True),
)
_VARIABLES = (
    ("variables", _variables, True),
    ("weights", _weights, False),
)
_PAGE = (
    ("card", _card, False),
    ("diagram", _diagram, False),
)


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2):
        print(
            "usage: python -m export.verify PATH/TO/encoder.tar.gz [PATH/TO/encoder.manifest.json]",
            file=sys.stderr,
        )
        return 2
    passed = True
    for check in verify(*arguments):
        print(check, flush=True)
        passed = passed and check.passed
    return 0 if passed else 1
