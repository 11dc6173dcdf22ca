"""The training: what it leaves, how it is resumed, what it refuses, several devices and workers."""

import contextlib
import csv
import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

import train_decoder
from tests import photographs
from tests.conftest import ROOT
from training import callbacks, data, evaluate
from training.config import TrainConfig, recipe
from training.run_folder import RunFolder
from training.train import train
from unpooling import vgg19, weights
from unpooling.errors import UserError

LAYER, FOLDER = "block1_conv2", "vgg19-block1-conv2-decoder"
METRICS = ("l1", "l2", "loss", "perceptual")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    photographs.write(folder, 20, 28, train=6, validation=3, test=1)
    return folder


@pytest.fixture
def config(photos, tmp_path):
    """A run of a second."""
    return TrainConfig(
        layer=LAYER,
        weights="random",
        photos=photos,
        output_dir=tmp_path / "[2026] out",
        crop=16,
        batch_size=2,
        epochs=2,
        ms_ssim_weight=0.0,
    )


def folder_of(config):
    return pathlib.Path(config.output_dir, FOLDER)


def history(config):
    with open(folder_of(config) / "history.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files_below(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def assert_close(config, other, rtol):
    for row, expected in zip(history(config), history(other), strict=True):
        for name, value in expected.items():
            np.testing.assert_allclose(float(row[name]), float(value), rtol, err_msg=name)


def test_what_a_run_leaves(config, photos, tmp_path, monkeypatch, capsys):
    path = train(config)
    folder = folder_of(config)
    assert path == str(folder / "decoder.h5")
    lines = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    epochs, pictures = ([f"{n} of {most}" for n in range(1, most + 1)] for most in (2, 4))
    epochs = [f"epoch {n}" for n in epochs]
    lines = [s for s in lines if not s.startswith("no curves")]
    assert lines == ["weights", "photographs", *epochs, *pictures, "held out"]
    found = [name for name in files_below(folder) if not name.startswith("tensorboard/")]
    samples = ["samples/epoch-001.png", "samples/epoch-002.png"]
    assert found == [".lock", "decoder.h5", "history.csv", "run.json", *samples]

    rows = history(config)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert rows[0].keys() == {"epoch", *METRICS, *(f"val_{name}" for name in METRICS)}
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    # Three held-out pictures above three reconstructions.
    assert np.array(Image.open(folder / samples[1])).shape == (32, 48, 3)

    decoder, encoder = weights.load_decoder(path, LAYER), weights.load("random", LAYER)
    record = decoder.training
    assert record.layer == LAYER and record.steps == 6
    assert record.photographs == {"train": 6, "validation": 3, "test": 1}
    assert record.encoder == {"source": "random", "seed": 0, "sha256": encoder.digests}
    assert record.flags["learning_rate"] == 1e-3 and record.flags["photos"] == photos.name
    assert record.validation["l1"] == pytest.approx(float(rows[1]["val_l1"]))
    assert str(tmp_path) not in record.to_json()
    held_out = data.split_pictures(data.find_pictures(str(photos)), str(photos))
    paths = [*held_out["test"], *held_out["validation"]]
    measured, left_out = evaluate.evaluate(LAYER, encoder, decoder, paths)
    assert not left_out
    assert record.evaluation == {"photographs": 4, **evaluate.means(measured)}

    points = curves(folder / "tensorboard")
    tags = [("train", name) for name in (*METRICS, "learning_rate")]
    tags += [("validation", name) for name in METRICS]
    assert points.keys() == {(r, f"epoch_{name}", step) for r, name in tags for step in (0, 1)}
    np.testing.assert_allclose(points["train", "epoch_l1", 1], float(rows[1]["l1"]), rtol=1e-6)
    # Linear from 1e-3 to 2e-4 in six steps: half way after three.
    np.testing.assert_allclose(points["train", "epoch_learning_rate", 0], 6e-4, rtol=1e-5)
    np.testing.assert_allclose(points["train", "epoch_learning_rate", 1], 2e-4, rtol=1e-5)

    # A finished run is not touched, even by the same configuration.
    before = {name: (folder / name).read_bytes() for name in files_below(folder)}
    refused = pytest.raises(UserError, match=r"already holds decoder.h5: pass --overwrite")
    with monkeypatch.context() as patch, refused:
        patch.setattr(data, "usable_splits", lambda folder: pytest.fail("too late"))
        train(config)
    assert {name: (folder / name).read_bytes() for name in files_below(folder)} == before

    # With `overwrite` it is; here from its own decoder, which is better than random, and without
    # the package tensorboard.
    def find_spec(name, find=importlib.util.find_spec):
        return None if name == "tensorboard" else find(name)

    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    again = {"initial_weights": path, "overwrite": True, "epochs": 1}
    train(dataclasses.replace(config, **again))
    output = capsys.readouterr().out
    assert "initial weights: decoder_block1_conv2, decoder_block1_conv1\n" in output
    assert "no curves: the package tensorboard is not installed\n" in output
    assert not (folder / "tensorboard").exists()
    assert len(history(config)) == 1
    assert float(history(config)[0]["l1"]) < float(rows[0]["l1"])
    assert samples[1] not in files_below(folder)


def curves(folder):
    """{(run, tag, step): value} of what TensorBoard would show."""
    points = {}
    for path in folder.rglob("*tfevents*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag.startswith("epoch_"):
                    point = float(tf.make_ndarray(value.tensor))
                    points[path.parent.name, value.tag, event.step] = point
    return points


def test_an_interrupted_run_is_resumed_where_the_last_epoch_ended(
    config, tmp_path, monkeypatch, capsys
):
    # bfloat16 and SOAP too: what is kept between epochs is float32, the optimizer's state with it.
    config = dataclasses.replace(config, epochs=3, precision="bfloat16", optimizer="soap")
    folder = folder_of(config)
    draw = callbacks.Samples.on_epoch_end

    def end_in_the_second_epoch(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        draw(self, epoch, logs)

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(callbacks.Samples, "on_epoch_end", end_in_the_second_epoch)
        train(config)
    assert len(history(config)) == 2  # noted, and not kept
    (folder / "backup.npz.partial").write_bytes(b"cut short")  # as by a kill

    with pytest.raises(UserError, match=r"of another kind \(--learning_rate=0.001, now 0.002\)"):
        train(dataclasses.replace(config, learning_rate=0.002))
    train(config)
    assert "resumed: after epoch 1\n" in capsys.readouterr().out
    assert [row["epoch"] for row in history(config)] == ["0", "1", "2"]
    assert len(list((folder / "samples").iterdir())) == 3
    assert json.loads((folder / "run.json").read_text())["finished"]
    assert not (folder / "backup.npz").exists()
    whole = dataclasses.replace(config, output_dir=str(tmp_path / "whole"))
    train(whole)
    assert_close(config, whole, 0.01)


def test_an_interrupted_run_of_an_earlier_version_is_refused(config, monkeypatch):
    config = dataclasses.replace(config, layer="block2_conv2", epochs=2)
    with monkeypatch.context() as earlier, pytest.raises(KeyboardInterrupt):
        # It had no convolutions of its own after an unpooling.
        earlier.setattr(vgg19, "_more", lambda block, count: ())
        earlier.setattr(callbacks.Samples, "on_epoch_end", interrupt_in_the_second_epoch)
        train(config)
    with pytest.raises(UserError, match="of an interrupted run of an earlier version: delete it"):
        train(config)
    (pathlib.Path(config.output_dir) / "vgg19-block2-conv2-decoder" / "backup.npz").unlink()
    train(config)


def interrupt_in_the_second_epoch(self, epoch, logs=None):
    if epoch == 1:
        raise KeyboardInterrupt


def test_how_long_a_run_will_take(monkeypatch, capsys):
    # Two epochs of 4 steps of 40 s, and 20 s of validation; then faster ones.
    times = iter([0, 40, 80, 120, 160, 180, 200, 210, 220, 230, 240])
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: next(times))
    progress = callbacks.Progress(every=60)
    progress.set_params({"epochs": 102, "steps": 4})
    progress.on_train_begin()
    for epoch in (99, 100):
        progress.on_epoch_begin(epoch)
        for step in range(4):
            progress.on_train_batch_end(step, {"l1": 4.0 - step, "loss": 1.0})
        progress.on_epoch_end(epoch, {"l1": 1.0, "loss": 2.0, "val_l1": 3.25, "val_loss": 5.0})
    assert capsys.readouterr().out.splitlines() == [
        "epoch 100 of 102, step 2 of 4: l1 3.000; 7 min left",
        "epoch 100 of 102: l1 1.000, validation 3.250; 3 min an epoch, 6 min left",
        "epoch 101 of 102: l1 1.000, validation 3.250; 60 s an epoch, 60 s left",
    ]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: 10_000)
    progress.on_epoch_begin(101)
    progress.on_epoch_end(101, {"loss": 2.0})
    assert capsys.readouterr().out == "epoch 102 of 102: loss 2.000; 2.7 h an epoch\n"


def test_only_one_process_trains_in_a_folder(config):
    first, second = (RunFolder(config.output_dir, LAYER) for _ in range(2))
    with (
        first.locked(),
        pytest.raises(UserError, match="another process is training"),
        second.locked(),
    ):
        pass
    with second.locked():
        second.begin({}, overwrite=False)
    assert files_below(folder_of(config)) == [".lock", "run.json"]


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.mark.slow
def test_two_workers_end_with_equal_weights_as_one_alone(config, tmp_path):
    config = dataclasses.replace(config, epochs=1, perceptual_weight=0.0)
    changed = {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if value != TrainConfig.__dataclass_fields__[name].default
    }
    own = [f"--{name}={value}" for name, value in changed.items()]
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    workers = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        cluster = json.dumps({"cluster": {"worker": addresses}, "task": task})
        worker = subprocess.Popen(
            [sys.executable, "train_decoder.py", *own, "--strategy=multi_worker"],
            cwd=ROOT,
            env={**os.environ, "TF_CONFIG": cluster, "KERAS_BACKEND": "jax"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        workers.append(worker)
    digests = set()
    try:
        for worker in workers:
            out, error = worker.communicate(timeout=200)
            assert worker.returncode == 0, error
            digests |= {line for line in out.splitlines() if line.startswith("decoder: SHA-256")}
    finally:
        for worker in workers:
            worker.kill()
    assert len(digests) == 1
    alone = dataclasses.replace(config, output_dir=str(tmp_path / "alone"))
    train(alone)
    assert_close(config, alone, 0.01)


# Two devices on one processor must be made before TensorFlow starts.
_TWO_DEVICES = """\
import json, sys
import tensorflow as tf
(processor,) = tf.config.list_physical_devices("CPU")
devices = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(processor, devices)
from training.config import TrainConfig
from training.train import train
for arguments in json.loads(sys.argv[1]):
    try:
        train(TrainConfig(**arguments))
    except ValueError as error:
        print(error)
"""


@pytest.mark.slow
def test_two_devices_share_each_batch(run_command, config, tmp_path):
    config = dataclasses.replace(config, optimizer="soap", epochs=1, perceptual_weight=0.0)
    shared = dataclasses.replace(config, strategy="mirrored", output_dir=str(tmp_path / "two"))
    odd = dataclasses.replace(shared, batch_size=3)
    runs = json.dumps([dataclasses.asdict(each) for each in (shared, odd)])
    result = run_command("-c", _TWO_DEVICES, runs)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("--batch_size must be a multiple of 2")
    train(config)
    assert_close(shared, config, 1e-3)


def test_what_cannot_be_trained_leaves_nothing(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    photographs.write(tmp_path / "few", train=2)
    (tmp_path / "none").mkdir()
    (tmp_path / "text.h5").write_text("no weights")
    for name, value, words in (
        ("photos", "missing", "--photos must be a folder"),
        ("photos", "none", "--photos must hold pictures"),
        ("photos", "few", "none falls to validation"),
        ("weights", "missing.h5", "missing.h5"),
        ("initial_weights", "missing.h5", "missing.h5"),
        ("initial_weights", "text.h5", "text.h5"),
        ("output_dir", "text.h5", "--output_dir: the run's folder cannot be made"),
        ("strategy", "multi_worker", "TF_CONFIG"),
    ):
        with pytest.raises(UserError, match=words):
            train(dataclasses.replace(config, **{name: value}))
        assert not folder_of(config).exists()


def test_a_photograph_that_vanishes_is_named(config, tmp_path, monkeypatch):
    photographs.write(tmp_path / "photos", 20, 28, train=6, validation=3)
    draw = callbacks.Samples.on_epoch_end

    def vanish(self, epoch, logs=None):
        draw(self, epoch, logs)
        shutil.rmtree(tmp_path / "photos", ignore_errors=True)

    monkeypatch.setattr(callbacks.Samples, "on_epoch_end", vanish)
    config = dataclasses.replace(config, photos=tmp_path / "photos", epochs=20)
    with pytest.raises(UserError, match=r"^picture \S*.png: it cannot be read \([^\n]*\)\.$"):
        train(config)


def test_what_is_trained_is_not_lost_when_measuring_fails(config, tmp_path, monkeypatch, capsys):
    photos = tmp_path / "photos"
    photographs.write(photos, 20, 28, train=6, validation=2)
    # Too small for block2's one pooling; training continues it by reflection.
    photographs.write(photos, 1, 30, test=1)
    changes = {"layer": "block2_conv2", "photos": photos, "steps_per_epoch": 2, "epochs": 1}
    changes["output_dir"] = photos / "runs"  # What is in there is no photograph.
    config = dataclasses.replace(config, **changes)

    def fail(*_):
        raise OSError("a bug")

    with monkeypatch.context() as context, pytest.raises(OSError, match="a bug"):
        context.setattr(evaluate, "measure", fail)
        train(config)
    path = str(pathlib.Path(config.output_dir, "vgg19-block2-conv2-decoder", "decoder.h5"))
    trained = weights.load_decoder(path, "block2_conv2")
    assert trained.training.evaluation is None

    shutil.copy(next(photos.glob("*.png")), photos / "another.png")
    with pytest.raises(UserError, match=r"of another kind \(other photographs\)"):
        train(config)
    (photos / "another.png").unlink()

    def give_up(*_):
        raise MemoryError

    monkeypatch.setattr(evaluate, "measure", give_up)
    train(dataclasses.replace(config, evaluation_pictures=2))
    output = capsys.readouterr().out
    assert "resumed: after epoch 1\n" in output
    assert "1 of 2: " in output and "`block2_conv2` needs sides of at least 2 pixels\n" in output
    assert "2 of 2: " in output and ".png: left out: out of memory\n" in output
    assert output.splitlines()[-1].endswith("; 2 left out, see above")
    finished = weights.load_decoder(path, "block2_conv2")
    assert finished.training.evaluation == {"photographs": 0}
    assert finished.digests == trained.digests


def test_a_loss_that_is_not_finite_ends_the_run(config):
    with pytest.raises(UserError, match="start with a lower --learning_rate"):
        train(dataclasses.replace(config, learning_rate=1e30))
    assert not (folder_of(config) / "decoder.h5").exists()
    assert not (folder_of(config) / "backup.npz").exists()


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"layer": "block6_conv2"}, "--layer must be one of block1_conv2, "),
        ({"weights": ""}, "--weights must be a name or a path, not empty"),
        ({"photos": None}, "--photos must be a name or a path"),
        ({"epochs": 0}, "--epochs must be a whole number of at least 1. Received: 0."),
        ({"epochs": 2.5}, "--epochs must be a whole number"),
        ({"steps_per_epoch": 0}, "--steps_per_epoch must be"),
        ({"batch_size": True}, "--batch_size must be"),
        (
            {"seed": -1},
            "--seed must be a whole number of at least 0 and at most 9223372036854775807",
        ),
        ({"seed": 2**63}, "--seed must be"),
        ({"learning_rate": float("nan")}, "--learning_rate must be a finite number of at least 0"),
        ({"l1_weight": float("inf")}, "--l1_weight must be a finite number"),
        ({"l2_weight": "1"}, "--l2_weight must be a finite number"),
        ({"warm_up": 1.5}, "--warm_up must be a finite number of at least 0 and at most 1."),
        ({"precision": "float16"}, "--precision must be one of float32, bfloat16"),
        ({"strategy": "many"}, "--strategy must be one of one, mirrored, multi_worker"),
        ({"overwrite": 1}, "--overwrite must be true or false"),
        ({"crop": 100, "ms_ssim_weight": 1.0}, "--crop must be at least 176 for MS-SSIM, or pass"),
        (
            {"layer": "block3_conv2", "crop": 34},
            "--crop must be a multiple of 4 for --layer=block3",
        ),
        ({"l1_weight": 0, "l2_weight": 0, "perceptual_weight": 0}, "must be above 0"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(config, wrong, words):
    with pytest.raises(UserError, match=re.escape(words)):
        dataclasses.replace(config, **wrong)


@pytest.mark.parametrize("wrong", [["--photos=photos", "--crop=100"], ["photo.jpg"]])
def test_wrong_flags_get_one_line(run_command, wrong):
    result = run_command("train_decoder.py", *wrong)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("train_decoder: ")


def test_help_says_what_the_seed_sets():
    train_decoder.define_flags(values := flags.FlagValues())
    for words in ("--weights=random", "--initial_kernels=he_normal", "order", "crops", "flips"):
        assert words in values["seed"].help


def test_the_recipe_is_for_every_layer():
    for layer in vgg19.LAYERS:
        found = recipe(layer, photos="photos", epochs=1)
        assert (found.layer, found.initial_weights, found.epochs) == (layer, None, 1)
        assert found.optimizer == "soap" and list(found.loss_weights) == ["l1"]
    with pytest.raises(UserError, match="--layer must be one of"):
        recipe("block6_conv2", photos="photos")
