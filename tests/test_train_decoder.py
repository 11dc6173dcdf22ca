"""The command: what it writes, how it goes on after a kill, what it refuses, several workers."""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from export import checksums
from tests import photographs
from tests.conftest import ROOT
from unpooling import weights

FOLDER = "vgg19-block1-conv2-decoder"
METRICS = ("l1", "l2", "loss", "perceptual")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    photographs.write(folder, train=6, validation=3, test=1)
    return folder


@pytest.fixture
def flags(photos, tmp_path):
    """A run of some seconds."""
    return [
        "--layer=block1_conv2",
        "--weights=random",
        f"--photos={photos}",
        f"--output_dir={tmp_path / 'out'}",
        "--crop=32",
        "--batch_size=2",
        "--epochs=2",
        "--ms_ssim_weight=0",
    ]


def history(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files_below(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_what_a_run_leaves(run_command, run_many, photos, flags, tmp_path):
    result = run_command("train_decoder.py", *flags)
    assert result.returncode == 0, result.stderr
    steps = [line.split(":")[0] for line in result.stdout.splitlines()]
    assert [s for s in steps if not s.startswith(("Epoch", "3/3"))] == [
        "weights",
        "photographs",
        "decoder",
        "held out",
        "done",
    ]
    folder = tmp_path / "out" / FOLDER
    found = files_below(folder)
    curves = [name for name in found if name.startswith("tensorboard/")]
    assert [name for name in found if name not in curves] == [
        "decoder.h5",
        "history.csv",
        "run.json",
        "samples/epoch-001.png",
        "samples/epoch-002.png",
    ]

    rows = history(folder / "history.csv")
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert rows[0].keys() == {"epoch", *METRICS, *(f"val_{name}" for name in METRICS)}
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])

    # Three held-out pictures above three reconstructions.
    drawing = np.array(Image.open(folder / "samples" / "epoch-002.png"))
    assert drawing.shape == (64, 96, 3)

    points = {}
    for path in curves:
        for event in tf.compat.v1.train.summary_iterator(str(folder / path)):
            for value in event.summary.value:
                points[path.split("/")[1], value.tag, event.step] = value.simple_value
    tags = [("train", name) for name in (*METRICS, "learning_rate")]
    tags += [("validation", name) for name in METRICS]
    assert points.keys() == {(r, f"epoch_{name}", step) for r, name in tags for step in (0, 1)}
    np.testing.assert_allclose(points["train", "epoch_l1", 1], float(rows[1]["l1"]), rtol=1e-6)
    # Linear from 1e-3 to 2e-4 in six steps: half way after three.
    np.testing.assert_allclose(points["train", "epoch_learning_rate", 0], 6e-4, rtol=1e-5)
    np.testing.assert_allclose(points["train", "epoch_learning_rate", 1], 2e-4, rtol=1e-5)

    loaded = weights.load_decoder(str(folder / "decoder.h5"), "block1_conv2")
    training = loaded.training
    assert training["layer"] == "block1_conv2"
    assert training["photographs"] == {"train": 6, "validation": 3, "test": 1}
    assert (training["flags"]["epochs"], training["steps"]) == (2, 6)
    assert training["encoder"]["sha256"] == {
        name: checksums.layer_sha256(*pair)
        for name, pair in weights.load("random", "block1_conv2").layers.items()
    }
    assert training["flags"]["learning_rate"] == 1e-3
    assert training["flags"]["photos"] == photos.name
    assert training["validation"]["l1"] == pytest.approx(float(rows[1]["val_l1"]))
    assert str(tmp_path) not in json.dumps(training)

    # How good it is: as the command for that finds it.
    lines, output = run_many(
        "training.evaluate",
        [
            [
                "--layer=block1_conv2",
                "--weights=random",
                f"--photos={photos}",
                f"--decoder={folder / 'decoder.h5'}",
            ]
        ],
    )
    assert lines == ["status: 0"]
    evaluation = training["evaluation"]
    assert evaluation.keys() == {"photographs", "error", "clipped_error", "psnr", "ssim"}
    assert evaluation["photographs"] == 4
    assert f"mean absolute error, 0 to 255: {evaluation['error']:.3f} " in output
    assert f"mean absolute error {evaluation['error']:.3f} (published: 2.494)" in result.stdout

    # A finished run is not touched, even by the same flags.
    before = {name: (folder / name).read_bytes() for name in found}
    lines, _ = run_many("train_decoder", [flags])
    assert lines[1] == "status: 1"
    assert "already holds decoder.h5: pass --overwrite" in lines[0]
    assert {name: (folder / name).read_bytes() for name in files_below(folder)} == before

    # With --overwrite it is; here with its own decoder for a start, which is better than random.
    initial = f"--initial_weights={folder / 'decoder.h5'}"
    lines, output = run_many("train_decoder", [[*flags, initial, "--overwrite", "--epochs=1"]])
    assert lines == ["status: 0"]
    assert "initial weights: decoder_block1_conv2, decoder_block1_conv1\n" in output
    again = history(folder / "history.csv")
    assert len(again) == 1
    assert float(again[0]["l1"]) < float(rows[0]["l1"])
    assert "samples/epoch-002.png" not in files_below(folder)


def start(*flags, **environment):
    return subprocess.Popen(
        [sys.executable, "train_decoder.py", *flags],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_after_a_kill_it_goes_on_where_the_last_epoch_ended(run_command, run_many, flags, tmp_path):
    # bfloat16 too: what is kept between epochs is float32.
    flags = [*flags, "--epochs=3", "--steps_per_epoch=6", "--precision=bfloat16"]
    whole = run_command("train_decoder.py", *flags, f"--output_dir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr

    folder = tmp_path / "out" / FOLDER
    process = start(*flags)
    while not (folder / "backup" / "epoch-0001").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "decoder.h5").exists()

    # What a kill in the midst of saving leaves, and an epoch that was noted and not kept.
    (folder / "backup" / "partial").mkdir(exist_ok=True)
    (folder / "backup" / "partial" / "latest.weights.h5").write_bytes(b"cut short")
    kept = max(int(p.name[-4:]) for p in (folder / "backup").glob("epoch-*"))
    rows = history(folder / "history.csv")
    with open(folder / "history.csv", "a", encoding="utf-8") as file:
        file.write(",".join([str(len(rows)), *["0"] * (len(rows[0]) - 1)]) + "\n")

    other = [*flags, "--learning_rate=0.002"]
    lines, output = run_many("train_decoder", [other, flags])
    assert lines[1:] == ["status: 1", "status: 0"], lines
    assert "interrupted run of another kind (--learning_rate=0.001, now 0.002): pass" in lines[0]
    assert f"resumed: after epoch {kept}\n" in output
    rows = history(folder / "history.csv")
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    expected = history(tmp_path / "whole" / FOLDER / "history.csv")
    for row, other in zip(rows, expected, strict=True):
        for name in row:
            np.testing.assert_allclose(float(row[name]), float(other[name]), rtol=0.01)
    assert len(list((folder / "samples").iterdir())) == 3
    assert json.loads((folder / "run.json").read_text())["finished"]
    assert not (folder / "backup").exists()


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def test_two_workers_end_with_equal_weights(flags, tmp_path):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]

    def run_both(*more):
        workers = []
        for index, own in enumerate(more or ([], [])):
            task = {"type": "worker", "index": index}
            config = json.dumps({"cluster": {"worker": addresses}, "task": task})
            workers.append(start(*flags, *own, "--strategy=multi_worker", TF_CONFIG=config))
        try:
            return [(w.communicate(timeout=200), w.returncode) for w in workers]
        finally:
            for worker in workers:
                worker.kill()

    results = run_both()
    digests = set()
    for (out, err), status in results:
        assert status == 0, err
        digests |= {line for line in out.splitlines() if line.startswith("decoder: SHA-256")}
    assert len(digests) == 1
    folder = tmp_path / "out" / FOLDER
    rows = history(folder / "history.csv")
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    loaded = weights.load_decoder(str(folder / "decoder.h5"), "block1_conv2").layers
    found = "".join(checksums.layer_sha256(*pair) for pair in loaded.values()).encode()
    assert checksums.digest(found)["sha256"] in digests.pop()

    # If worker 0 may not begin, worker 1 does not wait for it.
    for (_, err), status in run_both():
        assert status == 1
        assert "already holds" in err or "another worker failed" in err

    # Nor do they train two different things, or from two places.
    for (_, err), status in run_both(["--overwrite"], ["--overwrite", "--epochs=3"]):
        assert status == 1
        assert "the workers do not agree on what is to be trained" in err


def test_two_devices_share_each_batch(run_many, flags, tmp_path):
    one = [*flags, "--epochs=1"]
    runs, folders = [], []
    for optimizer in ("adam", "muon"):
        for strategy in ("one", "mirrored"):
            folders.append(tmp_path / optimizer / strategy)
            own = [f"--optimizer={optimizer}", f"--strategy={strategy}"]
            runs.append([*one, *own, f"--output_dir={folders[-1]}"])
    runs.append([*runs[-1], "--batch_size=3", "--overwrite"])
    lines, _ = run_many("train_decoder", runs)
    assert [x for x in lines if x.startswith("status")] == ["status: 0"] * 4 + ["status: 1"]
    assert "--batch_size must be a multiple of 2" in lines[-2]
    for alone, shared in (folders[:2], folders[2:]):
        (alone,), (shared,) = (history(f / FOLDER / "history.csv") for f in (alone, shared))
        for name, value in alone.items():
            np.testing.assert_allclose(float(shared[name]), float(value), rtol=1e-3, err_msg=name)


def test_what_cannot_be_trained_gets_one_line_and_leaves_nothing(run_many, flags, tmp_path):
    photographs.write(tmp_path / "few", train=2)
    (tmp_path / "none").mkdir()
    (tmp_path / "text.h5").write_text("no weights")
    wrong = {
        f"--photos={tmp_path / 'missing'}": "`photos` must be a folder",
        f"--photos={tmp_path / 'none'}": "`photos` must hold pictures",
        f"--photos={tmp_path / 'few'}": "none falls to validation",
        f"--weights={tmp_path / 'missing.h5'}": "no such file",
        f"--weights={tmp_path / 'text.h5'}": "not a readable HDF5 file",
        f"--initial_weights={tmp_path / 'missing.h5'}": "no such file",
        f"--initial_weights={tmp_path / 'text.h5'}": "not a readable HDF5 file",
        f"--output_dir={tmp_path / 'text.h5'}": "text.h5",
        "--strategy=multi_worker": "TF_CONFIG",
    }
    lines, _ = run_many("train_decoder", [[*flags, flag] for flag in wrong], TF_CONFIG="")
    assert len(lines) == 2 * len(wrong), lines
    for line, status, words in zip(lines[::2], lines[1::2], wrong.values(), strict=True):
        assert line.startswith("train_decoder: ") and words in line
        assert status == "status: 1"
    assert not list((tmp_path / "out").glob("*"))


def test_a_photograph_that_vanishes_ends_the_run_in_one_line(flags, tmp_path):
    photographs.write(tmp_path / "photos", train=6, validation=3)
    process = start(*flags, f"--photos={tmp_path / 'photos'}", "--epochs=1000")
    while not (tmp_path / "out" / FOLDER / "backup").exists() and process.poll() is None:
        time.sleep(0.01)
    shutil.rmtree(tmp_path / "photos")
    _, error = process.communicate(timeout=200)
    assert process.returncode == 1
    (line,) = [x for x in error.splitlines() if x.startswith("train_decoder: ")]
    assert "No such file" in line and ".py" not in line and "Traceback" not in error


def test_what_is_trained_is_not_lost_when_measuring_fails(run_command, run_many, flags, tmp_path):
    photos = tmp_path / "photos"
    photographs.write(photos, train=6, validation=2)
    # Too small for block2's one pooling; training continues it by reflection.
    photographs.write(photos, 1, 30, test=1)
    flags = [*flags, "--layer=block2_conv2", f"--photos={photos}", "--steps_per_epoch=3"]
    program = (
        "import sys, train_decoder as t; from training import evaluate\n"
        "def measure(*_): raise OSError('no memory left')\n"
        "evaluate.measure = measure; t.FLAGS(sys.argv); sys.exit(t.main())"
    )
    result = run_command("-c", program, *flags)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "train_decoder: no memory left"
    path = tmp_path / "out" / "vgg19-block2-conv2-decoder" / "decoder.h5"
    trained = weights.load_decoder(str(path), "block2_conv2")
    assert "evaluation" not in trained.training

    (photos / "another.png").write_bytes((next(photos.glob("*.png"))).read_bytes())
    lines, _ = run_many("train_decoder", [flags])
    assert lines[1] == "status: 1" and "of another kind (other photographs): pass" in lines[0]
    (photos / "another.png").unlink()

    lines, output = run_many("train_decoder", [[*flags, "--evaluation_pictures=2"]])
    assert lines == ["status: 0"], lines
    assert "resumed: after epoch 2\n" in output
    assert "with 30x1 pixels; `block2_conv2` needs sides of at least 2\n" in output
    finished = weights.load_decoder(str(path), "block2_conv2")
    assert finished.training["evaluation"]["photographs"] == 1
    for name, pair in finished.layers.items():
        for found, expected in zip(pair, trained.layers[name], strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_loss_that_is_not_finite_ends_the_run(run_many, flags, tmp_path):
    lines, _ = run_many("train_decoder", [[*flags, "--learning_rate=1e30"]])
    assert lines[1] == "status: 1"
    assert "begin with a lower --learning_rate" in lines[0]
    assert not (tmp_path / "out" / FOLDER / "decoder.h5").exists()
    assert not (tmp_path / "out" / FOLDER / "backup").exists()


@pytest.mark.parametrize(
    "wrong, words",
    [
        (["--layer=block6_conv2"], "block6_conv2"),
        (["--weights="], "--weights="),
        (["--epochs=0"], "--epochs"),
        (["--batch_size=0"], "--batch_size"),
        (["--steps_per_epoch=0"], "--steps_per_epoch"),
        (["--seed=-1"], "--seed"),
        (["--learning_rate=-1"], "--learning_rate"),
        (["--l1_weight=-1"], "--l1_weight"),
        (["--learning_rate=nan"], "--learning_rate=nan: must be a finite number"),
        (["--photos="], "--photos=: must be a folder"),
        (["--precision=float16"], "float32|bfloat16"),
        (["--strategy=many"], "one|mirrored|multi_worker"),
        (["--crop=100", "--ms_ssim_weight=1"], "--crop must be >= 176, or pass --ms_ssim_weight=0"),
        (["--layer=block3_conv2", "--crop=34"], "--crop must be a multiple of 2^(K-1)"),
        (["--l1_weight=0", "--l2_weight=0", "--perceptual_weight=0"], "at least one"),
        (["photo.jpg"], "no arguments but flags"),
        (["--no_such_flag"], "no_such_flag"),
    ],
)
def test_wrong_flags_get_one_line(run_command, flags, tmp_path, wrong, words):
    result = run_command("train_decoder.py", *flags, *wrong)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("train_decoder: ") and words in line
    assert not (tmp_path / "out").exists()


def test_photos_must_be_given(run_command):
    result = run_command("train_decoder.py")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("train_decoder: ") and "--photos" in line


def test_the_document_explains_every_flag(defaults_of):
    text = (ROOT / "docs" / "decoders.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `--(\w+)` \|([^|]*)\|", text, re.MULTILINE))
    defaults = defaults_of("train_decoder")
    assert rows.keys() == defaults.keys()
    for name, default in defaults.items():
        shown = "off" if default is False else f"`{default}`"
        assert rows[name].strip() == ("" if default is None else shown), name
