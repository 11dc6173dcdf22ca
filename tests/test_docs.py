"""The pages of docs/: their code runs, their flags are the commands', docs/api.md is true."""

import functools
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import unpooling
from export import card
from export.verify.__main__ import main as verify
from tests import api_page, photographs
from tests.conftest import ROOT
from training import evaluate
from unpooling.style import load_pairs

DOCS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}

# Each has a heading in docs/, with a table of its flags.
COMMANDS = """
    build_encoder.py build_decoder.py build_collection.py train_decoder.py demo.py
    stylize.py studio.py convert.py training.evaluate training.report benchmarks.bench
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


def test_the_code_on_decoders_prints_what_the_evaluation_finds(folder, monkeypatch, capsys):
    photographs.write(folder / "photos", 43, 50, train=2)
    for half in (unpooling.Encoder, unpooling.Decoder):
        monkeypatch.setattr(half, "load", functools.partial(half.load, weights="random"))
    run("decoders.md")
    printed = capsys.readouterr().out.split()
    rows, _ = evaluate.evaluate_folder("block3_conv2", "random", "random", "photos", split="all")
    expected = evaluate.means(rows)["error"]
    assert len(printed) == 2
    np.testing.assert_allclose([float(text) for text in printed], expected, rtol=1e-4)


def test_the_code_on_style_runs(folder, monkeypatch):
    pairs = load_pairs(1, "random", "random")
    for module in ("unpooling.style", "unpooling.style.files"):
        monkeypatch.setattr(f"{module}.load_pairs", lambda *arguments, **options: pairs)
    shutil.copy("photo.jpg", "style.jpg")
    names = run("style.md")
    assert names["restyled"].shape == names["photo"].shape == (53, 70, 3)
    assert (folder / "restyled.jpg").is_file() and (folder / "look.npz").is_file()


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
def pytorch():
    """What the code for users of PyTorch defines."""
    (code,) = (code for code in card.code_blocks(DOCS["usage.md"]) if "def to_pytorch" in code)
    exec(code, names := {})
    return names


def test_pytorchs_indices_are_converted_both_ways(pytorch):
    # Two channels of 2x5, of which the pooling drops the last column: pooled, they are 1x2.
    flat = np.array([[[[0, 8]], [[6, 3]]]])  # of PyTorch, (B, C, h, w): y * 5 + x
    rows = [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 3, 0], [0, 0, 3, 1]]
    np.testing.assert_array_equal(pytorch["from_pytorch"](flat, 5), rows)
    np.testing.assert_array_equal(pytorch["to_pytorch"](np.array(rows), (1, 1, 2, 2), 5), flat)


def test_pytorchs_layout_is_converted_for_any_map(pytorch):
    values = np.random.default_rng(0).normal(size=(2, 7, 9, 3)).astype(np.float32)
    pooled, indices = unpooling.max_pool_with_indices(values)
    flat = pytorch["to_pytorch"](indices.numpy(), pooled.shape, width=9)
    planes = values.transpose(0, 3, 1, 2).reshape(2, 3, 63)
    taken = np.take_along_axis(planes, flat.reshape(2, 3, -1), axis=2).reshape(flat.shape)
    np.testing.assert_array_equal(taken, pooled.numpy().transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(pytorch["from_pytorch"](flat, width=9), indices)


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


def test_no_page_takes_from_pypi_what_is_not_there():
    for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("assets/*.md")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"pip install [^\n`#]*unpooling", text), path


def test_the_version_is_the_same_everywhere():
    for file, form in (("CITATION.cff", r'^version: "(.*)"$'), ("CHANGELOG.md", r"^## (\S+)")):
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(form, text, re.M)[1] == unpooling.__version__
