"""The command at its worst moments: killed, out of room, and twice at once."""

import concurrent.futures
import json
import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest

from export import checksums, spec
from tests.conftest import ROOT

MODEL = "vgg19-block1-conv2"

# Every line that the command prints before the checks, and some of the checks: a dozen moments.
MOMENTS = (
    "weights:",
    "encoder:",
    "archive:",
    "card:",
    "manifest:",
    "verify:",
    "  ok     checksums",
    "  ok     members",
    "  ok     graph",
    "  ok     loads",
    "  ok     gradients",
    "  ok     diagram",
)


def start(output_dir, *flags, **options):
    return subprocess.Popen(
        [
            sys.executable,
            ROOT / "build_encoder.py",
            "--layer=block1_conv2",
            "--weights=random",
            "--overwrite",
            f"--output_dir={output_dir}",
            *flags,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def reason(process):
    """Waits for a command that fails and returns the one line that says why."""
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1, output + errors
    lines = [line for line in errors.splitlines() if line.startswith("build_encoder: ")]
    assert len(lines) == 1, errors
    return lines[0]


def seed_of(directory):
    """The seed of the artifact in a folder, once every file has been held against the others."""
    names = {*spec.files("encoder")} - {checksums.FILE}
    assert set(checksums.check(directory, needed="encoder.tar.gz")) == names
    with open(directory / "encoder.manifest.json", encoding="utf-8") as file:
        return json.load(file)["weights"]["seed"]


@pytest.fixture
def output_dir(build, tmp_path):
    """A folder with the artifact of seed 0."""
    shutil.copytree(build("block1_conv2"), tmp_path / MODEL)
    return tmp_path


def kill_at(output_dir, number):
    """Kills a command at the moment of that number, and returns the seed of what is there."""
    process = start(output_dir, f"--seed={1 + number}")
    with process:
        for line in process.stdout:
            if line.startswith(MOMENTS[number]):
                process.kill()
                break
        process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    return seed_of(output_dir / MODEL)


def test_killed_at_any_moment_it_leaves_the_old_artifact(output_dir):
    # What happens at the very end, in the milliseconds of putting it in place: test_artifact.py.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        seeds = list(pool.map(kill_at, [output_dir] * len(MOMENTS), range(len(MOMENTS))))
    assert seeds == [0] * len(MOMENTS)
    assert len(os.listdir(output_dir)) > len(MOMENTS)  # So there is something to clear away.

    # Two at once, both into the folder that the killed ones have left.
    both = [start(output_dir, f"--seed={seed}") for seed in (100, 101)]
    for process in both:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, output + errors
    assert seed_of(output_dir / MODEL) in (100, 101)
    assert os.listdir(output_dir) == [MODEL]


def test_a_file_that_may_not_grow_leaves_the_old_artifact(output_dir):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    words = reason(start(output_dir, preexec_fn=limit))
    assert "File too large" in words
    assert f"Make room in {output_dir}, or choose another --output_dir." in words
    assert "function_node" not in words
    assert seed_of(output_dir / MODEL) == 0
    assert os.listdir(output_dir) == [MODEL]


def in_small_file_system(kilobytes, folder, command):
    """Runs a shell command with a new file system of this size in `folder`."""
    mount = f'mount -t tmpfs -o size={kilobytes}k tmpfs "$0"'
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", f"{mount} && {command}", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


# What fits beside the old artifact: not the SavedModel, not the archive too, not its copy to check.
@pytest.mark.parametrize("room", [100, 300, 500])
def test_a_full_disk_leaves_the_old_artifact(build, tmp_path, room):
    folder = tmp_path / "small"
    folder.mkdir()
    if not shutil.which("unshare") or in_small_file_system(100, folder, "true").returncode:
        pytest.skip("no file system can be mounted here")
    old = build("block1_conv2")
    size = sum(-(-path.stat().st_size // 4096) * 4 for path in old.iterdir())
    result = in_small_file_system(
        size + room,
        folder,
        f"""
        cp -r "{old}" "$0" &&
        {{ "{sys.executable}" build_encoder.py --layer=block1_conv2 --weights=random --seed=1 \
            --overwrite --output_dir="$0"; echo "status $?"; }} &&
        ls -A "$0" && cd "$0/{MODEL}" && sha256sum -c SHA256SUMS && grep '"seed": 0' *.json
        """,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    printed = result.stdout.splitlines()
    status = printed.index("status 1")
    assert printed[status + 1] == MODEL
    assert [line for line in printed[status + 2 :] if line.endswith(": OK")] == [
        f"{name}: OK" for name in sorted(spec.files("encoder")[:-1])
    ]
    (words,) = [line for line in result.stderr.splitlines() if line.startswith("build_encoder:")]
    assert "No space left on device" in words
    assert f"Make room in {folder}" in words
