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
        (["--layer=block6_conv2"], "value should be one of <block1_conv2|"),
        (
            ["--weights=random", f"--seed={2**63}"],
            "not an integer in the range [0, 9223372036854775807]",
        ),
        (["--weights=x.h5", "--seed=3"], "--seed goes with --weights=random only"),
        (["--weights=random", "--dataset=coco-2017"], "--dataset goes with --weights=PATH only"),
        (["--weights=random", "--license=mit"], "--license goes with --weights=PATH only"),
        (["--weights=a.h5", "--dataset=My Photos"], "must be a dataset tag of the hub"),
        (["--weights=random", "--model_version=0"], "--model_version=0"),
        (["--weights="], "--weights=: must "),
        (["--colour=red"], "Unknown command line flag 'colour'"),
        (["--weights=random", "more"], "only flags are allowed. Received: more."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_flags_are_told_at_once_in_one_line(without_tensorflow, name, flags, words):
    assert words in one_line(without_tensorflow(name, *flags), name)


def test_only_an_encoder_has_weights_by_default_and_indices_to_choose(without_tensorflow):
    assert "must be given" in one_line(without_tensorflow("build_decoder"), "build_decoder")
    line = one_line(without_tensorflow("build_encoder", "--index_dtype=int16"), "build_encoder")
    assert "value should be one of <int64|int32>" in line


def flags_of(text):
    """The flags that a help text explains."""
    words = (line.strip().split(":")[0] for line in text.splitlines() if line.startswith("  --"))
    return {word.removeprefix("--").removeprefix("[no]") for word in words}


@pytest.mark.parametrize(
    ("name", "target"), [("build_encoder", "export"), ("build_decoder", "decoder")]
)
def test_help_explains_the_flags_and_make_has_a_variable_for_each(
    without_tensorflow, tmp_path, name, target
):
    result = without_tensorflow(name, "--help")
    assert result.stdout.startswith("Builds ")
    flags = flags_of(result.stdout) - {"overwrite"}
    assert {"layer", "weights", "seed", "output_dir", "publisher"} <= flags

    # In place of Python stands what prints its arguments.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "bin" / "python").chmod(0o755)
    (tmp_path / "installed").touch()
    value = """Anna's "photos" & more"""
    printed = subprocess.run(
        [
            *("make", target, f"VENV={tmp_path}", "OVERWRITE=false"),
            *(f"{flag.upper()}={value}" for flag in flags),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    expected = {f"--{flag}={value}" for flag in flags}
    assert {f"{name}.py", "--overwrite=false", *expected} <= set(printed)


@pytest.mark.slow
@every_command
def test_it_builds_and_checks_an_artifact(run_command, tmp_path, name):
    # TensorFlow takes such a name for a pattern.
    output_dir = tmp_path / "[2024] models"
    flags = ["--layer=block1_conv2", "--weights=random", "--seed=7"]
    result = run_command(f"{name}.py", *flags, f"--output_dir={output_dir}", KERAS_BACKEND="jax")
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
    command = [sys.executable, "build_encoder.py", "--layer=block1_conv2", "--weights=random"]
    with subprocess.Popen(
        [*command, f"--output_dir={tmp_path / 'out'}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (line := process.stdout.readline()).startswith("archive:"):
            assert line, process.stderr.read()
        assert os.listdir(tmp_path / "out") != []
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "build_encoder: interrupted; no partial output was left."
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


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("raise UserError('two\\nlines\\x1b[2J')", r"two lines\x1b[2J"),
        (
            "raise OSError(errno.ENOSPC, 'No space left on device', 'a.h5')",
            "[Errno 28] No space left on device: 'a.h5'. Make room, or choose another folder.",
        ),
        (
            "raise OSError(errno.EACCES, 'Permission denied', 'a.h5')",
            "[Errno 13] Permission denied: 'a.h5'. Choose another folder.",
        ),
        ("os.kill(os.getpid(), signal.SIGINT)", "interrupted; no partial output was left."),
        ("os.kill(os.getpid(), signal.SIGHUP)", "interrupted; no partial output was left."),
    ],
)
def test_what_a_user_can_mend_is_one_line(body, line):
    assert one_line(run_main(body), "name") == line


@pytest.mark.parametrize("error", ["ValueError('a bug')", "OSError('a bug')", "KeyError('a bug')"])
def test_a_bug_keeps_its_traceback(error):
    result = run_main(f"raise {error}")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert result.stderr.rstrip().splitlines()[-1].startswith(error.split("(")[0])


@pytest.mark.parametrize(("body", "status"), [("return None", 0), ("return 3", 3)])
def test_the_status_is_what_main_returns(body, status):
    result = run_main(body)
    assert (result.returncode, result.stderr) == (status, "")
