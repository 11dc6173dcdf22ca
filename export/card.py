"""The card of a module: rendered from the templates in assets/, and checked.

`hub_page` has the rules that a hub sets for any page.
"""

import re
from collections.abc import Iterator, Mapping

from export import hub_page, licenses, manifest, templates
from export.spec import Publication, Spec
from unpooling.archive import Archive
from unpooling.errors import UserError, one_line

__all__ = ["HOSTS", "check", "code_blocks", "render"]

# Where a card is shown, and the package that downloads the module from there.
HOSTS = {"hub": None, "kaggle": "kagglehub", "huggingface": "huggingface_hub"}

_FIXED_METADATA = {
    "task": "image-feature-vector",
    "fine-tunable": "true",
    "format": "saved_model_2",
    "network-architecture": "vgg-style",
}
_ENGINES = {
    "argmax": "`tf.nn.max_pool_with_argmax`",
    "xla": "operations that XLA compiles",
}
# The first words of a card on the weights, as card.md has them.
_SOURCES = {
    "imagenet": "This image {kind} carries VGG19's ImageNet weights.\n",
    "random": "**This module is untrained: its weights are random.**",
    "file": "This image {kind} carries weights from a file of its publisher",
}
# What they were trained on, where that follows.
_DATASETS = {"imagenet": "imagenet-ilsvrc-2012-cls", "random": "other"}
_SECTIONS = ("## Overview", "## Usage", "## Training")


def render(
    stated: Mapping,
    publication: Publication,
    host: str = "hub",
    downloads: Mapping[str, str] | None = None,
) -> str:
    """Returns a module's card, in Markdown.

    Args:
      stated: the module's manifest.
      publication: where it is published, by whom, as which version.
      host: the place where the card is shown, one of `HOSTS`.
      downloads: for another host than "hub": by kind, for a decoder both, the Python expression
        that downloads the SavedModel and returns its folder.
    """
    spec = manifest.spec_of(stated)
    weights = stated["weights"]
    training = weights["training"] or {}
    dataset = _DATASETS.get(weights["source"], publication.dataset)
    urls = {s.kind: f'"{publication.url(s, s.archive_name)}"' for s in (spec, spec.mate)}
    values = {
        "spec": spec,
        "publication": publication,
        "archive": stated["archive"],
        "weights": weights,
        "file_name": _cell(weights["file_name"]),
        "dataset": dataset,
        "license": licenses.of(stated, dataset),
        "authors": licenses.AUTHORS,
        "origin": (training.get("encoder") or weights).get("source"),
        "evaluation": training.get("evaluation") or {},
        "training": [(_cell(key), _cell(value)) for key, value in _flatten("", training)],
        "engine": _ENGINES.get(spec.engine),
        "host": host,
        "package": HOSTS[host],
        "urls": downloads or urls,
    }
    return templates.environment().get_template(spec.file("md")).render(values)


def _flatten(beginning: str, values: Mapping) -> Iterator[tuple[str, object]]:
    """Yields the leaves of nested dictionaries, each with the keys that lead to it."""
    for key, value in values.items():
        name = f"{beginning} {key}".strip()
        if isinstance(value, Mapping):
            yield from _flatten(name, value)
        elif value is not None:
            yield name, f"{value:.6g}" if isinstance(value, float) else value


def _cell(value: object) -> str:
    """Makes text of a stranger's file safe in a cell of a table, in backticks or not."""
    return re.sub(r"[^\w .,:;/()+=-]", "_", one_line(value))[:120]


def check(text: str, spec: Spec, archive: Archive, stated: Mapping | None = None) -> None:
    """Checks a card against the hub's rules and against the archive that it describes.

    Args:
      text: the card.
      spec: what the archive holds.
      archive: the archive.
      stated: its manifest, which says where the weights come from; None if there is none.

    Raises:
      UserError: says which rule the card breaks, or which fact is not the archive's.
    """
    page = hub_page.read(text)
    if (page.kind, page.name) != ("Module", spec.name):
        raise UserError(
            f"the module's name must be {spec.name}, as the archive holds the {spec.kind} for "
            f"{spec.layer}. Received: {page.kind} {page.name}."
        )
    lines = text.split("\n")
    for section in _SECTIONS:
        if section not in lines:
            raise UserError(f"the section `{section}` is missing.")
    if not page.description.endswith("."):
        raise UserError(
            "the first line must be followed by a one-sentence description. "
            f"Received: {page.description!r:.120}."
        )
    _check_metadata(page.metadata, spec, stated)
    for fact in _facts(spec, archive, page.metadata, stated):
        if fact not in text:
            raise UserError(f"this, which follows from the archive, is missing: {fact.strip()}")
    for block in code_blocks(text):
        try:
            compile(block, "card", "exec")
        except SyntaxError as error:
            raise UserError(f"a Python code block does not compile: {error}.") from error


def _facts(spec, archive, metadata, stated):
    for row in spec.outputs:
        yield f"| `{row['name']}` | {row['dtype']} | `{row['shape']}` |"
    yield f"`{spec.archive_name}`: {archive.size:,} bytes, SHA-256 `{archive.sha256}`.\n"
    yield f"{spec.variable_count} trainable variables with {spec.parameter_count:,} parameters"
    if spec.engine:
        yield f"The maxima are found by {_ENGINES[spec.engine]}"
    if metadata["license"] == ["custom"]:
        yield licenses.AUTHORS
    if stated is not None:
        yield _SOURCES[stated["weights"]["source"]].format(kind=spec.kind)


def _check_metadata(metadata, spec, stated):
    expected = dict(_FIXED_METADATA)
    if set(metadata) != {"asset-path", "dataset", "license", *expected}:
        raise UserError(
            f"the metadata must be asset-path, dataset, license, {', '.join(sorted(expected))}. "
            f"Received: {', '.join(sorted(metadata))}."
        )
    if stated is not None:
        (dataset,) = metadata["dataset"]
        expected["license"] = licenses.of(stated, dataset).hub
    for key, value in expected.items():
        if metadata[key] != [value]:
            raise UserError(f"`{key}` must be {value}. Received: {', '.join(metadata[key])}.")
    ending = f"/{spec.folder_name}/{spec.archive_name}"
    (asset_path,) = metadata["asset-path"]
    if not asset_path.endswith(ending):
        raise UserError(f"`asset-path` must end in {ending}. Received: {asset_path}.")


def code_blocks(text: str) -> list[str]:
    """Returns the Python code blocks of a Markdown text, in order."""
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
