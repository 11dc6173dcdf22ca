"""The checks of an artifact's files: of an archive and what lies beside it.

Each returns what it found, in words, and what the next checks need.
"""

import pathlib

from export import archive, card, checksums, manifest
from export.spec import Spec
from export.verify.loaded import Loaded, expect
from unpooling.archive import Archive, read
from unpooling.weights import layer_sha256, load_decoder, pretrained_decoders
from unpooling.weights import load as load_weights

__all__ = [
    "Skipped",
    "check_card",
    "check_checksums",
    "check_diagram",
    "check_weights",
    "read_archive",
    "read_manifest",
]


class Skipped(Exception):
    """A check cannot be made; the message says why."""


def check_checksums(path: pathlib.Path) -> str:
    folder = _beside(path, checksums.FILE).parent
    return f"{', '.join(checksums.check(str(folder), needed=path.name))} as listed"


def read_archive(path: pathlib.Path, directory: str) -> tuple[str, Archive]:
    """Reads the archive, checks its form, and unpacks it into `directory`."""
    found = read(str(path))
    archive.check_form(found)
    found.unpack(directory)
    return ", ".join(found.members), found


def read_manifest(
    path: pathlib.Path, manifest_path: str | None, found: Archive
) -> tuple[str, dict]:
    """Reads the manifest, by default that beside the archive, and compares the archive with it."""
    if manifest_path is None:
        named = path.name.removesuffix(".tar.gz") + ".manifest.json"
        beside = sorted(each.name for each in path.parent.glob("*.manifest.json"))
        names = [named] if named in beside else beside
        if not names:
            raise Skipped("no *.manifest.json beside the archive")
        choose = f"there are several, choose one with --manifest=FILE: {', '.join(names)}"
        expect(len(names) == 1, choose)
        manifest_path = path.with_name(names[0])
    stated = manifest.read(str(manifest_path))
    manifest.check_archive(stated, found)
    name = pathlib.Path(manifest_path).name
    return f"archive, tar and members have the hashes in {name}", stated


def check_weights(loaded: Loaded, stated: dict | None) -> str:
    """Compares kind, layer, index dtype, engine and weights with a manifest's.

    Random weights must be those of the stated seed, ImageNet's those that the decoders that ship
    were trained for.
    """
    if stated is None:
        raise Skipped("no manifest states them")
    digests = {name: layer_sha256(*arrays) for name, arrays in loaded.layers.items()}
    manifest.check_module(stated, loaded.spec, digests)
    source = stated["weights"]["source"]
    known = _known_digests(loaded.spec, stated["weights"])
    compared = [name for name in digests if name in known]
    for name in compared:
        expect(digests[name] == known[name], f"{name}: not what `{source}` weights are")
    more = f", compared for {len(compared)} of {len(digests)} layers" if compared else ""
    return f"as stated, source: {source}{more}"


def check_card(path: pathlib.Path, found: Archive, spec: Spec, stated: dict | None) -> str:
    text = _beside(path, spec.file("md")).read_text(encoding="utf-8")
    card.check(text, spec, found, stated)
    return "keeps the hub's rules and describes this archive"


def check_diagram(path: pathlib.Path, spec: Spec) -> str:
    drawn = pathlib.Path(spec.diagram).read_bytes()
    with open(_beside(path, spec.file("png")), "rb") as file:
        expect(file.read(len(drawn) + 1) == drawn, f"not the diagram of {spec.layer}")
    return f"that of {spec.name}"


def _known_digests(spec, stated):
    """The `layer_sha256` of each layer, as far as they follow from what a manifest states."""
    if stated["source"] == "random":
        load = load_weights if spec.kind == "encoder" else load_decoder
        return load("random", spec.layer, stated["seed"]).digests
    if stated["source"] == "imagenet":  # The decoders that ship state those of their encoders.
        deepest = list(pretrained_decoders())[-1]
        return load_decoder("pretrained", deepest).training.encoder["sha256"]
    return {}


def _beside(path, name):
    if not path.with_name(name).exists():
        raise Skipped(f"no {name} beside the archive")
    return path.with_name(name)
