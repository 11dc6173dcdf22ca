"""Makes an artifact of a model: SavedModel, archive, card, diagram, manifest, checks."""

import os
from collections.abc import Callable, Mapping

from export import card, checksums, diagram, manifest, spec, verify
from unpooling import archive
from unpooling.weights import Weights

__all__ = ["assemble"]


def assemble(
    staging: str,
    kind: str,
    *,
    layer: str,
    weights: Weights,
    save: Callable[[str], None],
    page: Mapping[str, object],
    flags: Mapping[str, object],
    **variant: str,
) -> None:
    """Writes the files of an artifact, and checks them as a stranger would.

    Args:
      staging: the folder for them, see `artifact.staged`.
      kind: one of `spec.KINDS`.
      layer: one of `vgg19.LAYERS`.
      weights: what the model was built from.
      save: writes the SavedModel into the folder of the given path.
      page: publisher, model_version, asset_url and dataset, as for `card.render`.
      flags: what goes into the manifest as the flags that shape the artifact.
      **variant: of an encoder, index_dtype and pooling, as for `card.render`.

    Raises:
      ValueError: if a check fails.
      OSError: if a file cannot be written.
    """
    names = spec.files(kind)
    path = {name: os.path.join(staging, name) for name in (*names, "saved_model")}
    archive_path = path[f"{kind}.tar.gz"]

    print(f"archive: SavedModel, {kind}.tar.gz", flush=True)
    save(path["saved_model"])
    archive.pack(path["saved_model"], archive_path)

    print(f"card: {kind}.md, {kind}.png", flush=True)
    diagram.draw(layer, path[f"{kind}.png"], kind)
    described = {"layer": layer, "weights": weights, "archive_path": archive_path, **variant}
    text = card.render(kind, **described, **page)
    with open(path[f"{kind}.md"], "w", encoding="utf-8", newline="\n") as file:
        file.write(text)

    print(f"manifest: {kind}.manifest.json, SHA256SUMS", flush=True)
    content = manifest.make(kind=kind, **described, flags=flags)
    manifest.write(content, path[f"{kind}.manifest.json"])
    checksums.write(staging, names[:-1])

    print("verify:", flush=True)
    verify.run_in_fresh_process(archive_path)
