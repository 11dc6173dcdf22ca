"""Builds the whole family: encoders, trained decoders, and the page of the collection."""

import contextlib
import dataclasses
import filecmp
import os
from collections.abc import Mapping, Sequence

from export import artifact, build
from export.artifact import Artifact
from export.spec import Publication, Spec
from publish import tree
from training import config, train
from training.run_folder import RunFolder
from unpooling import weights
from unpooling.errors import UserError, one_line

__all__ = ["build_collection"]

# Fields of `TrainConfig` that follow from flags of the collection, and these.
_OWN = {
    "layer": "--layer",
    "weights": "--weights",
    "seed": "--seed",
    "photos": "--photos",
    "output_dir": "--runs",
}


def build_collection(
    weights_source: str = "imagenet",
    layers: Sequence[str] | None = None,
    *,
    seed: int = 0,
    photos: str | None = None,
    runs: str = "runs",
    training: Mapping[str, object] | None = None,
    output_dir: str = "dist",
    publication: Publication | None = None,
    decoder_dataset: str = "other",
    overwrite: bool = False,
    verify: bool = True,
) -> list[Artifact]:
    """Builds encoders and decoders, trains the decoders that are missing, and lays out a hub.

    For each layer it builds the encoder and a decoder: the one in `runs`; otherwise the one that
    ships, if it was trained for these weights; otherwise it trains one. Then `publish.tree` copies
    all of them into OUTPUT_DIR/hub. Interrupted, the same call continues where it was: what is
    built is not built again unless `overwrite` is set.

    Args:
      weights_source: the encoder's weights, see `unpooling.weights.load`.
      layers: which of `LAYERS`; None for all that the weights reach.
      seed: the seed of random weights.
      photos: the folder with the photographs for training, if a decoder has to be trained.
      runs: the folder of the training runs.
      training: fields of `TrainConfig` that win over the recipe; not `layer`, `weights`, `seed`,
        `photos` and `output_dir`.
      output_dir: the folder for the artifacts and the hub.
      publication: what the cards say of where the artifacts are published.
      decoder_dataset: what the photographs are, as a dataset tag of the hub. The card of a decoder
        that ships says that itself.
      overwrite: whether to build again what is built, and to replace it in the hub.
      verify: as for `export.build.build_encoder`.

    Returns:
      The artifacts, by name and version.

    Raises:
      UserError: before anything is built, if the weights do not reach a layer, a decoder has to
        be trained without photographs, or `training` is wrong; or if one of the steps fails.
    """
    publication = publication or Publication()
    asked = {"weights": weights_source, "seed": seed, "photos": photos, "output_dir": runs}
    decoders = _plan(layers, asked, training or {})

    def build_half(spec, source, publication):
        """Builds an artifact unless it is there already, and returns its folder."""
        folder = os.path.join(output_dir, spec.folder_name)
        if not overwrite and _is_built(folder, spec, source, seed, publication):
            print(f"built already: {folder}", flush=True)
            return folder
        make = build.build_encoder if spec.kind == "encoder" else build.build_decoder
        return make(
            spec,
            source,
            seed=seed,
            output_dir=output_dir,
            publication=publication,
            overwrite=overwrite,
            verify=verify,
        )

    folders = []
    for layer, source in decoders.items():
        folders.append(build_half(Spec("encoder", layer), weights_source, publication))
        if isinstance(source, config.TrainConfig):
            with _errors_of_training(layer):
                source = train.train(source)
        facts = {"dataset": decoder_dataset}
        if source == "pretrained":  # As build_decoder.py, which takes no word on what is known.
            facts = {"dataset": Publication.dataset, "license": None}
        of_decoder = dataclasses.replace(publication, **facts)
        folders.append(build_half(Spec("decoder", layer), source, of_decoder))
    return tree.add(folders, os.path.join(output_dir, "hub"), overwrite)


def _plan(layers, asked, training):
    """{layer: the source of its decoder's weights, or the `TrainConfig` of its training}."""
    for name, flag in _OWN.items():
        if name in training:
            raise UserError(f"--training_flags must not hold --{name}: pass {flag}=... instead.")
    source, runs = asked["weights"], asked["output_dir"]
    reached, shipped = weights.layers_of(source), weights.pretrained_decoders()
    if lacking := [layer for layer in layers or () if layer not in reached]:
        raise UserError(
            f"--weights={source} reaches to {reached[-1]} only: leave out --layer={lacking[0]}, or "
            "pass other weights."
        )
    plan = {layer: None for layer in reached if layers is None or layer in layers}
    for layer in plan:
        run = RunFolder(runs, layer)
        if not (run.is_finished() or layer in shipped):
            continue
        encoder = weights.load(source, layer, asked["seed"])
        if run.is_finished():
            weights.check_pair(encoder, weights.load_decoder(run.decoder, layer), run.decoder)
            plan[layer] = run.decoder
        elif (
            weights.load_decoder("pretrained", layer).training.encoder["sha256"] == encoder.digests
        ):
            plan[layer] = "pretrained"
    untrained = [layer for layer in plan if plan[layer] is None]
    if untrained and asked["photos"] is None:
        raise UserError(
            f"{runs} holds no trained decoder for {', '.join(untrained)}: pass --photos=FOLDER to "
            "train one, or another --runs."
        )
    for layer in untrained:
        with _errors_of_training(layer):
            plan[layer] = config.recipe(layer, **asked, **training)
    print(f"layers: {', '.join(plan)}; to be trained: {', '.join(untrained) or 'none'}")
    return plan


@contextlib.contextmanager
def _errors_of_training(layer):
    """Says whose error it is, and where the flags go that it names."""
    try:
        yield
    except UserError as error:
        raise UserError(
            f"training the decoder for {layer} failed: {one_line(error)} Flags of train_decoder.py "
            "go into --training_flags; its --output_dir is --runs."
        ) from error


def _is_built(folder, spec, source, seed, publication):
    """Whether a folder holds the complete artifact that these flags and weights give."""
    if not os.path.isdir(folder):
        return False
    try:
        found = artifact.read(folder)
    except UserError:
        return False
    load = weights.load if spec.kind == "encoder" else weights.load_decoder
    loaded = load(source, spec.layer, seed)
    return (
        found.spec == spec
        and filecmp.cmp(found.path("png"), spec.diagram, shallow=False)
        and found.manifest["weights"]["layers"] == loaded.digests
        and found.manifest["weights"]["file_sha256"] == loaded.file_sha256
        and found.manifest["flags"] == build.shaping_flags(spec, loaded, source, publication)
    )
