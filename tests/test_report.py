"""The report on training runs: its table, its pictures, what it does not take for finished."""

import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from tests import photographs
from training import draw, evaluate, run_folder
from unpooling import weights

LAYER = "block2_conv2"


@pytest.fixture
def runs(tmp_path):
    """A folder with a finished run, written by hand."""
    encoder = weights.load("random", LAYER).layers
    layers = weights.load_decoder("random", LAYER).layers
    paths = photographs.write(tmp_path / "photos", test=2)["test"]
    means = evaluate.summarise(list(evaluate.measure(LAYER, encoder, layers, paths)))
    made = run_folder.Run(str(tmp_path / "runs"), LAYER)
    with made.locked():
        made.begin({})
        training = {
            "flags": {"batch_size": 8, "crop": 96},
            "steps": 6000,
            "evaluation": {"photographs": 2, **means},
        }
        weights.save(made.decoder, layers, training)
        pathlib.Path(made.history).write_text("epoch,l1,val_l1\n0,9.0,8.0\n1,7.0,6.0\n")
        made.end()
    return means


def test_the_table_and_the_pictures(run_many, runs, tmp_path):
    means = runs
    flags = ["--weights=random", f"--runs={tmp_path / 'runs'}", f"--output_dir={tmp_path / 'out'}"]
    lines, output = run_many("training.report", [flags])
    assert lines == ["status: 0"]
    row = (
        f"| `block2_conv2` | 3.859 | **{means['error']:.3f}** | {means['clipped_error']:.3f} "
        f"| {means['psnr']:.2f} | {means['ssim']:.4f} | 6,000 | 8 x 96² |\n"
    )
    assert row in output
    for name in ("curves.png", "reconstructions.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert min(picture.size) >= 400
            assert len(set(picture.convert("L").getdata())) > 50


def test_what_is_not_finished_or_says_too_little_is_refused(run_many, runs, tmp_path):
    layers = weights.load_decoder("random", LAYER).layers
    cases = []

    def case(words, change, *flags):
        folder = tmp_path / f"case{len(cases)}"
        shutil.copytree(tmp_path / "runs", folder)
        change(run_folder.Run(str(folder), LAYER))
        cases.append((words, ["--weights=random", f"--runs={folder}", *flags]))

    (small,) = photographs.write(tmp_path / "small", test=1)["test"]
    size = "must have sides of at least 96 pixels. Received: 48x32."
    case(size, lambda made: None, f"--photo={small}")
    case("holds no trained decoder", lambda made: made.begin({}))
    no_error = "epoch,l2\n0,1\n"
    case("has no `val_l1`", lambda made: pathlib.Path(made.history).write_text(no_error))
    for training in (None, {}, {"evaluation": {"error": "low"}}, {"encoder": "x", "flags": 3}):
        case(
            "does not say how it was trained and how good it is",
            lambda made, training=training: weights.save(made.decoder, layers, training),
        )
    flags = [[*flags, f"--output_dir={tmp_path / 'out'}"] for _, flags in cases]
    lines, _ = run_many("training.report", flags)
    assert lines[1::2] == ["status: 1"] * len(cases)
    for line, (words, _) in zip(lines[::2], cases, strict=True):
        assert line.startswith("report: ") and words in line


def test_pictures_show_what_they_are_given(tmp_path):
    picture = photographs.picture(1, 128, 160)
    draw.reconstructions(str(tmp_path / "a.png"), picture, {"same": picture * 1.0}, (500, 500))
    draw.reconstructions(str(tmp_path / "b.png"), picture, {"same": 0.0 * picture}, (500, 500))
    with Image.open(tmp_path / "a.png") as a, Image.open(tmp_path / "b.png") as b:
        assert np.mean(np.asarray(b.convert("L"))) < np.mean(np.asarray(a.convert("L")))
