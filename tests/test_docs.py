"""The pages of docs/: their code runs, their flags are the commands', docs/api.md is true."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import unpooling
from export import card
from export.verify.__main__ import main as verify
from tests import api_page
from tests.conftest import ROOT

DOCS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}

# Each has a heading in docs/, with a table of its flags.
COMMANDS = """
    build_encoder.py build_decoder.py build_collection.py train_decoder.py demo.py
    training.evaluate training.report benchmarks.bench
    publish.tree publish.serve publish.kaggle publish.huggingface
""".split()

# Runs each command as far as its flags are defined, in one process.
RECORD = """
import json, runpy, sys
import tensorflow  # It has flags of its own.
from absl import app, flags
from export import cli

known, found = set(flags.FLAGS), {}
for command in sys.argv[1:]:
    def record(*arguments, **options):
        made = {n: flags.FLAGS[n].default_as_str for n in set(flags.FLAGS) - known}
        found[command] = {n: (text or "").strip("'") for n, text in made.items()}
    cli.run = app.run = record
    run = runpy.run_path if command.endswith(".py") else runpy.run_module
    run(command, run_name="__main__")
    flags.FLAGS.remove_flag_values(set(flags.FLAGS) - known)
print(json.dumps(found))
"""


@pytest.fixture
def folder(build, build_decoder, saved_model, tmp_path, monkeypatch):
    """The working directory of the pages' code: a pair for block3_conv2, a photograph."""
    for kind, make in (("encoder", build), ("decoder", build_decoder)):
        shutil.copy(make("block3_conv2") / f"{kind}.tar.gz", tmp_path)
        shutil.copytree(saved_model("block3_conv2", kind=kind), tmp_path / kind)
    noise = np.random.default_rng(0).integers(0, 256, (53, 70, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("export.verify.run_in_fresh_process", lambda path: None)
    return tmp_path


def run(page):
    names = {}
    for code in card.code_blocks(DOCS[page]):
        exec(compile(code, page, "exec"), names)
    return names


def test_the_code_on_usage_runs(folder):
    names = run("usage.md")
    assert names["restored"].shape == names["whole"].shape
    assert names["model"](names["images"]).shape == (1, 13, 17, 256)
    np.testing.assert_array_equal(names["unpooled"], names["same"])
    decoded = names["decoder"](unpooling.load("encoder")(names["images"]))
    np.testing.assert_allclose(names["autoencoder"](names["images"]), decoded, rtol=1e-5, atol=1e-3)
    assert len(names["gradients"]) == 4 and all(g is not None for g in names["gradients"])


def test_the_code_on_exporting_and_weights_runs(folder):
    assert (folder / run("exporting.md")["folder"] / "encoder.tar.gz").is_file()
    names = run("weights.md")
    kernel = names["model"].get_layer("block1_conv2").kernel.numpy()
    np.testing.assert_array_equal(names["encoder"].weights["block1_conv2"][0], kernel)


def test_the_advice_of_troubleshooting_helps(folder):
    import tensorflow_hub as hub
    import tf_keras

    images = np.zeros((1, 16, 16, 3), np.float32)
    with pytest.raises(AssertionError, match="variables which have been deleted"):
        hub.load("encoder").compact(images)
    assert unpooling.load("encoder").compact(images)[0].shape == (1, 4, 4, 256)
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        with pytest.raises(TypeError, match="Can not cast TensorSpec"):
            hub.KerasLayer("encoder")(images)
        assert hub.KerasLayer("encoder", dtype="float32")(images)[0].shape == (1, 4, 4, 256)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")


@pytest.fixture(scope="module")
def flags(run_command):
    """{command: {flag: its default as text}}."""
    result = run_command("-c", RECORD, *COMMANDS)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def _documented():
    """{heading: {flag: its default as text}} of all tables of docs/."""
    tables = {}
    for text in DOCS.values():
        for section in re.split(r"^#+ ", text, flags=re.M)[1:]:
            rows = re.findall(r"^\| `--([a-z_\d]+)` \| (.*?) ?\|", section, re.M)
            if rows:
                tables[section.splitlines()[0]] = {n: default.strip("`") for n, default in rows}
    return tables


def test_all_flags_are_documented_with_their_defaults(flags):
    tables = _documented()
    for command in COMMANDS:
        shared = tables["All three commands"] if command.startswith("build_") else {}
        assert shared | tables[command] == flags[command], command


def test_every_flag_that_a_page_names_exists(flags):
    known = {name for found in flags.values() for name in found} | {"manifest", "archive_only"}
    for text in DOCS.values():
        assert set(re.findall(r"--([a-z]+(?:_[a-z\d]+)*)\b(?!-)", text)) - {"help"} <= known


def test_verifys_arguments_and_exit_statuses_are_documented(capsys):
    with pytest.raises(SystemExit):
        verify(["--help"])
    printed = capsys.readouterr().out
    section = DOCS["exporting.md"].partition("## Verify")[2]
    arguments = set(re.findall(r"--\w+", section))
    assert arguments == set(re.findall(r"--\w+", printed)) - {"--help"}
    rows = re.findall(r"^\| (\d) \|", section, re.M)
    assert rows == re.findall(r"^  (\d)  ", printed, re.M) == list("0123")


def test_the_api_page_is_what_the_docstrings_say():
    page = api_page.PAGE.read_text(encoding="utf-8")
    assert page == api_page.render(), "run: python -m tests.api_page"
    assert set(re.findall(r"^## `?(\w+)`?$", page, re.M)) == set(unpooling.__all__)


def test_the_version_is_the_same_everywhere():
    for file, form in (("CITATION.cff", r'^version: "(.*)"$'), ("CHANGELOG.md", r"^## (\S+)")):
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(form, text, re.M)[1] == unpooling.__version__
