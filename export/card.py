"""The card of a module: rendered from the templates in assets/, and checked."""

import re
from collections.abc import Iterator, Mapping

from export import checksums, hub_page, licenses, manifest, templates
from export.spec import Publication, Spec
from unpooling.archive import Archive
from unpooling.errors import UserError, one_line
from unpooling.weights import pretrained_decoders

__all__ = ["HOSTS", "check", "code_blocks", "publication", "render"]

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
    "file": "This image {kind} carries weights from a file",
}


def render(
    stated: Mapping,
    publication: Publication,
    host: str = "hub",
    downloads: Mapping[str, Mapping[str, str]] | None = None,
    reconstruction: float | None = None,
) -> str:
    """Returns a module's card, in Markdown.

    Args:
      stated: the module's manifest.
      publication: where it is published, by whom, as which version.
      host: the place where the card is shown, one of `HOSTS`.
      downloads: for another host than "hub": for each form of the module that is there,
        "saved_model" or one of `formats.FORMATS`, by kind, for a decoder both, the Python
        expression that downloads it and returns where it is.
      reconstruction: the mean absolute error of the picture beside the card, 0 to 255; None if
        there is no picture.
    """
    spec = manifest.spec_of(stated)
    weights = stated["weights"]
    training = weights["training"] or {}
    # What the weights were trained on, where that follows from their source.
    known = {"imagenet": "imagenet-ilsvrc-2012-cls", "random": "other"}
    dataset = known.get(weights["source"], publication.dataset)
    shipped = pretrained_decoders().get(spec.layer) if spec.kind == "decoder" else None
    urls = {s.kind: f'"{publication.url(s, s.archive_name)}"' for s in (spec, spec.mate)}
    downloads = downloads or {"saved_model": urls}
    values = {
        "spec": spec,
        "publication": publication,
        "archive": stated["archive"],
        "weights": weights,
        "file_name": _cell(weights["file_name"]),
        "dataset": dataset,
        "shipped": shipped and checksums.file_digest(shipped)["sha256"] == weights["file_sha256"],
        "license": licenses.of(stated, dataset),
        "authors": licenses.AUTHORS,
        "origin": (training.get("encoder") or weights).get("source"),
        "evaluation": training.get("evaluation") or {},
        "training": [(_cell(key), _cell(value)) for key, value in _flatten("", training)],
        "engine": _ENGINES.get(spec.engine),
        "host": host,
        "package": HOSTS[host],
        "downloads": downloads,
        "reconstruction": reconstruction,
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


def publication(page: hub_page.Page, spec: Spec) -> Publication:
    """Returns what a card says of where the module `spec` is published.

    Raises:
      UserError: if the hub does not accept it, or the card is that of another module.
    """
    if (page.kind, page.name) != ("Module", spec.name):
        raise UserError(
            f"the module's name must be {spec.name}, as the archive holds the {spec}. "
            f"Received: {page.kind} {page.name}."
        )
    asset_path, ending = page.metadata["asset-path"], f"/{spec.folder_name}/{spec.archive_name}"
    if not asset_path.endswith(ending):
        raise UserError(f"`asset-path` must end in {ending}. Received: {asset_path}.")
    asset_url = asset_path.removesuffix(ending)
    return Publication(page.publisher, page.version, asset_url, page.metadata["dataset"])


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
    dataset = publication(page, spec).dataset
    fixed = dict(_FIXED_METADATA)
    facts = [f"\n## {section}\n" for section in ("Overview", "Usage", "Training")]
    for row in spec.outputs:
        facts.append(f"| `{row['name']}` | {row['dtype']} | `{row['shape']}` |")
    facts += [
        f"`{spec.archive_name}`: {archive.size:,} bytes, SHA-256 `{archive.sha256}`.\n",
        f"{spec.variable_count} trainable variables with {spec.parameter_count:,} parameters",
    ]
    if spec.engine:
        facts.append(f"The maxima are found by {_ENGINES[spec.engine]}")
    if page.metadata["license"] == "custom":
        facts.append(licenses.AUTHORS)
    if stated is not None:
        fixed["license"] = licenses.of(stated, dataset).hub
        facts.append(_SOURCES[stated["weights"]["source"]].format(kind=spec.kind))
    for key, value in fixed.items():
        if page.metadata[key] != value:
            raise UserError(f"`{key}` must be {value}. Received: {page.metadata[key]}.")
    for fact in facts:
        if fact not in text:
            raise UserError(f"this, which follows from the archive, is missing: {fact.strip()}")


def code_blocks(text: str) -> list[str]:
    """Returns the Python code blocks of a Markdown text, in order."""
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
