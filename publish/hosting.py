"""What publishing on Kaggle and on Hugging Face have in common: what is sent, and how."""

import importlib
import logging
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Mapping

from absl import flags

from export import artifact, card, checksums, formats, licenses
from export.artifact import Artifact
from export.spec import Spec
from unpooling import archive
from unpooling.errors import UserError, one_line

__all__ = [
    "INTERRUPTED",
    "Host",
    "convert",
    "define_flags",
    "file_name",
    "notes",
    "publish",
    "readme",
    "unpack",
    "variation",
]

INTERRUPTED = "what was sent before is there; the command can be repeated."

# What follows the path of a URL. Whoever has that of an upload can write in the user's name.
_QUERY = re.compile(r"(?<=\S)\?[^\s'\")]+")


class Host:
    """A place where modules are published, by a client package.

    Subclasses have these methods:

      * `default(publisher, spec)` returns where a module goes if the user does not say;
      * `facts(client, place, found)` returns what is sent beside the files, by name;
      * `add_files(folder, found)` writes the module into a folder, in the forms that the host
        wants, and returns what else of `card.render` the host's card needs, by name;
      * `downloads(kind, place)` returns, for each of these forms, the Python expression that
        downloads it and returns where it is;
      * `upload(client, place, folder, facts)` sends a folder;
      * `errors()` returns the classes of what the client raises if it cannot reach the host or is
        refused.

    And these attributes:

      * name: for people;
      * key: for cards, one of `card.HOSTS`;
      * form: a regular expression for where a module goes there, and `wanted`, the same in words;
      * credentials: the page that says how the client finds the user's.
    """


def publish(host: Host, folder: str, place: str | None, dry_run: bool) -> None:
    """Sends an artifact to a host, or prints what would be sent.

    Args:
      host: where to.
      folder: the artifact's folder.
      place: where on that host; None for its default.
      dry_run: whether to print only.

    Raises:
      UserError: if the host's client is not installed, the artifact is not complete, `place` has
        another form, or the host could not be reached or refused. The call can be repeated. Other
        exceptions of the client are bugs and pass unchanged.
    """
    package = card.HOSTS[host.key]
    try:
        client = importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"this needs {package} ({error}): pip install {package}") from error
    found = artifact.read(folder)
    publisher, spec = found.page.publisher, found.spec
    place = place or host.default(publisher, spec)
    if not re.fullmatch(host.form, place, re.ASCII):
        raise UserError(f"{host.wanted}. Received: {place}.")
    places = {"encoder": host.default(publisher, spec.mate), spec.kind: place}
    downloads = {}
    for kind, where in places.items():
        for form, expression in host.downloads(kind, where).items():
            downloads.setdefault(form, {})[kind] = expression
    facts = host.facts(client, place, found)
    for name, fact in facts.items():
        print(f"{name}: {fact}")
    with tempfile.TemporaryDirectory(prefix="publish-") as contents:
        shown = host.add_files(contents, found)
        for ending in ("manifest.json", "png"):
            shutil.copy(found.path(ending), contents)
        text = readme(found, host.key, downloads, **shown)
        pathlib.Path(contents, "README.md").write_text(text, encoding="utf-8", newline="\n")
        checksums.write(contents, _files(contents))
        for name in _files(contents):
            print(f"{os.path.getsize(os.path.join(contents, name)):>13,} bytes  {name}")
        if dry_run:
            print(f"\nREADME.md:\n\n{text}\ndry run: nothing was sent")
            return
        try:
            host.upload(client, place, contents, facts)
        except Exception as error:
            causes = [error]  # The client may have wrapped what its connection raised.
            while causes[-1].__cause__ is not None:
                causes.append(causes[-1].__cause__)
            if not any(isinstance(cause, host.errors()) for cause in causes):
                raise
            reasons = (one_line(cause).rstrip(".") or type(cause).__name__ for cause in causes)
            reason = _QUERY.sub("?...", ": ".join(dict.fromkeys(reasons)))
            raise UserError(
                f"Upload of {place} to {host.name} failed: {reason}. The command can be repeated. "
                f"For credentials see {host.credentials}"
            ) from error
    print("done")


def variation(spec: Spec) -> str:
    """Returns what distinguishes the builds for a layer: "", "-int32", "-xla" or "-int32-xla"."""
    dtype = "-int32" if spec.index_dtype == "int32" else ""
    return dtype + ("-xla" if spec.engine == "xla" else "")


def readme(
    found: Artifact, key: str, downloads: Mapping[str, Mapping[str, str]], **shown: object
) -> str:
    """Returns an artifact's card as a host shows it, see `card.render`.

    It is rendered from the manifest, so changes made to the card by hand are not in it.
    """
    publication = card.publication(found.page, found.spec)
    return card.render(found.manifest, publication, key, downloads, **shown)


def unpack(found: Artifact, folder: str) -> None:
    """Writes the SavedModel of an artifact into an empty folder, which is made if need be."""
    os.makedirs(folder, exist_ok=True)
    archive.read(found.path("tar.gz")).unpack(folder)


def file_name(kind: str, form: str) -> str:
    """Returns the name of a converted module: "encoder.onnx" for "encoder" and "onnx"."""
    return f"{kind}{formats.FORMATS[form]}"


def convert(found: Artifact, form: str, path: str) -> None:
    """Converts the module of an artifact and compares the result with it.

    Args:
      found: the artifact.
      form: one of `formats.FORMATS`.
      path: the file to write; for "keras" also a folder.

    Raises:
      UserError: as `formats.convert`.
    """
    formats.convert(found.path("tar.gz"), form, path)


def notes(found: Artifact) -> str:
    """Returns in one line what a version of a module is made of, from its manifest."""
    page, stated, title = found.page, found.manifest, found.license.title
    if found.license.name == "cc-by-4.0":
        title += f" (VGG19's ImageNet weights are by {licenses.AUTHORS})"
    packages = ("unpooling-encoders", "tensorflow", "numpy", "python")
    versions = ", ".join(f"{name} {stated['versions'][name]}" for name in packages)
    return one_line(
        f"{page.name}/{page.version}{variation(found.spec)}; weights {found.source}, {title}; "
        f"{found.spec.archive_name} SHA-256 {stated['archive']['sha256']}; built with {versions}."
    )


def define_flags() -> None:
    """Defines the flags that both commands have, and silences the clients' logs."""
    flags.DEFINE_string("artifact", "dist/vgg19-block5-conv2", "The artifact's folder.")
    flags.DEFINE_bool("dry_run", False, "Whether to print what would be sent, and send nothing.")
    logging.disable(logging.WARNING)  # They name signed URLs when they try again.


def _files(folder):
    found = (path for path in pathlib.Path(folder).rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)
