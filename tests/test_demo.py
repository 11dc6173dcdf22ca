"""The demo draws every photograph that it can read, names the others, and writes over none."""

import numpy as np
import pytest
from PIL import Image

from training import data, demo
from unpooling.errors import UserError


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


@pytest.mark.parametrize("layer", ["block1_conv2", "block3_conv2"])
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


def test_no_input_is_written_over_and_no_two_share_a_picture(tmp_path):
    given = [str(tmp_path / name) for name in ("a/photo.jpg", "b/photo.png", "photo.png")]
    paths = demo.picture_paths(given, str(tmp_path))
    assert len({*given, *paths}) == 6
    assert [path.removeprefix(str(tmp_path)) for path in paths] == [
        "/photo-2.png",
        "/photo-3.png",
        "/photo-4.png",
    ]


def test_the_photograph_that_is_shown_is_held_out_from_training(tmp_path):
    paths = demo.example_photographs(str(tmp_path))
    splits = data.split_pictures(paths, str(tmp_path))
    assert splits == {"train": paths[:-1], "validation": paths[-1:], "test": []}


@pytest.mark.slow
def test_the_command_makes_a_pair_and_draws_it(run_command, tmp_path):
    """With so few steps that it learns next to nothing; `make demo` shows the real thing."""
    result = run_command("demo.py", "--layer=block2_conv2", "--steps=3", f"--output_dir={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert_is_drawn(tmp_path / "coffee.png")
    assert "coffee.jpg: mean absolute error " in result.stdout.splitlines()[-1]


def test_the_command_refuses_what_is_no_archive(run_command, tmp_path):
    (tmp_path / "encoder.tar.gz").write_bytes(b"no archive")
    flags = f"--encoder={tmp_path / 'encoder.tar.gz'}", f"--output_dir={tmp_path}"
    result = run_command("demo.py", *flags)
    assert result.returncode == 1
    assert "not a complete gzip-compressed tar archive" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
