"""The measurement: its figures against scikit-image's, its table, and what it refuses."""

import csv
import pathlib
import re

import numpy as np
import pytest
import skimage.metrics
from PIL import Image

from tests import photographs
from training import evaluate
from unpooling import weights
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder

LAYER = "block2_conv2"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    paths = photographs.write(folder / "deep", 33, 47, train=2, validation=2, test=1)
    (folder / "text.jpg").write_text("no picture")
    return folder, paths


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A decoder whose pictures are of the size of pixels, though of little likeness."""
    layers = dict(weights.load_decoder("random", LAYER).layers)
    kernel, _ = layers["decoder_block1_conv1"]
    layers["decoder_block1_conv1"] = kernel, np.full(3, 127, np.float32)
    path = tmp_path_factory.mktemp("decoder") / "decoder.h5"
    weights.save(str(path), layers)
    return path


def run(run_command, photos, decoder, *flags):
    return run_command(
        "-m",
        "training.evaluate",
        f"--layer={LAYER}",
        "--weights=random",
        f"--decoder={decoder}",
        f"--photos={photos[0]}",
        *flags,
    )


def expected(path, decoder):
    encoder = Encoder(LAYER, weights.load("random", LAYER).layers)
    decoder = Decoder(LAYER, weights.load_decoder(str(decoder), LAYER).layers)
    picture = np.array(Image.open(path), np.float32)[:32, :46]
    decoded = decoder(encoder(picture[np.newaxis]))[0].numpy()
    clipped = np.clip(decoded, 0, 255)
    return {
        "width": 46,
        "height": 32,
        "error": np.abs(picture - decoded).mean(),
        "clipped_error": np.abs(picture - clipped).mean(),
        "psnr": skimage.metrics.peak_signal_noise_ratio(picture, clipped, data_range=255),
        "ssim": skimage.metrics.structural_similarity(
            picture,
            clipped,
            data_range=255,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        ),
    }


def test_the_figures_are_those_of_scikit_image(run_command, photos, decoder, tmp_path):
    folder, paths = photos
    output = tmp_path / "evaluation.csv"
    result = run(run_command, photos, decoder, "--split=all", f"--output={output}")
    assert result.returncode == 0, result.stderr
    assert "skipped 1 unreadable: text.jpg\n" in result.stdout
    with open(output, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == evaluate.COLUMNS
    assert [row["picture"] for row in rows] == sorted(
        str(pathlib.Path(path).relative_to(folder)) for split in paths.values() for path in split
    )
    for row in rows:
        for name, value in expected(folder / row["picture"], decoder).items():
            # TensorFlow's SSIM leaves out the border; scikit-image too, by another rule.
            tolerance = 0.02 if name == "ssim" else 1e-3
            np.testing.assert_allclose(float(row[name]), value, rtol=tolerance, err_msg=name)
    mean = np.mean([float(row["error"]) for row in rows])
    printed = re.search(
        r"mean absolute error, 0 to 255: (.*) \(published.*: 3.859\)", result.stdout
    )
    assert float(printed[1]) == pytest.approx(mean, abs=1e-3)
    assert np.mean([float(row["clipped_error"]) for row in rows]) < mean


def test_the_pictures_held_out_are_the_default(run_command, photos, decoder):
    result = run(run_command, photos, decoder)
    assert result.returncode == 0, result.stderr
    assert "photographs: 3 (held_out)" in result.stdout


def test_the_means_are_over_pictures_that_have_the_figure():
    rows = [
        {"error": 1.0, "clipped_error": 0.5, "psnr": 30.0, "ssim": 0.5},
        {"error": 3.0, "clipped_error": 0.5, "psnr": 40.0, "ssim": float("nan")},
    ]
    assert evaluate.summarise(rows) == {
        "error": 2.0,
        "clipped_error": 0.5,
        "psnr": 35.0,
        "ssim": 0.5,
    }


def test_small_pictures_have_no_ssim_and_tiny_ones_are_left_out(tmp_path, decoder, capsys):
    encoder_layers = weights.load("random", LAYER).layers
    decoder_layers = weights.load_decoder(str(decoder), LAYER).layers
    (path,) = photographs.write(tmp_path, 9, 30, test=1)["test"]
    (row,) = evaluate.measure(LAYER, encoder_layers, decoder_layers, [path])
    assert np.isnan(row["ssim"]) and row["error"] > 0 and row["height"] == 8
    (path,) = photographs.write(tmp_path / "tiny", 1, 30, test=1)["test"]
    assert not list(evaluate.measure(LAYER, encoder_layers, decoder_layers, [path]))
    assert capsys.readouterr().out == (
        f"left out: {path} with 30x1 pixels; `{LAYER}` needs sides of at least 2\n"
    )
    means = evaluate.summarise([row])
    assert np.isnan(means.pop("ssim")) and means == {name: row[name] for name in means}


def test_what_is_wrong_gets_one_line(run_many, photos, decoder, tmp_path):
    right = [
        f"--layer={LAYER}",
        "--weights=random",
        f"--decoder={decoder}",
        f"--photos={photos[0]}",
        f"--output={tmp_path / 'evaluation.csv'}",
    ]
    photographs.write(tmp_path / "few", train=1)
    photographs.write(tmp_path / "tiny", 1, 30, test=1)
    layers = weights.load_decoder(str(decoder), LAYER).layers
    digests = {"block1_conv1": "0" * 64}
    other = tmp_path / "other.h5"
    weights.save(str(other), layers, {"encoder": {"sha256": digests}})
    wrong = {
        f"--decoder={other}": "was trained for an encoder with other weights",
        "--split=other": "all|train|validation|test|held_out",
        "--decoder=missing.h5": "missing.h5: no such file",
        "--weights=missing.h5": "missing.h5: no such file",
        "--photos=missing": "`photos` must be a folder",
        f"--photos={tmp_path / 'few'}": "--split=held_out holds none of the 1 pictures",
        f"--photos={tmp_path / 'tiny'}": "is large enough",
        "--output=missing/evaluation.csv": "--output must be a file in an existing folder",
        "--layer=block3_conv2": "layer decoder_block3_conv2: missing",
    }
    runs = [[*right, flag] for flag in wrong]
    lines, _ = run_many("training.evaluate", runs)
    assert lines[1::2] == ["status: 1"] * len(wrong)
    for line, words in zip(lines[::2], wrong.values(), strict=True):
        assert line.startswith("evaluate: ") and words in line
    assert not (tmp_path / "evaluation.csv").exists()
