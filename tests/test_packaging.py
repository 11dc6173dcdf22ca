"""The wheel holds the library alone, and works away from the repository with what it requires."""

import email
import itertools
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile

import pytest

import unpooling
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command = [sys.executable, "-m", "pip", "wheel", *options, f"--wheel-dir={folder}", str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def stranger(wheel, tmp_path_factory):
    """Runs a program where the wheel is installed, away from the repository.

    The packages that it requires are those of this environment.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    install = ["pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([sys.executable, "-m", *install, str(wheel)], check=True, capture_output=True)
    (packages,) = (folder / "env" / "lib").glob("*/site-packages")
    (here,) = (p for p in sys.path if p.endswith("site-packages"))
    (packages / "dependencies.pth").write_text(here)

    def run(program, cwd=folder):
        command = [python, "-I", "-c", program]
        result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        (path,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(file.read(path))
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "unpooling").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == sources
    assert "unpooling/py.typed" in sources
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert metadata["Version"] == unpooling.__version__
    required = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    assert [re.match(r"[\w-]+", r)[0] for r in required] == ["h5py", "numpy", "tensorflow"]


def test_the_library_needs_nothing_else(stranger):
    """Of the packages that the toolchain and the tests need, TensorFlow brings some along."""
    program = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {
            "PIL", "export", "hypothesis", "jinja2", "matplotlib", "publish", "skimage",
            "tensorboard", "tensorflow_hub", "tests", "tf_keras", "training",
        }:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
import numpy as np
import unpooling

encoder = unpooling.Encoder.load("block2_conv2", "random")
decoder = unpooling.Decoder.load("block2_conv2", "random")
images = np.zeros((1, 9, 7, 3), np.float32)
padded = unpooling.pad_by_reflection(images, 2)
print(unpooling.crop(decoder(encoder.compact(padded)), images).shape)
"""
    assert stranger(program) == "(1, 9, 7, 3)\n"


def test_readmes_code_prints_there_what_it_says(stranger, build, saved_model, tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(python|text)\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    program, expected = (
        "".join(code for kind, code in blocks if kind == k) for k in ("python", "text")
    )
    shutil.copy(build("block3_conv2") / "encoder.tar.gz", tmp_path)
    shutil.copytree(saved_model("block3_conv2"), tmp_path / "encoder")
    # In place of the download.
    replaced = """
from unpooling import weights
weights._imagenet = lambda: weights.load("random", "block3_conv2").layers
"""
    assert stranger(replaced + program, cwd=tmp_path) == expected


def test_the_pinned_packages_suit_the_requirements():
    """requirements.txt names each package that pyproject.toml asks for, with its hashes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [
        *project["project"]["dependencies"],
        *itertools.chain(*project["project"]["optional-dependencies"].values()),
        *itertools.chain(*project["dependency-groups"].values()),
    ]
    pinned = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    for requirement in asked:
        name = re.match(r"[\w-]+", requirement)[0]
        assert re.search(rf"^{name}==\S+.*\\\n    --hash=sha256:", pinned, re.MULTILINE), name
