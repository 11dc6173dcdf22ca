"""The benchmark runs from end to end; what it measures is not for a test to judge."""

import re
import shutil

import pytest
from PIL import Image

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def bench(run_command, tmp_path_factory):
    """A run on tiny pictures: (the completed process, the folder of page and plot)."""
    directory = tmp_path_factory.mktemp("docs")
    shutil.copy(ROOT / "docs" / "performance.md", directory)
    result = run_command(
        "-m",
        "benchmarks.bench",
        "--layer=block2_conv2",
        "--rounds=1",
        "--side=32",
        "--growth=32,64",
        f"--output_dir={directory}",
    )
    assert result.returncode == 0, result.stderr
    return result, directory


def test_it_prints_and_writes_the_same_tables(bench):
    result, directory = bench
    page = (directory / "performance.md").read_text(encoding="utf-8")
    tables = page.split("<!-- bench begins -->")[1].split("<!-- bench ends -->")[0].strip()
    assert tables in result.stdout
    titles = re.findall(r"^### (.+)$", tables, re.MULTILINE)
    assert titles == [
        "In short",
        "Encoder",
        "Encoder, a batch",
        "Encoder under XLA",
        "Pooling alone",
        "Unpooling alone",
        "Decoder",
        "Encoder and decoder",
        "Start-up",
        "Memory",
        "Growth",
    ]
    assert "1x32x32x3" in tables
    assert "8x16x16x3" in tables


def test_it_leaves_the_rest_of_the_page_alone(bench):
    _, directory = bench

    def prose(page):
        text = page.read_text(encoding="utf-8")
        return text.split("<!-- bench begins -->")[0], text.split("<!-- bench ends -->")[1]

    assert prose(directory / "performance.md") == prose(ROOT / "docs" / "performance.md")


def test_it_draws_the_plot(bench):
    with Image.open(bench[1] / "performance.png") as picture:
        assert min(picture.size) >= 400


def test_it_shows_its_progress(bench):
    assert "bench: round 1 of 1: " in bench[0].stdout
    assert "bench: growth: 64x64, " in bench[0].stdout


def test_the_published_page_comes_from_a_whole_run():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for words in ("block5_conv2, 1x512x512x3", "block5_conv2, 1x2048x2048x3", "TensorFlow"):
        assert words in page
