"""Lays artifacts out as the repository of a hub does.

    python -m publish.tree --artifacts=dist --output_dir=dist/hub

checks every artifact in a folder of --artifacts and copies it into the tree:

    assets/docs/PUBLISHER/PUBLISHER.md                    the publisher's page
    assets/docs/PUBLISHER/models/NAME/VERSION.md          the card
    assets/docs/PUBLISHER/collections/COLLECTION/1.md     all models of the publisher in the tree
    ...                                                   the five files, under their URL's path

What the tree held before stays: other versions, other publishers. It changes in one step.
"""

import dataclasses
import filecmp
import os
import pathlib
import shutil
import urllib.parse
from collections.abc import Sequence

import jinja2
from absl import flags

from export import card, checksums, cli, hub_page, manifest, spec, staging
from unpooling import vgg19

__all__ = ["COLLECTION", "Module", "add", "artifact_folders", "files_path", "modules"]

FLAGS = flags.FLAGS
_NAME = "publish.tree"

COLLECTION = "vgg19-unpooling-encoder-decoder"
DOCS = "assets/docs"

_TEMPLATES = pathlib.Path(__file__).parent.parent / "assets"


@dataclasses.dataclass(frozen=True)
class Module:
    """A model as it lies in a folder: its five files, the head of its card, its manifest."""

    folder: str
    page: hub_page.Page
    manifest: dict

    @property
    def kind(self) -> str:
        """What it is, one of `spec.KINDS`."""
        return self.manifest["kind"]

    def path(self, ending: str) -> str:
        """The path of one of its files by the end of its name: "tar.gz", "md", ...."""
        return os.path.join(self.folder, f"{self.kind}.{ending}")

    @property
    def asset_path(self) -> str:
        """The URL of the archive."""
        return self.page.metadata["asset-path"][0]

    @property
    def features(self) -> str:
        """The shape of the features."""
        return card.outputs(self.manifest["layer"], "int64")[0]["shape"]

    @property
    def downsampling(self) -> int:
        """What the sides of a picture must be multiples of."""
        return vgg19.downsampling(self.manifest["layer"])

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
        """A decoder's mean absolute error on pictures held out from training, 0 to 255."""
        return manifest.evaluation(self.manifest["weights"].get("training")).get("error")

    @property
    def archive_bytes(self) -> int:
        """The size of the archive."""
        return self.manifest["archive"]["bytes"]

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file but SHA256SUMS, by name."""
        return checksums.read(self.folder)


def add(folders: Sequence[str], output_dir: str, overwrite: bool) -> list[Module]:
    """Adds the artifacts in some folders to the tree in `output_dir`.

    Args:
      folders: those of the artifacts, as `build_encoder.py` makes them.
      output_dir: the tree; made if it does not exist.
      overwrite: whether a version of a model that the tree has may be replaced by another.

    Returns:
      The models that were added, by name and version.

    Raises:
      ValueError: if an artifact is not complete or breaks a rule of the hub, or two claim the
        same place.
      FileExistsError: if the tree has one of these versions and `overwrite` is not set.
      OSError: if a file cannot be read or written.
    """
    found = [read_module(folder) for folder in folders]
    copies = {}  # path in the tree: file to copy
    for module in found:
        names = spec.files(module.kind)
        places = {f"{files_path(module.asset_path)}/{name}": name for name in names}
        places[f"{DOCS}/{hub_page.docs_path(module.page)}"] = f"{module.kind}.md"
        for place, name in places.items():
            if place in copies:
                raise ValueError(
                    f"{module.folder} and {os.path.dirname(copies[place])} would both be {place} "
                    "in the tree: give one another --model_version and --asset_url."
                )
            copies[place] = os.path.join(module.folder, name)
    _check_versions(copies, output_dir, overwrite)
    publishers = {module.page.publisher for module in found}
    present = [*found, *(m for m in modules(output_dir) if not _replaced(m, found))]
    pages = {}
    for publisher in sorted(publishers):
        theirs = sorted((m for m in present if m.page.publisher == publisher), key=_order)
        pages.update(_pages(publisher, theirs))
    with staging.staged(output_dir, [*copies, *pages], overwrite=True) as folder:
        for place, source in copies.items():
            os.makedirs(os.path.dirname(os.path.join(folder, place)), exist_ok=True)
            shutil.copyfile(source, os.path.join(folder, place))
        for place, content in pages.items():
            path = pathlib.Path(folder, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8", newline="\n")
    return sorted(found, key=_order)


def modules(tree: str) -> list[Module]:
    """Returns the models that a tree has, all versions, by publisher, name and version.

    Raises:
      ValueError: if a page breaks a rule of the hub, or its archive or manifest is not there.
    """
    docs = pathlib.Path(tree, DOCS)
    found = []
    for path in sorted(docs.glob("*/models/*/*.md")):
        page = _read_page(path)
        if path.relative_to(docs).as_posix() != hub_page.docs_path(page):
            raise ValueError(
                f"{path}: the page of {page.publisher}/{page.name}/{page.version} must lie in "
                f"{hub_page.docs_path(page)}."
            )
        asset_path = page.metadata["asset-path"][0]
        folder = os.path.join(tree, files_path(asset_path))
        name = os.path.basename(asset_path).removesuffix(".tar.gz") + ".manifest.json"
        found.append(Module(folder, page, manifest.read(os.path.join(folder, name))))
    return sorted(found, key=_order)


def read_module(folder: str) -> Module:
    """Returns the artifact in a folder, once its files have been held against each other.

    Raises:
      ValueError: if one is missing or differs from what the others say of it, or the card breaks a
        rule of the hub.
    """
    try:
        kinds = _kinds(folder) or ["encoder"]
        if len(kinds) > 1:
            raise ValueError(f"it holds {' and '.join(f'{k}.tar.gz' for k in kinds)}")
        (kind,) = kinds
        present = checksums.check(folder, needed=f"{kind}.tar.gz")
        names = spec.files(kind)
        lacking = [name for name in names if name not in (*present, checksums.FILE)]
        if lacking:
            raise ValueError(f"{', '.join(lacking)} is missing")
        stated = manifest.read(os.path.join(folder, f"{kind}.manifest.json"))
        archive_path = os.path.join(folder, f"{kind}.tar.gz")
        manifest.check_archive(stated, archive_path)
        path = pathlib.Path(folder, f"{kind}.md")
        page = _read_page(path)
        card.check(
            path.read_text(encoding="utf-8"),
            kind=stated["kind"],
            layer=stated["layer"],
            index_dtype=stated["index_dtype"] or "int64",
            pooling=stated["pooling"] or "argmax",
            archive_path=archive_path,
            source=stated["weights"]["source"],
        )
    except ValueError as error:
        raise ValueError(f"{folder} is not a complete artifact: {error}") from error
    return Module(folder, page, stated)


def files_path(asset_path: str) -> str:
    """Returns the folder of the tree in which the files of an archive with this URL lie.

    Raises:
      ValueError: if the URL leads out of the tree, or to its documents.
    """
    path = os.path.dirname(urllib.parse.urlsplit(asset_path).path.lstrip("/"))
    parts = path.split("/")
    if not path or {"", ".", ".."} & set(parts) or path.startswith(f"{DOCS}/"):
        raise ValueError(
            f"the archive's URL must have folders in its path, none of them `.` or `..`, outside "
            f"{DOCS}. Received: {asset_path}."
        )
    return path


def artifact_folders(artifacts: str) -> list[str]:
    """Returns the folders in a folder that hold an artifact, sorted.

    Raises:
      ValueError: if there is none.
      OSError: if the folder cannot be read.
    """
    found = [
        folder
        for name in sorted(os.listdir(artifacts))
        if not name.startswith(".") and _kinds(folder := os.path.join(artifacts, name))
    ]
    if not found:
        raise ValueError(
            f"no folder of {artifacts} holds an encoder.tar.gz or a decoder.tar.gz: make one with "
            "build_encoder.py or build_decoder.py, or pass another --artifacts."
        )
    return found


def _kinds(folder):
    """Which archives a folder holds: of an artifact it is one."""
    return [k for k in spec.KINDS if os.path.isfile(os.path.join(folder, f"{k}.tar.gz"))]


def _read_page(path):
    try:
        return hub_page.read(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_versions(copies, output_dir, overwrite):
    taken = [
        place
        for place, source in copies.items()
        if os.path.lexists(there := os.path.join(output_dir, place))
        and not (os.path.isfile(there) and filecmp.cmp(source, there, shallow=False))
    ]
    if taken and not overwrite:
        raise FileExistsError(
            f"{output_dir} already holds {taken[0]}: pass --overwrite to replace that version, or "
            "build another --model_version."
        )


def _replaced(module, found):
    return any(hub_page.docs_path(module.page) == hub_page.docs_path(m.page) for m in found)


def _order(module):
    return module.page.publisher, module.page.name, module.page.version


def _pages(publisher, theirs):
    """The pages of a publisher and of the collection, each listing the newest versions."""
    newest = list({module.page.name: module for module in theirs}.values())
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown; every value has been checked.
    )
    values = {
        "publisher": publisher,
        "collection": COLLECTION,
        "modules": newest,
        "encoders": [module for module in newest if module.kind == "encoder"],
        "decoders": [module for module in newest if module.kind == "decoder"],
        "datasets": sorted({d for m in newest for d in m.page.metadata.get("dataset", [])}),
    }
    pages = [
        environment.get_template(name).render(values) for name in ("publisher.md", "collection.md")
    ]
    return {f"{DOCS}/{hub_page.docs_path(hub_page.read(page))}": page for page in pages}


def main() -> int:
    try:
        folders = artifact_folders(FLAGS.artifacts)
        for module in add(folders, FLAGS.output_dir, FLAGS.overwrite):
            page = module.page
            print(f"{page.publisher}/{page.name}/{page.version}: {module.asset_path}")
    except (ValueError, OSError) as error:
        return cli.fail(_NAME, str(error))
    print(f"done: {FLAGS.output_dir}")
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("artifacts", "dist", "The folder that holds the artifacts' folders.")
    flags.DEFINE_string("output_dir", "dist/hub", "The tree; made if it does not exist.")
    flags.DEFINE_bool("overwrite", False, "Whether to replace versions that the tree has.")
    cli.run(_NAME, main)
