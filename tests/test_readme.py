"""The README's code runs, its commands exist, and CI runs them."""

import re
import shutil

import numpy as np
from PIL import Image

from export import card
from tests.conftest import ROOT
from unpooling import archive

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_code_runs_as_printed(saved_model, build_decoder, run_command, tmp_path):
    shutil.copytree(saved_model("block5_conv2"), tmp_path / "encoder")
    (tmp_path / "decoder").mkdir()
    archive.unpack(str(build_decoder("block5_conv2") / "decoder.tar.gz"), tmp_path / "decoder")
    noise = np.random.default_rng(0).integers(0, 256, (53, 70, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    blocks = card.code_blocks(README)
    assert len(blocks) == 8
    program = "\n".join(blocks) + (
        "\nassert restored.shape == (1, 53, 70, 3)\n"
        "assert decoded.shape == padded.shape\n"
        "assert model(images).shape == (1, 3, 4, 512)\n"
        "assert unpooled.shape == (1, 8, 10, 512)\n"
        "assert (indices.numpy() == block4_indices.numpy()).all()\n"
        "assert len(encoder.trainable_variables) == 28\n"
        "assert len(variables) == 4 and all(g is not None for g in gradients)\n"
    )
    (tmp_path / "readme.py").write_text(program, encoding="utf-8")
    result = run_command(tmp_path / "readme.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))
    assert named >= {"demo", "test", "export", "lint"}
    assert named <= targets


def test_ci_runs_the_readmes_commands():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert {"make demo", "make test", "make lint"} <= set(ci)


def test_every_link_to_a_file_leads_somewhere():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
