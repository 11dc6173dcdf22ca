"""The command: what it writes, what it refuses, and that it leaves nothing half-written."""

import os
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest

import build_encoder
from export import spec, verify
from tests.conftest import ROOT

ARTIFACTS = {*spec.files("encoder")}


@pytest.fixture
def command(run_command, tmp_path):
    """Runs build_encoder.py into a fresh output folder with block1 and random weights."""

    def run(*flags, **environment):
        defaults = ["--layer=block1_conv2", "--weights=random", f"--output_dir={tmp_path / 'out'}"]
        return run_command("build_encoder.py", *defaults, *flags, **environment)

    return run


def reason(result):
    """The one line of the command's own on stderr."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("build_encoder: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.rstrip().endswith(lines[0])
    return lines[0]


def files_below(directory):
    return {
        os.path.relpath(os.path.join(folder, name), directory)
        for folder, _, names in os.walk(directory)
        for name in names
    }


def test_it_writes_just_the_five_files(build):
    directory = build("block5_conv2")
    assert directory.name == "vgg19-block5-conv2"
    assert files_below(directory.parent) == {f"vgg19-block5-conv2/{name}" for name in ARTIFACTS}


def test_it_shows_its_progress(command):
    result = command()
    assert result.returncode == 0, result.stderr
    steps = [line.split(":")[0] for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert steps == ["weights", "encoder", "archive", "card", "manifest", "verify", "done"]
    assert "  ok     gradients: " in result.stdout


def test_an_existing_artifact_is_touched_only_with_overwrite(command, tmp_path):
    directory = tmp_path / "out" / "vgg19-block1-conv2"
    directory.mkdir(parents=True)
    (directory / "encoder.md").write_text("mine")
    (directory / "notes.txt").write_text("mine too")
    result = command()
    assert result.returncode == 1
    assert "already holds encoder.md: pass --overwrite" in reason(result)
    assert files_below(tmp_path / "out") == {
        "vgg19-block1-conv2/encoder.md",
        "vgg19-block1-conv2/notes.txt",
    }
    assert (directory / "encoder.md").read_text() == "mine"

    result = command("--overwrite")
    assert result.returncode == 0, result.stderr
    assert files_below(directory) == ARTIFACTS | {"notes.txt"}
    assert (directory / "encoder.md").read_text().startswith("# Module ")
    assert (directory / "notes.txt").read_text() == "mine too"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--layer=block6_conv2"], "value should be one of <block1_conv2|"),
        (["--index_dtype=int16"], "value should be one of <int64|int32>"),
        (["--seed=-1"], "-1 is not an integer in the range [0, 18446744073709551615]"),
        (["--seed=x"], "--seed=x"),
        (["--weights=imagenet", "--seed=3"], "--seed goes with --weights=random only"),
        (["--dataset=coco-2017"], "--dataset goes with --weights=PATH only"),
        (["--weights=a.h5", "--dataset=My Photos"], "must be a dataset tag of the hub"),
        (["--publisher=Emil Utz"], "must consist of lower-case letters, digits and hyphens"),
        (["--model_version=0"], "--model_version=0"),
        (["--asset_url=example.com"], "must be an http or https URL"),
        (['--asset_url=https://a.b/"> x'], "must be an http or https URL"),
        (["--colour=red"], "Unknown command line flag 'colour'"),
        (["block5_conv2"], "no arguments but flags are taken. Received: block5_conv2"),
        (["--weights=nowhere.h5"], "weights file nowhere.h5: no such file"),
        (["--weights="], "--weights=: must not be empty"),
    ],
)
def test_wrong_flags_get_one_line_and_leave_nothing(command, tmp_path, flags, words):
    result = command(*flags)
    assert result.returncode == 1
    assert words in reason(result)
    assert files_below(tmp_path) == set()
    assert not list(tmp_path.glob("out/*"))


def test_an_output_folder_that_cannot_be_made_gets_one_line(command, tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = command(f"--output_dir={tmp_path / 'file' / 'dist'}")
    assert result.returncode == 1
    assert "Not a directory" in reason(result) or "File exists" in reason(result)


def test_a_wrong_flag_does_not_wait_for_tensorflow(run_command):
    program = "import sys, build_encoder; sys.exit('tensorflow' in sys.modules)"
    assert run_command("-c", program).returncode == 0


def test_another_backend_of_keras_does_not_matter(command):
    result = command(KERAS_BACKEND="jax")
    assert result.returncode == 0, result.stderr


@pytest.fixture
def flags_of_block1(tmp_path):
    build_encoder.FLAGS.unparse_flags()
    build_encoder.FLAGS(
        [
            "build_encoder.py",
            "--layer=block1_conv2",
            "--weights=random",
            f"--output_dir={tmp_path}",
        ]
    )
    yield build_encoder.FLAGS
    build_encoder.FLAGS.unparse_flags()


@pytest.mark.parametrize("error", [ValueError("broken promise"), OSError("disk full")])
def test_what_does_not_pass_the_checks_is_never_seen(
    flags_of_block1, tmp_path, monkeypatch, capsys, error
):
    seen = []

    def fail(path):
        seen.append(set(os.listdir(os.path.dirname(path))))
        raise error

    monkeypatch.setattr(verify, "run_in_fresh_process", fail)
    assert build_encoder.main() == 1
    assert seen == [ARTIFACTS | {"saved_model"}]
    assert os.listdir(tmp_path) == []
    assert capsys.readouterr().err == f"build_encoder: {error}\n"


def test_an_interrupted_build_leaves_nothing(flags_of_block1, tmp_path, monkeypatch, capsys):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "run_in_fresh_process", interrupt)
    assert build_encoder.main() == 1
    assert os.listdir(tmp_path) == []
    assert capsys.readouterr().err == "build_encoder: interrupted; nothing is half-written.\n"


def test_a_terminated_build_leaves_nothing(tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            ROOT / "build_encoder.py",
            "--layer=block1_conv2",
            "--weights=random",
            f"--output_dir={tmp_path}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        while "verify" not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        assert os.listdir(tmp_path) != []
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.rstrip().endswith("build_encoder: interrupted; nothing is half-written.")
    assert os.listdir(tmp_path) == []


def test_weights_from_a_file_end_up_in_the_archive_and_on_the_card(command, tmp_path):
    path = tmp_path / "mine.h5"
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"block1_conv1", b"block1_conv2"]
        for name, channels in (("block1_conv1", 3), ("block1_conv2", 64)):
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}_W_1:0".encode(), f"{name}_b_1:0".encode()]
            group[f"{name}_W_1:0"] = random.normal(0, 0.1, (3, 3, channels, 64)).astype("f4")
            group[f"{name}_b_1:0"] = random.normal(0, 1, 64).astype("f4")
    result = command(
        f"--weights={path}",
        "--dataset=coco-2017",
        "--publisher=someone",
        "--model_version=3",
        "--asset_url=https://example.com/a",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    text = (tmp_path / "out" / "vgg19-block1-conv2" / "encoder.md").read_text()
    assert text.startswith("# Module someone/vgg19-block1-conv2-unpooling-encoder/3\n")
    assert "<!-- dataset: coco-2017 -->" in text
    assert "`mine.h5`" in text
    assert str(tmp_path) not in text


def makefile_flags(*variables):
    """What `make export` would pass to the command."""
    output = subprocess.run(
        ["make", "--dry-run", "--always-make", "export", *variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = [line for line in output.splitlines() if "build_encoder.py" in line]
    return line.split("build_encoder.py")[1].split()


def test_make_export_has_a_variable_for_every_flag():
    assert makefile_flags() == ["--overwrite=true"]
    own = build_encoder.FLAGS.get_key_flags_for_module(build_encoder)
    names = {flag.name for flag in own}
    assert names >= {"layer", "weights", "seed", "index_dtype", "output_dir", "publisher"}
    for name in names - {"overwrite"}:
        assert f"--{name}='some value'" in " ".join(makefile_flags(f"{name.upper()}=some value"))
    assert makefile_flags("OVERWRITE=false") == ["--overwrite=false"]


def test_the_readme_explains_every_flag():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    own = build_encoder.FLAGS.get_key_flags_for_module(build_encoder)
    for flag in own:
        row = re.search(rf"^\| `--{flag.name}` \| ([^|]+) \|", text, re.MULTILINE)
        assert row, flag.name
        default = "off" if flag.default is False else f"`{flag.default}`"
        assert row[1].strip() == default, flag.name
