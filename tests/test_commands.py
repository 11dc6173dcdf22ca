"""The commands build_encoder.py and build_decoder.py as a user meets them, and `export.cli`."""

import os
import subprocess
import sys

import pytest

from export import artifact
from tests.conftest import ROOT

COMMANDS = ("build_encoder", "build_decoder")
every_command = pytest.mark.parametrize("name", COMMANDS)


@pytest.fixture
def without_tensorflow(run_command, tmp_path):
    """Runs a command that ends before it imports TensorFlow, and returns its result."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "tensorflow.py").write_text("raise SystemExit('TensorFlow is imported')")

    def run(name, *flags):
        path = f"{tmp_path / 'path'}:{ROOT}"
        result = run_command(f"{name}.py", *flags, f"--output_dir={tmp_path}/out", PYTHONPATH=path)
        assert "TensorFlow is imported" not in result.stderr
        assert not (tmp_path / "out").exists()
        return result

    return run


def one_line(result, name):
    """The only line on stderr."""
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{name}: ")
    return line.removeprefix(f"{name}: ")


@every_command
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--layer=block6_conv2", "value should be one of <block1_conv2|"),
        ("--weights=random --seed=9223372036854775808", "not an integer in the range [0, 922337"),
        ("--weights=x.h5 --seed=3", "--seed goes with --weights=random only"),
        ("--weights=random --dataset=coco-2017", "--dataset goes with --weights=PATH only"),
        ("--weights=random --license=mit", "--license goes with --weights=PATH only"),
        ("--weights=a.h5 --dataset=Mine", "must be a dataset tag of the hub"),
        ("--weights=", "--weights=: must "),
        ("--colour=red", "Unknown command line flag 'colour'"),
        ("--weights=random more", "only flags are allowed. Received: more."),
    ],
)
def test_wrong_flags_are_told_at_once_in_one_line(without_tensorflow, name, flags, words):
    assert words in one_line(without_tensorflow(name, *flags.split()), name)


def test_only_an_encoder_has_indices_to_choose(without_tensorflow):
    line = one_line(without_tensorflow("build_decoder", "--index_dtype=int32"), "build_decoder")
    assert "Unknown command line flag 'index_dtype'" in line
    line = one_line(without_tensorflow("build_encoder", "--index_dtype=int16"), "build_encoder")
    assert "value should be one of <int64|int32>" in line


def flags_of(text):
    """The flags that a help text explains."""
    words = (line.strip().split(":")[0] for line in text.splitlines() if line.startswith("  --"))
    return {word.removeprefix("--").removeprefix("[no]") for word in words}


@pytest.mark.parametrize(
    ("name", "target"), [("build_encoder", "export"), ("build_decoder", "decoder")]
)
def test_help_explains_the_flags_and_make_has_a_variable_for_each(without_tensorflow, name, target):
    result = without_tensorflow(name, "--help")
    assert result.stdout.startswith("Builds ")
    flags = flags_of(result.stdout)
    assert {"layer", "weights", "seed", "output_dir", "publisher"} <= flags
    value = "x y"
    printed = run_make(target, **{flag.upper(): value for flag in flags})
    assert {f"{name}.py", *(f"--{flag}={value}" for flag in flags)} <= set(printed)


def run_make(target, **variables):
    """The arguments that a target of the Makefile passes to Python, without running it."""
    words = {name: value.replace("$", "$$") for name, value in variables.items()}
    command = ["make", target, "-o", ".venv/installed", r"RUN=printf '%s\n'"]
    command += [f"{name}={value}" for name, value in words.items()]
    return subprocess.check_output(command, cwd=ROOT, text=True).splitlines()


VALUE = """Anna's "photos" & US$ 5 (`x`; *)"""
BUILD = "LAYER WEIGHTS SEED DATASET LICENSE OUTPUT_DIR PUBLISHER MODEL_VERSION ASSET_URL OVERWRITE"
VARIABLES = {
    # In each target, every variable that becomes a flag.
    "export": f"{BUILD} INDEX_DTYPE POOLING",
    "decoder": BUILD,
    "train": "LAYER WEIGHTS SEED PHOTOS",
    "collection": f"{BUILD} PHOTOS RUNS TRAINING_FLAGS DECODER_DATASET",
    "convert": "ARCHIVE FORMAT OUTPUT LICENSE",
    "demo": "LAYER OUTPUT_DIR",
    "stylize": "CONTENT STYLE OUTPUT WEIGHTS",
    "studio": "WEIGHTS HOST PORT",
    "tree": "ARTIFACTS OVERWRITE",
    "serve": "HOST PORT",
    "kaggle": "ARTIFACT FRAMEWORK HANDLE DRY_RUN",
    "huggingface": "ARTIFACT FORMATS REPOSITORY PRIVATE DRY_RUN",
}


@pytest.mark.parametrize("target", VARIABLES)
def test_make_passes_on_any_value(target):
    names = VARIABLES[target].split()
    printed = run_make(target, **dict.fromkeys([*names, "RUNS", "TREE"], VALUE))
    assert {f"--{name.lower()}={VALUE}" for name in names} <= set(printed)
    for name, flag in {"train": "output_dir", "tree": "output_dir", "serve": "root"}.items():
        if target == name:
            assert f"--{flag}={VALUE}" in printed


@pytest.mark.parametrize("target", ["export", "decoder", "tree", "collection"])
def test_make_replaces_artifacts_and_continues_a_collection(target, monkeypatch):
    def passed(**variables):
        return [line for line in run_make(target, **variables) if line.startswith("--overwrite")]

    monkeypatch.delenv("OVERWRITE", raising=False)
    assert passed() == ([] if target == "collection" else ["--overwrite=true"])
    for value in ("true", "false"):
        assert passed(OVERWRITE=value) == [f"--overwrite={value}"]
        with monkeypatch.context() as context:
            context.setenv("OVERWRITE", value)
            assert passed() == [f"--overwrite={value}"]


@pytest.mark.slow
def test_it_builds_and_checks_an_artifact(run_command, tmp_path):
    # TensorFlow takes such a name for a pattern.
    output_dir = tmp_path / "[2024] models"
    flags = ["--layer=block1_conv2", "--weights=random", "--seed=7", f"--output_dir={output_dir}"]
    result = run_command("build_encoder.py", *flags, KERAS_BACKEND="jax")
    assert result.returncode == 0, result.stdout + result.stderr
    (folder,) = output_dir.iterdir()
    lines = result.stdout.splitlines()
    steps = [line.split(":")[0] for line in lines if not line.startswith(" ")]
    assert steps == ["weights", "archive", "manifest", "card", "verify", "done"]
    assert lines[-1] == f"done: {folder}"
    checks = [line for line in lines if line.startswith("  ")]
    assert len(checks) > 8
    assert all(line.startswith("  ok ") for line in checks)
    assert artifact.read(str(folder)).manifest["weights"]["seed"] == 7
    assert "Traceback" not in result.stderr


def test_a_terminated_build_leaves_nothing(tmp_path):
    command = [sys.executable, "build_decoder.py", "--layer=block1_conv2", "--weights=random"]
    command.append(f"--output_dir={tmp_path / 'out'}")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        while not (line := process.stdout.readline()).startswith("archive:"):
            assert line, process.stderr.read()
        assert os.listdir(tmp_path / "out") != []
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "build_decoder: interrupted; no partial output was left."
    assert os.listdir(tmp_path) == []


# What a command does with what its main raises.

PROGRAM = """
import errno, os, signal
from export import cli
from unpooling.errors import UserError

def main():
    {body}

cli.run("name", main)
"""


def run_main(body):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)], cwd=ROOT, capture_output=True, text=True
    )


FULL = "raise OSError(errno.ENOSPC, 'No space left on device', 'a.h5')"
IN_DESTRUCTOR = (
    "type('A', (), {'__del__': lambda _: os.kill(os.getpid(), signal.SIGTERM)})(); "
    "import time; time.sleep(60)"
)
BELOW_A_FILE = "os.makedirs('README.md/a')"
ON_A_FILE = "os.makedirs('README.md', exist_ok=True)"
ON_A_FOLDER = "open('docs', 'w')"
DENIED = "raise OSError(errno.EACCES, 'Permission denied', 'a.h5')"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("raise UserError('two\\nlines\\x1b[2J')", r"two lines\x1b[2J"),
        (FULL, "[Errno 28] No space left on device: 'a.h5'. Make room, or choose another folder."),
        (BELOW_A_FILE, "[Errno 20] Not a directory: 'README.md/a'. Choose another folder."),
        (ON_A_FILE, "[Errno 17] File exists: 'README.md'. Choose another folder."),
        (ON_A_FOLDER, "[Errno 21] Is a directory: 'docs'. Choose another folder."),
        (DENIED, "[Errno 13] Permission denied: 'a.h5'. Choose another folder."),
        ("os.kill(os.getpid(), signal.SIGHUP)", "interrupted; no partial output was left."),
        (IN_DESTRUCTOR, "interrupted; no partial output was left."),
    ],
)
def test_what_a_user_can_mend_is_one_line(body, line):
    assert one_line(run_main(body), "name") == line


@pytest.mark.parametrize("error", ["ValueError('a bug')", "OSError('a bug')"])
def test_a_bug_keeps_its_traceback(error):
    result = run_main(f"raise {error}")
    assert (result.returncode, "Traceback" in result.stderr) == (1, True)
    assert result.stderr.rstrip().splitlines()[-1].startswith(error.split("(")[0])


@pytest.mark.parametrize(("body", "status"), [("return None", 0), ("return 3", 3)])
def test_the_status_is_what_main_returns(body, status):
    result = run_main(body)
    assert (result.returncode, result.stderr) == (status, "")
