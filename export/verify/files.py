"""The files of an artifact: an archive and what lies beside it."""

import dataclasses
import os
import pathlib

from export import archive, card, checksums, manifest
from export.spec import Spec
from export.verify.loaded import Loaded, expect
from unpooling.archive import Archive, read
from unpooling.errors import UserError
from unpooling.weights import layer_sha256

__all__ = ["Files", "Skipped", "check_weights"]


class Skipped(Exception):
    """A check cannot be made; the message says why."""


@dataclasses.dataclass(frozen=True)
class Files:
    """An archive and its surroundings. Each check returns what it found, in words.

    Attributes:
      path: of the archive.
      manifest_path: of the manifest to compare it with; None for the one beside it.
    """

    path: pathlib.Path
    manifest_path: pathlib.Path | None = None

    def __post_init__(self):
        for path in filter(None, (self.path, self.manifest_path)):
            if not path.is_file():
                raise UserError(f"{path}: no such file.")

    def _beside(self, name):
        path = self.path.absolute().with_name(name)
        if not os.path.lexists(path):
            raise Skipped(f"no {name} beside the archive")
        return path

    def _find_manifest(self):
        """The manifest named after the archive, or else the only one beside it."""
        found = sorted(self.path.absolute().parent.glob("*.manifest.json"))
        named = self.path.name.removesuffix(".tar.gz") + ".manifest.json"
        found = [path for path in found if path.name == named] or found
        if not found:
            raise Skipped("no *.manifest.json beside the archive")
        names = ", ".join(path.name for path in found)
        expect(len(found) == 1, f"there are several, choose one with --manifest=FILE: {names}")
        return found[0]

    def check_checksums(self) -> str:
        folder = self._beside(checksums.FILE).parent
        return f"{', '.join(checksums.check(str(folder), needed=self.path.name))} as listed"

    def read_archive(self, directory: str) -> tuple[str, Archive]:
        """Reads the archive, checks its form, and unpacks it into `directory`."""
        found = read(str(self.path))
        archive.check_form(found)
        found.unpack(directory)
        return ", ".join(found.members), found

    def read_manifest(self, found: Archive) -> tuple[str, dict]:
        """Reads the manifest and compares the archive with it."""
        path = self.manifest_path or self._find_manifest()
        stated = manifest.read(str(path))
        manifest.check_archive(stated, found)
        return f"archive, tar and members have the hashes in {path.name}", stated

    def check_card(self, found: Archive, spec: Spec, stated: dict | None) -> str:
        text = self._beside(spec.file("md")).read_text(encoding="utf-8")
        card.check(text, spec, found, stated)
        return "keeps the hub's rules and describes this archive"

    def check_diagram(self, spec: Spec) -> str:
        path = self._beside(spec.file("png"))
        drawn = pathlib.Path(spec.diagram).read_bytes()
        with open(path, "rb") as file:
            expect(file.read(len(drawn) + 1) == drawn, f"not the diagram of {spec.layer}")
        return f"that of {spec.name}"


def check_weights(loaded: Loaded, stated: dict | None) -> str:
    """Compares kind, layer, index dtype, engine and weights with a manifest's."""
    if stated is None:
        raise Skipped("no manifest states them")
    digests = {name: layer_sha256(*arrays) for name, arrays in loaded.layers.items()}
    manifest.check_module(stated, loaded.spec, digests)
    return f"as stated, source: {stated['weights']['source']}"
