"""Lays artifacts out as the repository of a hub does.

    python -m publish.tree --artifacts=dist --output_dir=dist/hub

checks every artifact in a folder of --artifacts and copies it into the tree:

    assets/docs/PUBLISHER/PUBLISHER.md                    the publisher's page
    assets/docs/PUBLISHER/models/NAME/VERSION.md          the card
    assets/docs/PUBLISHER/collections/COLLECTION/1.md     all models of the publisher in the tree
    ...                                                   the five files, under their URL's path

Other versions and publishers in the tree stay. Files are put in place before the pages that
describe them; repeat the command if it was interrupted.
"""

import contextlib
import filecmp
import logging
import os
import pathlib
import shutil
import urllib.parse
from collections.abc import Sequence

from absl import flags

from export import artifact, card, checksums, cli, hub_page, manifest, staging, templates
from export.artifact import Artifact
from unpooling.errors import UserError

__all__ = ["COLLECTION", "DOCS", "add", "artifacts", "files_path"]

FLAGS = flags.FLAGS

COLLECTION = "vgg19-unpooling-encoder-decoder"
DOCS = "assets/docs"


def add(folders: Sequence[str], output_dir: str, overwrite: bool = False) -> list[Artifact]:
    """Adds the artifacts in some folders to the tree in `output_dir`.

    Args:
      folders: the artifacts' folders, as `export.build` makes them.
      output_dir: the tree; made if it does not exist.
      overwrite: whether a version of a model that the tree has may be replaced by another.

    Returns:
      The artifacts that were added, by name and version.

    Raises:
      UserError: before anything is put in place, if an artifact is not complete or breaks a rule of
        the hub; two claim the same place; a decoder was trained for another encoder than the
        tree's; the tree has one of these versions and `overwrite` is not set; or something else is
        where one belongs.
    """
    found = [artifact.read(folder) for folder in folders]
    replaced = {hub_page.docs_path(added.page) for added in found}
    kept = [a for a in artifacts(output_dir) if hub_page.docs_path(a.page) not in replaced]
    present = sorted([*found, *kept], key=_order)
    places = {}
    for each in present:
        for place in (files_path(each.asset_path), hub_page.docs_path(each.page)):
            if other := places.get(place):
                raise UserError(
                    f"{each.folder} and {other.folder} would both be {place} in the tree: give "
                    "one another --model_version and --asset_url."
                )
            places[place] = each
    _check_pairs(present)
    for added in found:
        places = {  # The checksums stand for all five files.
            f"{files_path(added.asset_path)}/{checksums.FILE}": checksums.FILE,
            f"{DOCS}/{hub_page.docs_path(added.page)}": added.spec.file("md"),
        }
        for place, name in places.items():
            there, source = os.path.join(output_dir, place), os.path.join(added.folder, name)
            if not overwrite and os.path.exists(there) and not filecmp.cmp(source, there, False):
                raise UserError(
                    f"{output_dir} already holds {place}: pass --overwrite to replace that "
                    "version, or build another --model_version."
                )
    with contextlib.ExitStack() as stack:  # So none is put in place before all are copied.
        for added in found:
            target = os.path.join(output_dir, files_path(added.asset_path))
            folder = stack.enter_context(staging.staged(target, added.spec.files, overwrite=True))
            for name in added.spec.files:
                shutil.copyfile(os.path.join(added.folder, name), os.path.join(folder, name))
    for added in found:
        _write_page(output_dir, pathlib.Path(added.path("md")).read_text(encoding="utf-8"))
    for publisher in {added.page.publisher for added in found}:
        newest = {a.page.name: a for a in present if a.page.publisher == publisher}
        values = {"publisher": publisher, "collection": COLLECTION, "modules": newest.values()}
        for name in ("publisher.md", "collection.md"):
            page = templates.environment().get_template(name).render(values)
            _write_page(output_dir, page)
    return sorted(found, key=_order)


def artifacts(tree: str) -> list[Artifact]:
    """Returns what a tree has, all versions, by publisher, name and version.

    A page that breaks a rule, or whose files are not there, is left out and named in the log.
    """
    docs = pathlib.Path(tree, DOCS)
    found = []
    for path in sorted(docs.glob("*/models/*/*.md")):
        try:
            page = hub_page.read(path.read_text(encoding="utf-8"))
            if path.relative_to(docs).as_posix() != hub_page.docs_path(page):
                raise UserError(f"it must lie in {hub_page.docs_path(page)}")
            asset_path = page.metadata["asset-path"]
            folder = os.path.join(tree, files_path(asset_path))
            name = os.path.basename(asset_path).removesuffix(".tar.gz") + ".manifest.json"
            stated = manifest.read(os.path.join(folder, name))
            spec = manifest.spec_of(stated)
            card.publication(page, spec)
            for file in spec.files:
                os.stat(os.path.join(folder, file))
            found.append(Artifact(folder, spec, page, stated))
        except (UserError, OSError, UnicodeDecodeError) as error:
            logging.warning("%s is left out: %s", path, error)
    return sorted(found, key=_order)


def files_path(asset_path: str) -> str:
    """Returns the folder of the tree in which the files of an archive with this URL lie.

    Raises:
      UserError: if the URL leads out of the tree, or to its documents.
    """
    path = os.path.dirname(urllib.parse.urlsplit(asset_path).path.lstrip("/"))
    if not path or {"", ".", ".."} & set(path.split("/")) or path.startswith(f"{DOCS}/"):
        raise UserError(
            f"the archive's URL must have folders in its path, none of them `.` or `..`, outside "
            f"{DOCS}. Received: {asset_path}."
        )
    return path


def _check_pairs(present: Sequence[Artifact]) -> None:
    """Refuses a decoder that was trained for other weights than its encoder in the tree has."""
    for decoder in present:
        record = decoder.manifest["weights"].get("training")
        if not record:
            continue
        encoders = [
            e
            for e in present
            if (e.page.publisher, e.spec.name) == (decoder.page.publisher, decoder.spec.mate.name)
        ]
        # The one that the decoder's card names; else any version.
        folder = os.path.dirname(decoder.asset_path).removesuffix("-decoder")
        encoders = [e for e in encoders if os.path.dirname(e.asset_path) == folder] or encoders
        trained_for = record["encoder"]["sha256"]
        if encoders and all(e.manifest["weights"]["layers"] != trained_for for e in encoders):
            raise UserError(
                f"the decoder in {decoder.folder} was trained for an encoder with other weights "
                f"than that in {encoders[0].folder}: publish the encoder that it was trained for, "
                "or train a decoder for this one."
            )


def _order(added: Artifact) -> tuple[str, str, int]:
    return added.page.publisher, added.page.name, added.page.version


def _write_page(output_dir: str, page: str) -> None:
    path = pathlib.Path(output_dir, DOCS, hub_page.docs_path(hub_page.read(page)))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(page, encoding="utf-8", newline="\n")
    partial.replace(path)


def main() -> None:
    for added in add(artifact.find(FLAGS.artifacts), FLAGS.output_dir, FLAGS.overwrite):
        page = added.page
        print(f"{page.publisher}/{page.name}/{page.version}: {added.asset_path}")
    print(f"done: {FLAGS.output_dir}")


if __name__ == "__main__":
    flags.DEFINE_string("artifacts", "dist", "The folder that holds the artifacts' folders.")
    flags.DEFINE_string("output_dir", "dist/hub", "The tree; made if it does not exist.")
    flags.DEFINE_bool("overwrite", False, "Whether to replace versions that the tree has.")
    cli.run("publish.tree", main, interrupted="repeat the command.")
