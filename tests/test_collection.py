"""The whole family by one call: what it builds, what it takes over, what it refuses."""

import pathlib

import pytest

import train_decoder
from export import artifact
from export import build as builds
from export.spec import Publication, Spec
from publish import tree
from publish.collection import build_collection
from tests import photographs
from training.run_folder import RunFolder
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
            training = made.manifest["weights"]["training"]
            assert training["encoder"]["seed"] == 3
            # The deeper one did not begin with the shallower one, either.
            assert training["flags"]["initial_weights"] is None
            assert f" | {made.error:.3f} | " in page
    assert "<!-- dataset: coco-2017 -->" in page


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


def test_a_decoder_that_ships_is_the_artifact_that_its_command_builds(
    collection, tmp_path, monkeypatch, capsys
):
    folder, _ = collection
    layer, output_dir = LAYERS[0], str(tmp_path / "dist")
    shipped = {layer: RunFolder(str(folder / "runs"), layer).decoder}
    monkeypatch.setattr(weights, "pretrained_decoders", lambda: shipped)
    publication = Publication(license="cc-by-nc-4.0")
    build(tmp_path, layers=[layer], photos=None, publication=publication)
    spec = Spec("decoder", layer)
    found = artifact.read(f"{output_dir}/{spec.folder_name}")
    builds.build_decoder(spec, "pretrained", output_dir=output_dir, overwrite=True, verify=False)
    assert artifact.read(found.folder).manifest == found.manifest
    capsys.readouterr()
    build(tmp_path, layers=[layer], photos=None)
    assert f"built already: {found.folder}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "own"),
    [
        ("--layer=block1_conv2", "--layer"),
        ("--weights=random", "--weights"),
        ("--seed=3", "--seed"),
        ("--photos=photos", "--photos"),
        ("--output_dir=elsewhere", "--runs"),
    ],
)
def test_a_flag_of_training_that_the_collection_has_itself_is_refused(tmp_path, flag, own):
    name = flag.split("=")[0]
    with pytest.raises(UserError, match=f"--training_flags must not hold {name}: pass {own}="):
        build(tmp_path, training=train_decoder.parse([flag]))
    assert not list(tmp_path.iterdir())


def test_a_flag_of_training_that_suits_one_layer_alone_is_refused_before_anything_is_built(
    tmp_path,
):
    with pytest.raises(UserError, match=r"block2_conv2 failed: --crop must be a multiple of 2"):
        build(tmp_path, training=QUICK | {"crop": 33})
    assert not list(tmp_path.iterdir())


def test_an_error_of_training_says_where_its_flags_go(collection, tmp_path):
    folder, _ = collection
    run = RunFolder(str(tmp_path / "runs"), LAYERS[0])
    with run.locked():
        run.begin({}, overwrite=False)
    with pytest.raises(UserError) as caught:
        build(tmp_path, layers=LAYERS[:1], photos=str(folder / "photos"))
    message = str(caught.value)
    assert message.startswith(f"training the decoder for {LAYERS[0]} failed: {run.directory} ")
    assert "--overwrite to begin anew, or choose another --output_dir. Flags of train" in message
    assert message.endswith("go into --training_flags; its --output_dir is --runs.")


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
