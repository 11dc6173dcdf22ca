"""The whole family by one command: what it builds, what it takes over, what it refuses."""

import json
import signal
import subprocess
import sys

import pytest

from publish import tree
from tests import photographs
from tests.conftest import ROOT
from training import recipe
from unpooling import vgg19, weights

QUICK = "--crop=32 --batch_size=2 --epochs=1 --steps_per_epoch=2"


@pytest.fixture(scope="module")
def collection(run_command, tmp_path_factory):
    """A folder with the photographs, the runs and the family of two layers; and what was said."""
    folder = tmp_path_factory.mktemp("collection")
    photographs.write(folder / "photos", train=2, validation=1)
    return folder, build(
        run_command,
        folder,
        "--layer=block1_conv2",
        "--layer=block2_conv2",
        f"--photos={folder / 'photos'}",
        f"--training_flags={QUICK}",
    )


def build(run_command, folder, *flags, encoder=("--weights=random", "--seed=3")):
    return run_command(
        "build_collection.py",
        *encoder,
        f"--runs={folder / 'runs'}",
        f"--output_dir={folder / 'dist'}",
        "--decoder_dataset=coco-2017",
        *flags,
    )


def commands(result):
    lines = [line for line in result.stdout.splitlines() if line.startswith("$ ")]
    return [line.split()[2] for line in lines]


def test_it_builds_every_half_and_the_page_of_all(collection):
    folder, result = collection
    assert result.returncode == 0, result.stderr
    steps = ["build_encoder.py", "train_decoder.py", "build_decoder.py"]
    assert commands(result) == steps * 2
    found = tree.modules(str(folder / "dist" / "hub"))
    assert [module.page.name for module in found] == [
        name
        for layer in ("block1_conv2", "block2_conv2")
        for name in (vgg19.decoder_name(layer), vgg19.encoder_name(layer))
    ]
    pages = folder / "dist" / "hub" / "assets" / "docs" / "emilutz"
    page = (pages / "collections" / tree.COLLECTION / "1.md").read_text()
    for module in found:
        assert f"(/emilutz/{module.page.name}/1)" in page
        if module.kind == "decoder":
            training = module.manifest["weights"]["training"]
            assert training["encoder"]["seed"] == 3
            assert f" | {training['evaluation']['error']:.3f} | " in page
            assert f"{module.page.name}: {module.archive_bytes:,} bytes, error" in result.stdout
    assert "<!-- dataset: coco-2017 -->" in page


def test_the_deeper_decoder_begins_with_the_shallower(collection):
    _, result = collection
    assert "initial weights: decoder_block1_conv2, decoder_block1_conv1\n" in result.stdout


def test_what_is_trained_already_is_taken_over(collection, run_command):
    folder, _ = collection
    runs = folder / "runs"
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    archive = folder / "dist" / "vgg19-block1-conv2-decoder" / "decoder.tar.gz"
    built = archive.read_bytes()
    again = build(run_command, folder, "--layer=block1_conv2", "--layer=block2_conv2")
    assert again.returncode == 0, again.stderr
    assert commands(again) == []
    assert again.stdout.count("built already: ") == 4
    (folder / "dist" / "vgg19-block1-conv2" / "encoder.png").write_bytes(b"damaged")
    result = build(run_command, folder, "--layer=block1_conv2", "--overwrite")
    assert result.returncode == 0, result.stderr
    assert "to be trained: none" in result.stdout
    assert commands(result) == ["build_encoder.py", "build_decoder.py"]
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before
    assert archive.read_bytes() == built


def test_what_does_not_go_together_gets_one_line(collection, run_command, tmp_path):
    folder, _ = collection
    shallow = tmp_path / "shallow.h5"
    weights.save(str(shallow), weights.load("random", "block1_conv2", 3).layers)
    for flags, words in (
        (["--layer=block3_conv2"], "holds no trained decoder for block3_conv2: pass --photos"),
        (["--layer=block1_conv2", "--seed=4"], "was trained for an encoder with other weights"),
        (["--layer=block1_conv2", "--decoder_dataset=coco2017"], "must be a dataset tag"),
        (["--layer=block1_conv2", "--dataset=coco-2017"], "goes with --weights=PATH only"),
        (["--layer=block1_conv2", "--photos=missing"], "must be a folder with photographs"),
        (["--layer=block1_conv2", "--training_flags='"], "No closing quotation"),
        # A step that fails has given its reason; here in the line before.
        (["--layer=block1_conv2", "--publisher=other"], "build_encoder.py ended with status 1"),
    ):
        result = build(run_command, folder, *flags)
        assert result.returncode == 1
        last = result.stderr.splitlines()[-1]
        assert last.startswith("build_collection: ") and words in last
        assert "Traceback" not in result.stderr
    assert "already holds encoder.tar.gz" in result.stderr.splitlines()[-2]

    for path, words in (
        (shallow, "reaches to block1_conv2 only: leave out --layer=block2_conv2"),
        (tmp_path / "missing.h5", "missing.h5: no such file"),
    ):
        encoder = [f"--weights={path}", "--layer=block2_conv2"]
        result = build(run_command, folder, encoder=encoder)
        assert result.returncode == 1
        assert words in result.stderr.splitlines()[-1]


def test_interrupted_it_ends_its_step_and_itself(collection):
    folder, _ = collection
    command = [
        sys.executable,
        "build_collection.py",
        "--weights=random",
        "--seed=3",
        "--layer=block1_conv2",
        f"--runs={folder / 'runs'}",
        f"--output_dir={folder / 'interrupted'}",
    ]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("encoder: "):  # The step is at work.
                process.send_signal(signal.SIGTERM)
                break
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == (
        "build_collection: interrupted; the same command goes on where it was."
    )
    assert "build_encoder: interrupted; nothing is half-written." in errors
    assert "done: " not in rest
    assert not (folder / "interrupted").exists()


def test_the_weights_tell_which_layers_they_reach(tmp_path):
    assert weights.layers_of("random") == weights.layers_of("imagenet") == vgg19.LAYERS
    whole = weights.load("random", "block3_conv2").layers
    path = str(tmp_path / "weights.h5")
    weights.save(path, whole)
    assert weights.layers_of(path) == vgg19.LAYERS[:3]
    # A hole ends them, whatever comes behind it.
    weights.save(path, {name: pair for name, pair in whole.items() if name != "block2_conv2"})
    assert weights.layers_of(path) == vgg19.LAYERS[:1]
    weights.save(path, {name: pair for name, pair in whole.items() if name != "block1_conv1"})
    with pytest.raises(ValueError, match="layer block1_conv1: missing"):
        weights.layers_of(path)


def test_train_decoder_takes_every_recipe(run_many, tmp_path):
    photographs.write(tmp_path / "photos", train=1)  # None for validation: refused, but later.
    shared = ["--weights=random", f"--photos={tmp_path / 'photos'}", f"--output_dir={tmp_path}"]
    runs = [[*recipe.flags(layer, None), *shared] for layer in vgg19.LAYERS]
    lines, _ = run_many("train_decoder", runs)
    assert len(lines) == 2 * len(runs)
    assert all("none falls to validation" in line for line in lines[::2])
    assert json.dumps(recipe.flags("block2_conv2", "a b.h5")).endswith(
        '"--initial_weights=a b.h5"]'
    )
    with pytest.raises(ValueError, match="block6_conv2"):
        recipe.flags("block6_conv2", None)


def test_make_collection_has_a_variable_for_every_flag(defaults_of):
    names = defaults_of("build_collection").keys() - {"overwrite"}
    variables = [f"{name.upper()}=some value" for name in names]
    made = subprocess.run(
        ["make", "--dry-run", "collection", *variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert {name for name in names if f"--{name}='some value'" not in made} == set()
