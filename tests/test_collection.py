"""The whole family by one call: what it builds, what it takes over, what it refuses."""

import pathlib

import pytest

from export import artifact
from export.spec import Publication
from publish import tree
from publish.collection import build_collection
from tests import photographs
from unpooling import weights
from unpooling.errors import UserError

LAYERS = ("block1_conv2", "block2_conv2")
QUICK = {"crop": 32, "batch_size": 2, "epochs": 1, "steps_per_epoch": 2}


def build(folder, **changes):
    places = {"photos": "photos", "runs": "runs", "output_dir": "dist"}
    asked = {name: str(folder / place) for name, place in places.items()}
    asked |= {"layers": LAYERS, "seed": 3, "training": QUICK, "decoder_dataset": "coco-2017"}
    asked |= {"verify": False}
    return build_collection("random", **asked | changes)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """A folder with the photographs, the runs and the family of two layers."""
    folder = tmp_path_factory.mktemp("collection")
    photographs.write(folder / "photos", train=2, validation=1)
    return folder, build(folder)


def test_it_builds_every_half_and_the_page_of_all(collection):
    folder, built = collection
    names = [
        f"vgg19-{layer.replace('_', '-')}-unpooling-{kind}"
        for layer in LAYERS
        for kind in ("decoder", "encoder")
    ]
    assert [made.spec.name for made in built] == names
    pages = folder / "dist" / "hub" / "assets" / "docs" / "emilutz"
    page = (pages / "collections" / tree.COLLECTION / "1.md").read_text(encoding="utf-8")
    for made in built:
        assert f"(/emilutz/{made.spec.name}/1)" in page
        if made.spec.kind == "decoder":
            assert made.manifest["weights"]["training"]["encoder"]["seed"] == 3
            assert f" | {made.error:.3f} | " in page
    assert "<!-- dataset: coco-2017 -->" in page


def test_the_deeper_decoder_starts_from_the_shallower(collection):
    folder, _ = collection
    shallow, deep = (
        weights.load_decoder(str(next((folder / "runs").glob(f"*{layer}*/decoder.h5"))), name)
        for layer, name in (("block1", LAYERS[0]), ("block2", LAYERS[1]))
    )
    flags = deep.training.flags
    assert flags["initial_weights"] == "decoder.h5"
    assert flags["initial_weights_sha256"] == shallow.file_sha256


def test_what_is_there_is_neither_trained_nor_built_again(collection, capsys):
    folder, built = collection
    before = {path: path.stat().st_mtime_ns for path in (folder / "dist").glob("vgg19*/*")}
    again = build(folder, photos=None)
    assert [made.manifest for made in again] == [made.manifest for made in built]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert capsys.readouterr().out.count("built already: ") == 4


def test_what_the_card_would_say_otherwise_is_built_again(collection):
    folder, _ = collection
    moved = Publication(asset_url="https://example.com/modules", model_version=2)
    built = build(folder, layers=LAYERS[:1], photos=None, publication=moved, overwrite=True)
    found = artifact.read(str(folder / "dist" / "vgg19-block1-conv2"))
    assert found.asset_path == "https://example.com/modules/vgg19-block1-conv2/encoder.tar.gz"
    assert [made.page.version for made in built] == [2, 2]


def test_without_photographs_what_is_trained_must_be_there(tmp_path):
    with pytest.raises(UserError, match="holds no trained decoder for block1_conv2, block2_conv2"):
        build(tmp_path, photos=None)
    assert not list(tmp_path.iterdir())


def test_a_layer_that_the_weights_do_not_reach_is_refused(tmp_path):
    path = str(tmp_path / "vgg19.h5")
    weights.save(path, weights.load("random", LAYERS[0]).layers)
    with pytest.raises(UserError, match=r"reaches to block1_conv2 only: .*--layer=block2_conv2"):
        build_collection(path, LAYERS, runs=str(tmp_path), output_dir=str(tmp_path / "dist"))
    assert not pathlib.Path(tmp_path, "dist").exists()
