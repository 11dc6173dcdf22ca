"""Builds the whole family: encoders, trained decoders, and the page of the collection."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

from export import artifact, build
from export.artifact import Artifact
from export.spec import Publication, Spec
from publish import tree
from training import config, train
from training.run_folder import RunFolder
from unpooling import vgg19, weights
from unpooling.errors import UserError

__all__ = ["build_collection"]


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
      training: fields of `TrainConfig` that win over the recipe.
      output_dir: the folder for the artifacts and the hub.
      publication: what the cards say of where the artifacts are published.
      decoder_dataset: what the photographs are, as a dataset tag of the hub.
      overwrite: whether to build again what is built, and to replace it in the hub.
      verify: as for `export.build.build_encoder`.

    Returns:
      The artifacts, by name and version.

    Raises:
      UserError: if the weights do not reach a layer, a decoder has to be trained without
        photographs, or one of the steps fails.
    """
    publication = publication or Publication()
    layers, trained = _plan(weights_source, layers, seed, photos, runs)

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
    for layer in layers:
        folders.append(build_half(Spec("encoder", layer), weights_source, publication))
        if layer not in trained:
            asked = {"weights": weights_source, "seed": seed, "photos": photos, "output_dir": runs}
            shallower = trained.get(_layer_before(layer))
            trained[layer] = train.train(
                config.recipe(layer, shallower, **asked | dict(training or {}))
            )
        of_decoders = dataclasses.replace(publication, dataset=decoder_dataset)
        folders.append(build_half(Spec("decoder", layer), trained[layer], of_decoders))
    return tree.add(folders, os.path.join(output_dir, "hub"), overwrite)


def _plan(weights_source, asked, seed, photos, runs):
    """Which layers are built, and {layer: the path of its decoder} of those that are trained."""
    reached = weights.layers_of(weights_source)
    layers = [layer for layer in reached if asked is None or layer in asked]
    if lacking := [layer for layer in asked or () if layer not in reached]:
        raise UserError(
            f"--weights={weights_source} reaches to {reached[-1]} only: leave out "
            f"--layer={lacking[0]}, or pass other weights."
        )
    trained, shipped = {}, weights.pretrained_decoders()
    for layer in reached:
        run = RunFolder(runs, layer)
        if not (run.is_finished() or layer in shipped):
            continue
        encoder = weights.load(weights_source, layer, seed)
        if run.is_finished():
            weights.check_pair(encoder, weights.load_decoder(run.decoder, layer), run.decoder)
            trained[layer] = run.decoder
        elif (
            weights.load_decoder("pretrained", layer).training.encoder["sha256"] == encoder.digests
        ):
            trained[layer] = shipped[layer]
    untrained = [layer for layer in layers if layer not in trained]
    if untrained and photos is None:
        raise UserError(
            f"{runs} holds no trained decoder for {', '.join(untrained)}: pass --photos=FOLDER to "
            "train one, or another --runs."
        )
    print(f"layers: {', '.join(layers)}; to be trained: {', '.join(untrained) or 'none'}")
    return layers, trained


def _layer_before(layer):
    number = vgg19.LAYERS.index(layer)
    return vgg19.LAYERS[number - 1] if number else None


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
        and found.manifest["weights"]["layers"] == loaded.digests
        and found.manifest["weights"]["file_sha256"] == loaded.file_sha256
        and found.manifest["flags"] == build.shaping_flags(spec, loaded, source, publication)
    )
