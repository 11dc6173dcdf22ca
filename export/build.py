"""Builds artifacts: weights, module, SavedModel, archive, manifest, card, diagram, checks."""

import dataclasses
import os
import shutil
import tempfile

from export import archive as archives
from export import card, checksums, manifest, saved_model
from export import verify as verifier
from export.spec import Publication, Spec
from export.staging import staged
from unpooling import archive, weights
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder

__all__ = ["build", "build_decoder", "build_encoder", "shaping_flags"]


def build(
    spec: Spec,
    weights_source: str | None = None,
    *,
    seed: int = 0,
    output_dir: str = "dist",
    publication: Publication | None = None,
    overwrite: bool = False,
    verify: bool = True,
) -> str:
    """Builds the artifact of an encoder or a decoder in `output_dir`.

    Args:
      spec: which module.
      weights_source: of an encoder "imagenet", "random" or the path of a file, see
        `unpooling.weights.load`; of a decoder "pretrained", "random" or the path of a decoder.h5
        that training wrote, see `unpooling.weights.load_decoder`; None for the first of these.
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
    publication = publication or Publication()
    weights_source = weights_source or ("imagenet" if spec.kind == "encoder" else "pretrained")
    folder = os.path.join(output_dir, spec.folder_name)
    with staged(folder, spec.files, overwrite) as staging:
        path = {name: os.path.join(staging, name) for name in spec.files}
        print(f"weights: {weights_source}", flush=True)
        if spec.kind == "encoder":
            loaded = weights.load(weights_source, spec.layer, seed)
            module = Encoder(
                spec.layer, loaded.layers, spec.index_dtype or "int64", spec.engine or "argmax"
            )
        else:
            loaded = weights.load_decoder(weights_source, spec.layer, seed)
            module = Decoder(spec.layer, loaded.layers)

        print(f"archive: {spec.archive_name}, {spec}", flush=True)
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

        if verify:
            print("verify:", flush=True)
            verifier.run_in_fresh_process(path[spec.archive_name])
    return folder


# As the two commands are called.
build_encoder = build_decoder = build


def shaping_flags(
    spec: Spec, loaded: weights.Weights, weights_source: str, publication: Publication
) -> dict[str, object]:
    """Returns the flags of the command that gives the same artifact, without any folder."""
    flags = {
        "layer": spec.layer,
        "weights": os.path.basename(weights_source),
        "seed": loaded.seed,
        "index_dtype": spec.index_dtype,
        "pooling": spec.engine,
        **dataclasses.asdict(publication),
    }
    known = () if loaded.source == "file" else ("dataset", "license")
    return {name: v for name, v in flags.items() if v is not None and name not in known}
