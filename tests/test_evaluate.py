"""The measurement: its figures against scikit-image's, its table, and what it refuses."""

import csv
import pathlib

import numpy as np
import pytest
import skimage.metrics
import tensorflow as tf
from PIL import Image

from tests import photographs
from training import evaluate
from training.evaluate import evaluate_folder
from unpooling import tiling, weights
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder
from unpooling.errors import UserError
from unpooling.training_record import TrainingRecord

LAYER = "block2_conv2"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    photographs.write(folder / "照片", 33, 47, train=2, validation=2, test=1)
    (folder / "text.jpg").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A decoder whose pictures are of the size of pixels, though of little likeness."""
    layers = dict(weights.load_decoder("random", LAYER).layers)
    kernel, _ = layers["decoder_block1_conv1"]
    layers["decoder_block1_conv1"] = kernel, np.full(3, 127, np.float32)
    path = tmp_path_factory.mktemp("decoder") / "decoder.h5"
    weights.save(str(path), layers)
    return str(path)


def expected(path, decoder):
    picture = np.array(Image.open(path), np.float32)[:32, :46]
    encoded = Encoder.load(LAYER, "random")(picture[np.newaxis])
    decoded = Decoder.load(LAYER, decoder)(encoded)[0].numpy()
    clipped = np.clip(decoded, 0, 255)
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return {
        "width": 46,
        "height": 32,
        "error": np.abs(picture - decoded).mean(),
        "clipped_error": np.abs(picture - clipped).mean(),
        "psnr": skimage.metrics.peak_signal_noise_ratio(picture, clipped, data_range=255),
        "ssim": skimage.metrics.structural_similarity(
            picture, clipped, data_range=255, channel_axis=-1, **gaussian
        ),
    }


def test_the_figures_are_those_of_scikit_image(photos, decoder, tmp_path, capsys):
    output = tmp_path / "evaluation.csv"
    found, left_out = evaluate_folder(
        LAYER, "random", decoder, str(photos), split="all", output=str(output)
    )
    assert left_out == [str(photos / "text.jpg")]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 of 6: text.jpg: left out: picture ")
    assert all(line.startswith(f"{n} of 6: ") for n, line in enumerate(lines, 1))
    with open(output, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == evaluate.COLUMNS
    assert rows == [{name: str(value) for name, value in row.items()} for row in found]
    paths = sorted(photos.glob("*/*.png"))
    assert [row["picture"] for row in rows] == [str(path.relative_to(photos)) for path in paths]
    for row in rows:
        for name, value in expected(photos / row["picture"], decoder).items():
            # TensorFlow's SSIM leaves out the border; scikit-image too, by another rule.
            tolerance = 0.02 if name == "ssim" else 1e-3
            np.testing.assert_allclose(float(row[name]), value, rtol=tolerance, err_msg=name)
    assert evaluate.means(found)["error"] == pytest.approx(np.mean([row["error"] for row in found]))


@pytest.mark.parametrize("layer", ["block1_conv2", "block3_conv2"])
@pytest.mark.parametrize("height, width", [(48, 100), (68, 12), (8, 100)])
def test_the_figures_are_the_same_in_tiles(layer, height, width):
    encoder = Encoder.load(layer, "random")
    decode = Decoder.load(layer, "random")
    shapes = []

    def reconstruct(images):
        shapes.append(images.shape[1:3])
        return decode(encoder.compact(images)) + 127.0

    picture = photographs.picture(0, height, width)
    images = picture[np.newaxis].astype(np.float32)
    decoded = reconstruct(images)
    clipped = tf.clip_by_value(decoded, 0.0, 255.0)
    expected = {
        "error": np.abs(images - decoded).mean(),
        "clipped_error": np.abs(images - clipped).mean(),
        "psnr": tf.image.psnr(images, clipped, 255.0)[0],
        "ssim": tf.image.ssim(images, clipped, 255.0)[0] if height > 10 else np.nan,
    }
    for side in (33, 512):
        found = evaluate.measure(layer, reconstruct, picture, side)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=2e-5, err_msg=f"{name}, {side}")


def test_no_more_than_a_tile_is_ever_computed_at_once():
    shapes = []

    def reconstruct(images):
        shapes.append(images.shape[1:3])
        return images + 1.0

    picture = np.zeros((2000, 3000, 3), np.uint8)
    found = evaluate.measure("block5_conv2", reconstruct, picture)
    assert found["error"] == found["clipped_error"] == 1.0
    assert len(shapes) == 24
    most = 512 + 2 * (tiling.margin("block5_conv2") + 16)
    assert np.max(shapes) == most and np.sum(np.prod(shapes, axis=1)) > picture.size // 3


def test_the_command_measures_what_was_held_out_wherever_it_prints(
    run_command, photos, decoder, tmp_path
):
    flags = [f"--layer={LAYER}", "--weights=random", f"--decoder={decoder}", f"--photos={photos}"]
    output, odd = tmp_path / "each.csv", next(photos.glob("*/*")).parent / "13.jpg"
    odd.write_text("no picture")
    try:
        result = run_command(
            *("-m", "training.evaluate", *flags, f"--output={output}"), PYTHONIOENCODING="ascii"
        )
    finally:
        odd.unlink()
    assert result.returncode == 1  # Since one was left out.
    assert result.stderr.splitlines()[-1] == "evaluate: 1 left out; see above."
    assert "photographs: 3 (held_out)" in result.stdout
    assert "\\u7167\\u7247/13.jpg: left out: " in result.stdout
    assert "mean absolute error, 0 to 255: " in result.stdout and "3.859" in result.stdout
    with open(output, encoding="utf-8", newline="") as file:
        assert {pathlib.Path(row["picture"]).parent.name for row in csv.DictReader(file)} == {
            "照片"
        }


@pytest.mark.parametrize(
    "change, words",
    [
        ({"decoder": "other.h5"}, "was trained for an encoder with other weights"),
        ({"decoder": "deeper.h5"}, "holds the decoder for block3_conv2"),
        ({"decoder": "missing.h5"}, "missing.h5"),
        ({"encoder": "missing.h5"}, "missing.h5"),
        ({"photos": "missing"}, "--photos must be a folder"),
        ({"photos": "few"}, "--split=held_out holds none of the 1 pictures"),
        ({"photos": "tiny"}, "none of the 1 pictures can be measured"),
        ({"output": "missing/evaluation.csv"}, "--output must be a .csv file"),
        ({"output": "photo.jpg"}, "--output must be a .csv file"),
        ({"layer": "block3_conv2"}, "decoder_block3_conv2"),
    ],
)
def test_what_is_wrong_is_refused(photos, decoder, tmp_path, monkeypatch, change, words):
    monkeypatch.chdir(tmp_path)
    photographs.write(tmp_path / "few", train=1)
    photographs.write(tmp_path / "tiny", 1, 30, test=1)
    layers = weights.load_decoder(decoder, LAYER).layers
    for name, layer in (("other.h5", LAYER), ("deeper.h5", "block3_conv2")):
        encoder = {"source": "file", "seed": None, "sha256": {"block1_conv1": "0" * 64}}
        record = TrainingRecord(layer, encoder, {}, {"train": 1}, 1, 1.0, {})
        weights.save(name, layers, record)
    right = {
        "layer": LAYER,
        "encoder": "random",
        "decoder": decoder,
        "photos": str(photos),
        "output": "evaluation.csv",
    }
    with pytest.raises(UserError, match=words):
        evaluate_folder(**{**right, **change})
    assert not (tmp_path / "evaluation.csv").exists()
