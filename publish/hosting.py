"""What goes to Kaggle and to Hugging Face: the unpacked SavedModel, and what there is to read."""

import contextlib
import logging
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping

from export import checksums
from publish import tree
from unpooling import archive, text

__all__ = ["contents", "explain", "hide_signatures", "listing", "notes", "readme"]

README = "README.md"

# Beside the SavedModel; a program that loads the folder passes them over.
_BESIDE = ("manifest.json", "png")

# What a decoder's card calls the places of the two halves.
_NAMES = {"encoder": "ENCODER_URL", "decoder": "DECODER_URL"}

# What follows the path of a URL. Who has that of an upload may write in the user's name.
_QUERY = re.compile(r"(?<=\S)\?[^\s'\")]+")


def readme(module: tree.Module, package: str, downloads: Mapping[str, str]) -> str:
    """Returns a module's card, made to be read beside the unpacked SavedModel on another hub.

    Args:
      module: an artifact.
      package: the package that downloads the SavedModel, as in `import PACKAGE`.
      downloads: for "encoder" and, with a decoder, "decoder" the Python expression that downloads
        it and returns its folder.

    Raises:
      ValueError: if the card lacks a line that has to be another one there.
    """
    kind = module.kind
    card = pathlib.Path(module.path("md")).read_text(encoding="utf-8")
    distribution = package.replace("_", "-")
    changes = {
        rf"# Module {re.escape(module.page.publisher)}/(\S+)/\d+\n": r"# \1\n",
        r"(?:<!-- [^\n]* -->\n)+\n": "",
        r'<img src="[^"\n]*" alt="([^"\n]*)" height="\d+">\n': rf"![\1]({kind}.png)\n",
        rf"(?=`{kind}\.tar\.gz`: )": "The SavedModel that lies here is the content of ",
        rf"`{kind}\.manifest\.json`, published beside it, ": f"`{kind}.manifest.json` ",
        r"# pip install (tensorflow .*)\n": rf"# pip install {distribution} \1\n",
        r"^import tensorflow as tf\n": f"import {package}\nimport tensorflow as tf\n",
    }
    names = {"encoder": "MODULE_URL"} if kind == "encoder" else _NAMES
    for half, name in names.items():
        changes[rf'{name} = ".*"\n'] = f"{name} = {downloads[half]}\n"
    for pattern, replacement in changes.items():
        card, count = re.subn(pattern, replacement, card, flags=re.MULTILINE)
        if count != 1:
            raise ValueError(
                f"the card of {module.folder} must hold one place of the form {pattern!r}, which "
                f"reads otherwise on another hub; it has {count}. Was it changed by hand?"
            )
    return card


def notes(module: tree.Module) -> str:
    """Returns in one line what a version of a module is made of, from its manifest."""
    stated = module.manifest
    weights, versions = stated["weights"], stated["versions"]
    made = [f"{module.kind} for VGG19 up to {stated['layer']}"]
    if stated["index_dtype"]:
        made.append(f"{stated['index_dtype']} indices")
    if stated["pooling"]:
        made.append(f"pooling by {stated['pooling']}")
    source = {
        "imagenet": "ImageNet weights by K. Simonyan and A. Zisserman, CC BY 4.0, from Keras",
        "random": f"untrained: random weights from seed {weights['seed']}",
        "file": f"weights from {weights['file_name']}, SHA-256 {weights['file_sha256']}",
    }[weights["source"]]
    tools = ", ".join(f"{name} {versions[name]}" for name in ("tensorflow", "numpy", "python"))
    return text.one_line(
        f"{module.page.name}/{module.page.version}: {', '.join(made)}; {source}; "
        f"{module.kind}.tar.gz SHA-256 {stated['archive']['sha256']}; built by unpooling-encoders "
        f"{versions['unpooling-encoders']} with {tools}."
    )


@contextlib.contextmanager
def contents(module: tree.Module, readme: str) -> Iterator[str]:
    """Makes the folder that is sent, as the value of a `with` statement; removes it in the end.

    It holds the SavedModel's files, so that it can be loaded as it is, and beside them README.md,
    the diagram, the manifest, and SHA256SUMS with the checksums of all of these.

    Args:
      module: an artifact.
      readme: the text of README.md.

    Raises:
      ValueError: if the archive cannot be unpacked.
    """
    with tempfile.TemporaryDirectory(prefix="publish-") as folder:
        archive.unpack(module.path("tar.gz"), folder)
        for path in map(module.path, _BESIDE):
            shutil.copyfile(path, os.path.join(folder, os.path.basename(path)))
        pathlib.Path(folder, README).write_text(readme, encoding="utf-8", newline="\n")
        checksums.write(folder, _files(folder))
        yield folder


def listing(folder: str, facts: Mapping[str, str]) -> str:
    """Returns, to be shown before it is sent, what a folder holds and where it goes.

    Args:
      folder: what `contents` made.
      facts: what else is sent, by name.
    """
    width = max(map(len, facts))
    lines = [f"{name:{width}}  {fact}" for name, fact in facts.items()]
    names = _files(folder)
    digests = {name: checksums.file_digest(os.path.join(folder, name)) for name in names}
    for name, digest in digests.items():
        lines.append(f"{digest['sha256']}  {digest['bytes']:>11,} bytes  {name}")
    total = sum(digest["bytes"] for digest in digests.values())
    lines.append(f"{len(names)} files, {total:,} bytes")
    return "\n".join(lines)


def explain(error: BaseException) -> str:
    """Returns what a client library's error says, and those beneath it, without signatures."""
    reasons = []
    while error is not None:
        reason = text.one_line(error).rstrip(".") or type(error).__name__
        if not any(reason in known for known in reasons):
            reasons.append(reason)
        error = error.__cause__
    return _QUERY.sub("?...", ": ".join(reasons))


def hide_signatures() -> None:
    """Takes the signatures of URLs out of all that libraries will log in this process."""
    make = logging.getLogRecordFactory()

    def make_without(*arguments, **keywords):
        record = make(*arguments, **keywords)
        record.msg, record.args = _QUERY.sub("?...", record.getMessage()), None
        return record

    logging.setLogRecordFactory(make_without)


def _files(folder):
    found = (path for path in pathlib.Path(folder).rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)
