"""The report on decoders: its sets, its tables, its pictures, what it refuses."""

import csv
import dataclasses
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from tests import photographs
from training import photo_sets, report
from training.run_folder import RunFolder
from unpooling import weights
from unpooling.errors import UserError
from unpooling.training_record import TrainingRecord

LAYER = "block2_conv2"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Two small pictures in the place of scikit-image's; no decoder ships."""

    def write(folder):
        return photographs.write(pathlib.Path(folder), 24, 40, train=2)["train"]

    monkeypatch.setattr(photo_sets, "write_scikit_image", write)
    monkeypatch.setattr(weights, "pretrained_decoders", dict)


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
    )
    folder = RunFolder(str(tmp_path / "runs"), LAYER)
    with folder.locked():
        folder.begin({}, overwrite=False)
        weights.save(folder.decoder, weights.load_decoder("random", LAYER).layers, record)
        pathlib.Path(folder.history).write_text("epoch,l1,val_l1\n0,9.0,8.0\n1,7.0,6.0\n")
        pathlib.Path(folder.backup).touch()
        folder.end()
    return folder, record


def run(tmp_path, photo=None, **options):
    folders = str(tmp_path / "runs"), "random", str(tmp_path / "out")
    return report.report(*folders, photo=photo or str(tmp_path / "photo.png"), **options)


@pytest.fixture(autouse=True)
def photo(tmp_path):
    Image.fromarray(photographs.picture(9, 90, 120)).save(tmp_path / "photo.png")


def test_sets_are_measured_apart(finished, tmp_path, monkeypatch, capsys):
    photographs.write(tmp_path / "outer", 24, 40, train=2, validation=2)
    photographs.write(tmp_path / "outer" / "inner", 26, 40, train=1, test=1)
    sets = [f"outer={tmp_path / 'outer'}", f"in: side={tmp_path / 'outer' / 'inner'}:all"]
    worst = []
    monkeypatch.setattr(report.panels, "draw_worst", lambda path, shown: worst.append(shown))
    text, left_out = run(tmp_path, sets=sets, worst_of="in: side")
    assert not left_out

    with open(tmp_path / "out" / "errors.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["set"] for row in rows] == ["outer"] * 2 + ["in: side"] * 2 + ["scikit-image"] * 2
    assert {row["layer"] for row in rows} == {LAYER}
    assert [row["height"] for row in rows] == ["24", "24", "26", "26", "24", "24"]
    errors, means = text.split("\n\n")
    mean = {
        name: np.mean([float(r["error"]) for r in rows if r["set"] == name])
        for name in ("outer", "in: side", "scikit-image")
    }
    cells = " | ".join(f"{value:.3f}" for value in mean.values())
    assert errors.splitlines()[-1] == f"| `{LAYER}` | 3.859 | {cells} | 6,000 | 8 x 96² |"
    assert len(means.splitlines()) == 5
    assert means.splitlines()[2].startswith(f"| outer | `{LAYER}` | 2 | {mean['outer']:.3f} | ")

    ((shown,),) = (list(groups.values()) for groups in worst)
    found = [float(caption.split(": ")[1]) for caption, _, _ in shown]
    assert found == sorted((round(float(r["error"]), 2) for r in rows[2:4]), reverse=True)
    for caption, picture, decoded in shown:
        error = np.abs(picture - decoded).mean()
        assert caption.endswith(f": {error:.2f}") and picture.shape == (26, 40, 3)


def test_the_pictures(finished, tmp_path):
    run(tmp_path)
    for name in ("curves.png", "reconstructions.jpg", "errors.png", "worst.jpg"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert min(picture.size) >= 150
            assert len(np.unique(picture.convert("L"))) > 50


def test_the_part_that_is_shown_is_where_errors_are_greatest():
    errors = np.zeros((200, 300), np.float32)
    errors[120:130, 240:250] = 1
    top, left, side = report.panels._worst_part(errors)
    assert side == 96 and 34 <= top <= 120 and 154 <= left <= 204


def test_scikit_images_photographs_need_no_network(tmp_path, monkeypatch):
    monkeypatch.undo()
    paths = photo_sets.write_scikit_image(str(tmp_path))
    shapes = [np.asarray(Image.open(path)).shape for path in paths]
    assert len(shapes) == 7 and {shape[2:] for shape in shapes} == {(3,)}


@pytest.mark.parametrize(
    "sets, words",
    [
        (["photos"], "NAME=FOLDER or NAME=FOLDER:SPLIT"),
        (["=photos"], "NAME=FOLDER or NAME=FOLDER:SPLIT"),
        (["scikit-image=photos"], "a name and a folder of its own"),
        (["a=photos", "a=other"], "a name and a folder of its own"),
        (["a=photos", "b=photos/"], "a name and a folder of its own"),
        (["a=missing"], "--photos must be a folder"),
        (["a=photos:test"], r"--set=a=\S*photos:test holds no photograph"),
    ],
)
def test_sets_that_are_wrong_are_refused(tmp_path, monkeypatch, sets, words):
    monkeypatch.chdir(tmp_path)
    photographs.write(tmp_path / "photos", train=1, validation=1)
    with pytest.raises(UserError, match=words):
        photo_sets.find_sets(sets)


def test_a_photograph_has_the_split_that_it_has_in_the_outer_folder(tmp_path):
    (name,) = photographs.write(tmp_path / "photos", test=1)["test"]
    inner = tmp_path / "photos" / "inner"
    for number in range(40):  # The second of a name has the split of its path.
        (inner / str(number)).mkdir(parents=True)
        shutil.copy(name, inner / str(number))
    sets = photo_sets.find_sets([f"outer={tmp_path / 'photos'}", f"inner={inner}"])
    assert sets["outer"] == (str(tmp_path / "photos"), [name])
    assert 0 < len(sets["inner"][1]) < 20


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(
    finished, tmp_path, monkeypatch
):
    monkeypatch.setattr(report, "evaluate", lambda *_: pytest.fail("too late"))
    (tmp_path / "out").touch()
    with pytest.raises(FileExistsError):
        run(tmp_path)
    (tmp_path / "out").unlink()
    monkeypatch.setattr(report.os, "access", lambda *_: False)  # root may write everywhere.
    with pytest.raises(UserError, match="out may not be written: choose another --output_dir"):
        run(tmp_path)


def test_what_is_not_finished_or_says_too_little_is_refused(finished, tmp_path):
    folder, record = finished
    (tmp_path / "out").mkdir()
    shutil.copy(tmp_path / "photo.png", tmp_path / "out" / "curves.png")
    for options in (
        {"photo": str(tmp_path / "out" / ".." / "out" / "curves.png")},
        {"sets": [f"out={tmp_path / 'out'}:all"]},
    ):
        with pytest.raises(UserError, match="would be written over"):
            run(tmp_path, **options)
    with pytest.raises(UserError, match="--worst_of=other is not the name of a set"):
        run(tmp_path, worst_of="other")
    layers = weights.load_decoder("random", LAYER).layers
    weights.save(folder.decoder, layers, dataclasses.replace(record, flags={}))
    with pytest.raises(UserError, match="does not say how its decoder was trained"):
        run(tmp_path)
    weights.save(folder.decoder, layers, record)
    pathlib.Path(folder.history).write_text("epoch,l2\n0,1\n")
    with pytest.raises(UserError, match="train it again, with an --l1_weight"):
        run(tmp_path)
    folder.begin({}, overwrite=True)
    with pytest.raises(UserError, match="holds no trained decoder"):
        run(tmp_path)
