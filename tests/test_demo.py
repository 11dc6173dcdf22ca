"""The demonstration leaves a picture of every photograph, and says what it cannot read."""

import re

import numpy as np
import pytest
from PIL import Image


@pytest.mark.parametrize("layer", ["block1_conv2", "block2_conv2", "block5_conv2"])
def test_it_draws_a_picture_of_a_photograph_of_any_size(build, run_command, tmp_path, layer):
    noise = np.random.default_rng(0).integers(0, 256, (67, 99, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    Image.fromarray(noise[..., 0]).save(tmp_path / "grey.png")
    result = run_command(
        "demo.py",
        f"--archive={build(layer) / 'encoder.tar.gz'}",
        f"--output_dir={tmp_path / 'pictures'}",
        tmp_path / "photo.png",
        tmp_path / "grey.png",
    )
    assert result.returncode == 0, result.stderr
    for name in ("photo.png", "grey.png"):
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert min(picture.size) >= 400
            assert len(set(picture.convert("L").getdata())) > 50  # not one flat colour
    assert result.stdout.count("unpool: ") == 2 * (int(layer[5]) - 1)


def test_without_a_photograph_it_takes_one_of_scikit_image(build, run_command, tmp_path):
    result = run_command(
        "demo.py",
        f"--archive={build('block2_conv2') / 'encoder.tar.gz'}",
        f"--output_dir={tmp_path}",
    )
    assert result.returncode == 0, result.stderr
    assert "encode: 512x512 pixels" in result.stdout
    assert (tmp_path / "astronaut.png").exists()


def test_what_is_no_picture_gets_one_line(build, run_command, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    archive = f"--archive={build('block2_conv2') / 'encoder.tar.gz'}"
    result = run_command("demo.py", archive, f"--output_dir={tmp_path}", tmp_path / "text.jpg")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("demo: cannot identify image file")
    assert "Traceback" not in result.stderr


def test_a_photograph_too_small_gets_one_line(build, run_command, tmp_path):
    Image.fromarray(np.zeros((10, 40, 3), np.uint8)).save(tmp_path / "small.png")
    archive = f"--archive={build('block5_conv2') / 'encoder.tar.gz'}"
    result = run_command(
        "demo.py", archive, f"--output_dir={tmp_path / 'pictures'}", tmp_path / "small.png"
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].endswith("at least 16 pixels. Received: 40x10.")
    assert "Traceback" not in result.stderr


def test_what_is_no_archive_gets_one_line(run_command, tmp_path):
    (tmp_path / "encoder.tar.gz").write_bytes(b"no archive")
    result = run_command(
        "demo.py", f"--archive={tmp_path / 'encoder.tar.gz'}", f"--output_dir={tmp_path}"
    )
    assert result.returncode == 1
    assert "not a complete gzip-compressed tar archive" in result.stderr.splitlines()[-1]


def test_a_decoder_is_trained_on_the_spot(run_command, tmp_path):
    """With so few steps that it learns next to nothing; `make demo` shows the real thing."""
    result = run_command(
        "demo_decoder.py", "--layer=block1_conv2", "--steps=3", f"--output_dir={tmp_path}"
    )
    assert result.returncode == 0, result.stderr
    said = re.search(
        r"^mean absolute error of coffee.jpg, 0 to 255: (\d+\.\d+)$", result.stdout, re.MULTILINE
    )
    # That photograph was held out, and is the only one that was.
    assert "photographs: 5 train, 1 validation, 0 test" in result.stdout
    assert f"held out: 1 photographs, mean absolute error {said[1]} " in result.stdout
    with Image.open(tmp_path / "reconstruction.png") as picture:
        assert min(picture.size) >= 400
        assert len(set(picture.convert("L").getdata())) > 50


def test_a_decoder_that_cannot_be_made_gets_one_line(run_command, tmp_path):
    (tmp_path / "file").write_text("no folder")
    result = run_command("demo_decoder.py", f"--output_dir={tmp_path / 'file'}")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("demo_decoder: ")
    assert "Traceback" not in result.stderr
