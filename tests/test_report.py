"""The report on training runs: its table, its pictures, what it does not take for finished."""

import dataclasses
import pathlib

import numpy as np
import pytest
from PIL import Image

from training.report import report
from training.run_folder import RunFolder
from unpooling import weights
from unpooling.errors import UserError
from unpooling.training_record import TrainingRecord

LAYER = "block2_conv2"
MEANS = {"photographs": 2, "error": 5.25, "clipped_error": 5.125, "psnr": 30.5, "ssim": 0.75}


@pytest.fixture
def finished(tmp_path):
    """A finished run, written by hand, and its record."""
    encoder = weights.load("random", LAYER)
    record = TrainingRecord(
        layer=LAYER,
        encoder={"source": "random", "seed": 0, "sha256": encoder.digests},
        flags={"batch_size": 8, "crop": 96},
        photographs={"train": 1, "validation": 1, "test": 1},
        steps=6000,
        feature_scale=1.0,
        validation={},
        evaluation=MEANS,
    )
    folder = RunFolder(str(tmp_path / "runs"), LAYER)
    with folder.locked():
        folder.begin({}, overwrite=False)
        weights.save(folder.decoder, weights.load_decoder("random", LAYER).layers, record)
        pathlib.Path(folder.history).write_text("epoch,l1,val_l1\n0,9.0,8.0\n1,7.0,6.0\n")
        pathlib.Path(folder.backup).touch()
        folder.end()
    return folder, record


def run(tmp_path, photo=None):
    return report(str(tmp_path / "runs"), "random", str(tmp_path / "out"), photo=photo)


def test_the_table_and_the_pictures(finished, tmp_path):
    *_, row = run(tmp_path).splitlines()
    assert row == (
        "| `block2_conv2` | 3.859 | **5.250** | 5.125 | 30.50 | 0.7500 | 6,000 | 8 x 96² |"
    )
    for name in ("curves.png", "reconstructions.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert min(picture.size) >= 400
            assert len(np.unique(picture.convert("L"))) > 50


def test_what_is_not_finished_or_says_too_little_is_refused(finished, tmp_path):
    folder, record = finished
    with pytest.raises(UserError, match="would be written over"):
        run(tmp_path, str(tmp_path / "out" / ".." / "out" / "curves.png"))
    layers = weights.load_decoder("random", LAYER).layers
    for without in ({"evaluation": None}, {"flags": {}}):
        weights.save(folder.decoder, layers, dataclasses.replace(record, **without))
        with pytest.raises(UserError, match="does not say how its decoder was trained and how"):
            run(tmp_path)
    weights.save(folder.decoder, layers, record)
    pathlib.Path(folder.history).write_text("epoch,l2\n0,1\n")
    with pytest.raises(UserError, match="train it again, with an --l1_weight"):
        run(tmp_path)
    folder.begin({}, overwrite=True)
    with pytest.raises(UserError, match="holds no trained decoder"):
        run(tmp_path)
