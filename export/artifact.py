"""An artifact: the folder with a module's archive, card, diagram, manifest and checksums."""

import dataclasses
import os
import pathlib

from export import card, checksums, hub_page, licenses, manifest
from export.spec import Spec
from unpooling import archive, options
from unpooling.errors import UserError

__all__ = ["Artifact", "find", "read"]


@dataclasses.dataclass(frozen=True)
class Artifact:
    """An artifact whose files have been compared with each other.

    Attributes:
      folder: where its files are.
      spec: which module it is.
      page: the first lines of its card.
      manifest: as `manifest.read` returns it.
    """

    folder: str
    spec: Spec
    page: hub_page.Page
    manifest: dict

    def path(self, ending: str) -> str:
        """Returns the path of one of its files by the end of its name: "tar.gz", "md", ...."""
        return os.path.join(self.folder, self.spec.file(ending))

    @property
    def asset_path(self) -> str:
        """The address at which the archive is published."""
        return self.page.metadata["asset-path"]

    @property
    def license(self) -> licenses.License:
        """The license of its weights."""
        return licenses.of(self.manifest, self.page.metadata["dataset"])

    @property
    def archive_bytes(self) -> int:
        """The size of the archive."""
        return self.manifest["archive"]["bytes"]

    @property
    def source(self) -> str:
        """Where the weights come from, in words."""
        return {
            "imagenet": "ImageNet",
            "random": "random: untrained",
            "file": "from the publisher's file",
        }[self.manifest["weights"]["source"]]

    @property
    def error(self) -> float | None:
        """A decoder's mean absolute error on photographs held out from training, 0 to 255."""
        training = manifest.training_of(self.manifest)
        return (training.evaluation or {}).get("error") if training else None


def read(folder: str) -> Artifact:
    """Reads the artifact in a folder and compares its files with each other.

    Raises:
      UserError: if a file is missing or differs from what the others say of it, or the card breaks
        a rule of the hub.
    """
    try:
        kinds = _kinds(folder)
        if len(kinds) != 1:
            raise UserError(f"it holds {' and '.join(kinds) or 'no'} archives")
        (kind,) = kinds
        present = checksums.check(folder, needed=f"{kind}.tar.gz")
        stated = manifest.read(os.path.join(folder, f"{kind}.manifest.json"))
        spec = manifest.spec_of(stated)
        if spec.kind != kind:
            raise UserError(f"the manifest is that of a {spec.kind}")
        if wrong := spec.lacks(stated["weights"]["layers"]):
            raise UserError(f"{wrong}.")
        if lacking := {*spec.files} - {*present, checksums.FILE}:
            raise UserError(f"{', '.join(sorted(lacking))} is missing")
        packed = archive.read(os.path.join(folder, spec.archive_name))
        manifest.check_archive(stated, packed)
        text = pathlib.Path(folder, spec.file("md")).read_text(encoding="utf-8")
        card.check(text, spec, packed, stated)
    except UserError as error:
        raise UserError(f"{folder} is not a complete artifact: {error}") from error
    return Artifact(folder, spec, hub_page.read(text), stated)


def find(folder: str) -> list[str]:
    """Returns the folders in a folder that hold an artifact, sorted.

    Raises:
      UserError: if there is none, or the folder cannot be read.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}.") from error
    folders = [os.path.join(folder, name) for name in names if not name.startswith(".")]
    found = [path for path in folders if _kinds(path)]
    if not found:
        raise UserError(
            f"no folder in {folder} holds an encoder.tar.gz or a decoder.tar.gz: make one with "
            "build_encoder.py or build_decoder.py, or pass another folder."
        )
    return found


def _kinds(folder):
    """The kinds of which a folder holds an archive: one, for an artifact."""
    return [k for k in options.KINDS if os.path.isfile(os.path.join(folder, f"{k}.tar.gz"))]
