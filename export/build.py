"""Builds artifacts: weights, module, SavedModel, archive, manifest, card, diagram, checks."""

import os
import shutil
import tempfile

from export import archive as archives
from export import card, checksums, manifest, saved_model, verify
from export.spec import Publication, Spec
from export.staging import staged
from unpooling import archive, weights
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder

__all__ = ["build_decoder", "build_encoder", "shaping_flags"]


def build_encoder(
    spec: Spec,
    weights_source: str = "imagenet",
    *,
    seed: int = 0,
    output_dir: str = "dist",
    publication: Publication | None = None,
    overwrite: bool = False,
    verify: bool = True,
) -> str:
    """Builds the artifact of an encoder in `output_dir`.

    Args:
      spec: which encoder.
      weights_source: "imagenet", "random" or the path of a file, see `unpooling.weights.load`.
      seed: the seed of random weights.
      output_dir: the folder in which the artifact's folder is made.
      publication: what the card says of where it is published; None for the defaults.
      overwrite: whether to replace an existing artifact.
      verify: whether `export.verify` checks the archive, in a fresh process, before the artifact is
        put in place.

    Returns:
      The artifact's folder, which holds `spec.files`.

    Raises:
      UserError: if the weights cannot be had, the artifact exists, or a check fails. Nothing is
        left then.
    """
    folder = os.path.join(output_dir, spec.folder_name)
    with staged(folder, spec.files, overwrite) as staging:
        print(f"weights: {weights_source}", flush=True)
        loaded = weights.load(weights_source, spec.layer, seed)
        choices = {"index_dtype": spec.index_dtype, "engine": spec.engine}
        encoder = Encoder(spec.layer, loaded.layers, **{k: v for k, v in choices.items() if v})
        _write(staging, spec, encoder, loaded, weights_source, publication, verify)
    return folder


def build_decoder(
    spec: Spec,
    weights_source: str,
    *,
    seed: int = 0,
    output_dir: str = "dist",
    publication: Publication | None = None,
    overwrite: bool = False,
    verify: bool = True,
) -> str:
    """Builds the artifact of a decoder in `output_dir`.

    Args:
      spec: which decoder.
      weights_source: the path of a decoder.h5 that training wrote, or "random".
      seed, output_dir, publication, overwrite, verify: as for `build_encoder`.

    Returns:
      The artifact's folder, which holds `spec.files`.

    Raises:
      UserError: as `build_encoder`.
    """
    folder = os.path.join(output_dir, spec.folder_name)
    with staged(folder, spec.files, overwrite) as staging:
        print(f"weights: {weights_source}", flush=True)
        loaded = weights.load_decoder(weights_source, spec.layer, seed)
        decoder = Decoder(spec.layer, loaded.layers)
        _write(staging, spec, decoder, loaded, weights_source, publication, verify)
    return folder


def _write(staging, spec, module, loaded, weights_source, publication, check):
    """Writes the files of an artifact into a folder and checks them."""
    publication = publication or Publication()
    path = {name: os.path.join(staging, name) for name in spec.files}

    print(f"archive: {spec.archive_name}, {_describe(spec)}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        saved_model.save(module, directory)
        archives.pack(directory, path[spec.archive_name])
    packed = archive.read(path[spec.archive_name])

    print(f"manifest: {spec.file('manifest.json')}", flush=True)
    flags = shaping_flags(spec, loaded, weights_source, publication)
    made = manifest.make(spec, loaded, packed, flags)
    manifest.write(made, path[spec.file("manifest.json")])

    print(f"card: {spec.file('md')}, {spec.file('png')}", flush=True)
    with open(path[spec.file("md")], "w", encoding="utf-8", newline="\n") as file:
        file.write(card.render(made, publication))
    shutil.copyfile(spec.diagram, path[spec.file("png")])
    checksums.write(staging, spec.files[:-1])

    if check:
        print("verify:", flush=True)
        verify.run_in_fresh_process(path[spec.archive_name])


def _describe(spec):
    if spec.engine is None:
        return f"{spec.kind} for {spec.layer}"
    return f"{spec.kind} for {spec.layer}, {spec.index_dtype} indices, {spec.engine} pooling"


def shaping_flags(
    spec: Spec, loaded: weights.Weights, weights_source: str, publication: Publication
) -> dict[str, object]:
    """Returns the flags of the command that gives the same artifact, without any folder."""
    of_file = loaded.source == "file"
    flags = {
        "layer": spec.layer,
        "weights": os.path.basename(weights_source),
        "seed": loaded.seed,
        "index_dtype": spec.index_dtype,
        "pooling": spec.engine,
        "publisher": publication.publisher,
        "model_version": publication.model_version,
        "asset_url": publication.asset_url,
        "dataset": publication.dataset if of_file else None,
        "license": publication.license if of_file else None,
    }
    return {name: value for name, value in flags.items() if value is not None}
