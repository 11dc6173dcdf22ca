"""The demo draws every photograph that it can read, names the others, and writes over none."""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from export import manifest
from tests import photographs
from training import data, demo
from unpooling.errors import UserError
from unpooling.training_record import TrainingRecord


@pytest.fixture
def photograph(tmp_path):
    """A picture of 67x99 pixels, which no pooling halves evenly."""
    noise = np.random.default_rng(0).integers(0, 256, (67, 99, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def pair(build, build_decoder, layer):
    return str(build(layer) / "encoder.tar.gz"), str(build_decoder(layer) / "decoder.tar.gz")


def assert_is_drawn(path):
    with Image.open(path) as picture:
        assert min(picture.size) >= 400
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50  # not one flat colour


@pytest.mark.parametrize("layer", ["block1_conv2", "block2_conv2"])
def test_it_draws_a_photograph_of_any_size_and_measures_its_reconstruction(
    build, build_decoder, photograph, tmp_path, layer, capsys
):
    encoder, decoder = pair(build, build_decoder, layer)
    assert demo.show(encoder, decoder, [photograph], str(tmp_path / "out")) == []
    assert_is_drawn(tmp_path / "out" / "photo.png")
    assert "photo.png: mean absolute error " in capsys.readouterr().out


def test_an_encoder_alone_is_enough(build, photograph, tmp_path, capsys):
    encoder = str(build("block2_conv2") / "encoder.tar.gz")
    assert demo.show(encoder, None, [photograph], str(tmp_path / "out")) == []
    assert_is_drawn(tmp_path / "out" / "photo.png")
    assert "error" not in capsys.readouterr().out


def test_one_bad_file_does_not_stop_the_others(build, photograph, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("no picture")
    encoder = str(build("block2_conv2") / "encoder.tar.gz")
    given = [str(tmp_path / "text.jpg"), photograph]
    assert demo.show(encoder, None, given, str(tmp_path / "out")) == given[:1]
    assert_is_drawn(tmp_path / "out" / "photo.png")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("demo: ") and "text.jpg" in line


def test_a_decoder_of_another_layer_is_refused(build, build_decoder, photograph, tmp_path):
    encoder, _ = pair(build, build_decoder, "block2_conv2")
    _, decoder = pair(build, build_decoder, "block1_conv2")
    with pytest.raises(UserError, match=r"does not mirror .*: pass a pair of one layer"):
        demo.show(encoder, decoder, [photograph], str(tmp_path))


def test_halves_in_the_wrong_place_or_trained_for_others_are_refused(
    build, build_decoder, photograph, tmp_path
):
    encoder, decoder = pair(build, build_decoder, "block1_conv2")
    copy = tmp_path / "copy"
    shutil.copytree(os.path.dirname(decoder), copy)
    stated = manifest.read(str(copy / "decoder.manifest.json"))
    record = TrainingRecord("block1_conv2", {"sha256": {}}, {}, {}, 1, 1.0, {})
    stated["weights"]["training"] = record.to_dict()
    manifest.write(stated, str(copy / "decoder.manifest.json"))
    for halves, words in (
        ((decoder, encoder), "--encoder must be the archive of one"),
        ((encoder, encoder), "--decoder must be the archive of one"),
        ((encoder, str(copy / "decoder.tar.gz")), "was trained for an encoder with other weights"),
    ):
        with pytest.raises(UserError, match=words):
            demo.show(*halves, [photograph], str(tmp_path))


def test_no_input_is_written_over_and_no_two_share_a_picture(tmp_path):
    given = [str(tmp_path / name) for name in ("a/photo.jpg", "b/photo.png", "photo.png")]
    paths = demo.picture_paths(given, str(tmp_path))
    assert len({*given, *paths}) == 6
    assert [path.removeprefix(str(tmp_path)) for path in paths] == [
        "/photo-2.png",
        "/photo-3.png",
        "/photo-4.png",
    ]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "photo.jpg").touch()
    os.link(tmp_path / "a" / "photo.jpg", tmp_path / "photo.png")
    (path,) = demo.picture_paths(given[:1], str(tmp_path))
    assert path == str(tmp_path / "photo-2.png")


def test_the_photograph_that_is_shown_is_held_out_from_training(tmp_path):
    paths = demo.example_photographs(str(tmp_path))
    splits = data.split_pictures(paths, str(tmp_path))
    assert splits == {"train": sorted(paths[:-1]), "validation": paths[-1:], "test": []}


def test_it_makes_a_pair_and_draws_with_it(tmp_path, monkeypatch, capsys):
    """With so few steps that it learns next to nothing; `make demo` shows the real thing."""
    monkeypatch.setattr("export.verify.run_in_fresh_process", lambda path: print("  ok  all"))
    photos = photographs.write(tmp_path / "photos", 20, 28, train=2, validation=1)
    output, tiny = str(tmp_path / "demo"), {"crop": 16, "batch_size": 2}
    pair = demo.make_pair(output, str(tmp_path / "photos"), "block2_conv2", 3, **tiny)
    assert demo.show(*pair, photos["validation"], output) == []
    lines = capsys.readouterr().out.splitlines()
    story = [line for line in lines if line[:2] in ("1.", "2.", "3.")]
    assert [line.split()[1] for line in story] == ["Build", "Train", "Build"]
    assert f"{pair[1]}: passed 1 checks" in lines
    assert "mean absolute error " in lines[-1] and "published" not in "".join(lines)


class Flat:
    """Half of a pair, which gives back one colour and notes the sizes that it is given."""

    layer = "block2_conv2"

    def __init__(self):
        self.sizes = []

    def compact(self, images):
        self.sizes.append(np.prod(images.shape[1:3]))
        half = tf.cast(images[:, ::2, ::2, :1], tf.float32)
        return [half, tf.cast(half, tf.uint8)]

    def __call__(self, inputs):
        features, _ = inputs
        return tf.repeat(tf.repeat(tf.repeat(features, 2, 1), 2, 2), 3, 3) + 2.0


def test_a_large_photograph_is_decoded_in_tiles_and_drawn_reduced(tmp_path):
    Image.new("RGB", (3000, 2001), (8, 8, 8)).save(tmp_path / "large.png")
    encoder = Flat()
    error = demo.draw(encoder, Flat(), str(tmp_path / "large.png"), str(tmp_path / "drawn.png"))
    assert error == 2.0
    assert max(encoder.sizes) < 600**2
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert drawn.width == 4 * 440


def test_the_command_draws_what_it_can_and_names_the_rest(
    run_command, build, build_decoder, photograph, tmp_path
):
    encoder, decoder = pair(build, build_decoder, "block1_conv2")
    archives = f"--encoder={encoder}", f"--decoder={decoder}", f"--output_dir={tmp_path / 'out'}"
    result = run_command("demo.py", *archives, tmp_path / "missing.jpg", photograph)
    assert_is_drawn(tmp_path / "out" / "photo.png")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("demo: picture ") and "missing.jpg: it cannot be read" in last


def test_what_is_no_archive_is_refused(photograph, tmp_path):
    (tmp_path / "encoder.tar.gz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="not a complete gzip-compressed tar archive"):
        demo.show(str(tmp_path / "encoder.tar.gz"), None, [photograph], str(tmp_path))
