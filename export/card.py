"""The card that a hub shows for a module: made from the template in assets/, and checked.

What the hub demands of any page is in `hub_page`.
"""

import pathlib
import re
from typing import TYPE_CHECKING

import jinja2

from export import checksums, hub_page, manifest, spec
from unpooling import text as text_module
from unpooling import vgg19

if TYPE_CHECKING:  # Whoever checks cards need not wait for TensorFlow.
    from unpooling.weights import Weights

__all__ = ["check", "code_blocks", "outputs", "render"]

_ASSETS = pathlib.Path(__file__).parent.parent / "assets"

_FIXED_METADATA = {
    "task": "image-feature-vector",
    "fine-tunable": "true",
    "format": "saved_model_2",
    "network-architecture": "vgg-style",
    "license": "mit",
}
_ENGINES = {
    "argmax": "`tf.nn.max_pool_with_argmax`",
    "xla": "operations that XLA compiles",
}
# How the card begins to say where the weights came from, in the templates' words.
_SOURCES = {
    "imagenet": "This image {kind} carries VGG19's ImageNet weights.\n",
    "random": "**This module is untrained: its weights are random.**",
    "file": "This image {kind} carries weights from a file of its publisher",
}
# What they were trained on, where that follows.
_DATASETS = {"imagenet": "imagenet-ilsvrc-2012-cls", "random": "other"}
_SECTIONS = ("## Overview", "## Usage", "## Training")


def outputs(layer: str, index_dtype: str) -> list[dict[str, str]]:
    """Returns name, dtype and shape of each output of the encoder that ends at `layer`."""
    blocks = vgg19.blocks_up_to(layer)
    divisor = "" if len(blocks) == 1 else f"/{vgg19.downsampling(layer)}"
    shape = f"(B, H{divisor}, W{divisor}, {blocks[-1].channels})"
    rows = [{"name": "features", "dtype": "float32", "shape": shape}]
    for block in blocks:
        if block.pooled:
            # Up to its pooling, block k has quartered the map k times: C * H/2^k * W/2^k winners.
            shape = f"(B * H * W * {block.channels // 4**block.number}, 4)"
            rows.append({"name": block.indices_name, "dtype": index_dtype, "shape": shape})
    return rows


def render(
    kind: str,
    *,
    layer: str,
    weights: "Weights",
    archive_path: str,
    publisher: str,
    model_version: int,
    asset_url: str,
    dataset: str,
    index_dtype: str | None = None,
    pooling: str | None = None,
) -> str:
    """Returns the card of a built module, in Markdown.

    Args:
      kind: one of `spec.KINDS`.
      layer: one of `vgg19.LAYERS`.
      weights: what the module was built from.
      archive_path: path of the finished archive; its size and SHA-256 go into the card.
      publisher: the hub's name for the publisher: lower-case letters, digits, hyphens.
      model_version: a whole number from 1.
      asset_url: where the artifacts' folders will lie, those of encoders and of decoders.
      dataset: what weights from a file were trained on, a dataset tag of the hub; "other" if it
        is not known. For other weights it follows from their source.
      index_dtype: of an encoder, "int64" or "int32".
      pooling: what finds an encoder's maxima, "argmax" or "xla".
    """
    folders = {k: f"{asset_url.rstrip('/')}/{vgg19.artifact_name(layer, k)}" for k in spec.KINDS}
    blocks = vgg19.blocks_up_to(layer)
    values = {
        "layer": layer,
        "weights": weights,
        "publisher": publisher,
        "model_version": model_version,
        "dataset": _DATASETS.get(weights.source, dataset),
        "pooled": [block for block in blocks if block.pooled],
        "downsampling": vgg19.downsampling(layer),
        "variable_count": 2 * len(vgg19.convolutions(layer, kind)),
        "parameter_count": vgg19.count_parameters(layer, kind),
        "asset_path": f"{folders[kind]}/{kind}.tar.gz",
        "picture_url": f"{folders[kind]}/{kind}.png",
        "archive": checksums.file_digest(archive_path),
    }
    if kind == "encoder":
        values |= {
            "name": vgg19.encoder_name(layer),
            "pooling": pooling,
            "engine": _ENGINES[pooling],
            "channels": blocks[-1].channels,
            "outputs": outputs(layer, index_dtype),
        }
    else:
        training = weights.training or {}
        values |= {
            "name": vgg19.decoder_name(layer),
            "encoder_name": vgg19.encoder_name(layer),
            "encoder_path": f"{folders['encoder']}/encoder.tar.gz",
            "inputs": outputs(layer, "int64 or int32"),
            "evaluation": manifest.evaluation(training),
            "training": [(_cell(key), _cell(value)) for key, value in _flatten("", training)],
        }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ASSETS),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML; every value is checked or computed here.
    )
    return environment.get_template(f"{kind}.md").render(values)


def _flatten(beginning, values):
    """The leaves of nested dictionaries, with the names on the way to them."""
    for key, value in values.items():
        name = f"{beginning} {key}".strip()
        if isinstance(value, dict):
            yield from _flatten(name, value)
        else:
            yield name, f"{value:.6g}" if isinstance(value, float) else value


def _cell(value):
    """Of a stranger's file: made fit for a cell of a table, in or out of backticks."""
    return re.sub(r"[^\w .,:;/()+=-]", "_", text_module.one_line(value))[:120]


def check(
    text: str,
    *,
    layer: str,
    archive_path: str,
    kind: str = "encoder",
    index_dtype: str | None = None,
    pooling: str | None = None,
    source: str | None = None,
) -> None:
    """Holds a card against the hub's rules and against the archive it describes.

    Args:
      text: the card.
      layer: the layer at which the encoder ends.
      archive_path: path of the archive.
      kind: what the archive holds, one of `spec.KINDS`.
      index_dtype: the dtype of an encoder's indices, "int64" or "int32".
      pooling: what finds an encoder's maxima, "argmax" or "xla"; block1 has none.
      source: where its weights came from, one of `spec.SOURCES`; None if not known.

    Raises:
      ValueError: says which rule the card breaks, or which fact is not the archive's.
    """
    page = hub_page.read(text)
    name = vgg19.encoder_name(layer) if kind == "encoder" else vgg19.decoder_name(layer)
    if (page.kind, page.name) != ("Module", name):
        raise ValueError(
            f"the module's name must be {name}, as the archive ends at {layer}. "
            f"Received: {page.kind} {page.name}."
        )
    lines = text.split("\n")
    for section in _SECTIONS:
        if section not in lines:
            raise ValueError(f"the section `{section}` is missing.")
    if not page.description.endswith("."):
        raise ValueError(
            "the first line must be followed by a one-sentence description. "
            f"Received: {page.description!r:.120}."
        )
    _check_metadata(page.metadata, layer, kind)
    dtype = index_dtype if kind == "encoder" else "int64 or int32"
    facts = [
        f"| `{row['name']}` | {row['dtype']} | `{row['shape']}` |" for row in outputs(layer, dtype)
    ]
    file = checksums.file_digest(archive_path)
    facts.append(f"`{kind}.tar.gz`: {file['bytes']:,} bytes, SHA-256 `{file['sha256']}`.\n")
    facts.append(
        f"{2 * len(vgg19.convolutions(layer, kind))} trainable variables with "
        f"{vgg19.count_parameters(layer, kind):,} parameters"
    )
    if kind == "encoder" and len(vgg19.blocks_up_to(layer)) > 1:
        facts.append(f"The maxima are found by {_ENGINES[pooling]}")
    if source is not None:
        facts.append(_SOURCES[source].format(kind=kind))
    for fact in facts:
        if fact not in text:
            raise ValueError(f"this, which follows from the archive, is missing: {fact.strip()}")
    for block in code_blocks(text):
        try:
            compile(block, "card", "exec")
        except SyntaxError as error:
            raise ValueError(f"a Python code block does not compile: {error}.") from error


def code_blocks(text: str) -> list[str]:
    """Returns the Python code blocks of a Markdown text, in their order."""
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def _check_metadata(metadata, layer, kind):
    keys = {"asset-path", "dataset", *_FIXED_METADATA}
    if set(metadata) != keys:
        raise ValueError(
            f"the metadata must be {', '.join(sorted(keys))}. "
            f"Received: {', '.join(sorted(metadata))}."
        )
    for key, value in _FIXED_METADATA.items():
        if metadata[key] != [value]:
            raise ValueError(f"`{key}` must be {value}. Received: {', '.join(metadata[key])}.")
    ending = f"/{vgg19.artifact_name(layer, kind)}/{kind}.tar.gz"
    (asset_path,) = metadata["asset-path"]
    if not asset_path.endswith(ending):
        raise ValueError(f"`asset-path` must end in {ending}. Received: {asset_path}.")
