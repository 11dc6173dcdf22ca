"""README is a front page: its code prints what it says, its links and commands exist."""

import re
import shutil

import numpy as np
import pytest

from tests.conftest import ROOT
from unpooling import weights

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CODE = r"^```{}\n(.*?)^```$"


@pytest.fixture(scope="module")
def names(build, saved_model, tmp_path_factory):
    """What README's Python defines; test_packaging.py compares what it prints."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(build("block3_conv2") / "encoder.tar.gz", folder)
    shutil.copytree(saved_model("block3_conv2"), folder / "encoder")
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        layers = weights.load("random", "block3_conv2").layers
        patch.setattr(weights, "_imagenet", lambda: layers)  # In place of the download.
        exec("".join(re.findall(CODE.format("python"), README, re.M | re.S)), names)
    return names


def test_its_unpooling_puts_each_value_where_it_was(names):
    unpooled, values = names["unpooled"], names["values"]
    np.testing.assert_array_equal(unpooled != 0, unpooled == values)


def test_it_is_short():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    text = re.sub(CODE.format(r"\w*"), "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        target = page.parent / file if file else page
        assert target.exists(), f"{page.name}: {file}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            slugs = [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]
            assert anchor in slugs, f"{page.name}: {file}#{anchor}"


def test_every_page_of_docs_is_in_its_index_and_none_besides():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\]\((\w[\w-]*\.md)\)", index))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}


def test_the_house_in_contributing_has_every_module():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## The house")[2]
    packages = ("unpooling", "unpooling/style", "export", "training", "publish")
    files = [*ROOT.glob("*.py"), *(p for name in packages for p in (ROOT / name).glob("*.py"))]
    assert set(re.findall(r"\w+\.py", re.search(CODE.format(""), text, re.M | re.S)[1])) == {
        path.name for path in files if path.name != "__init__.py"
    }


def test_make_targets_and_variables_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.M))
    variables = set(re.findall(r"\b[A-Z_]+\b", makefile))
    for page in PAGES:
        for line in re.findall(r"(?:^|`)make [^`\n#]*", page.read_text(encoding="utf-8"), re.M):
            target = re.search(r"make (?:[A-Z_]+=\S+ )*([a-z]+)?", line)[1]
            assert target is None or target in targets, f"{page.name}: {line}"
            assert set(re.findall(r"\b([A-Z_]+)=", line)) <= variables, f"{page.name}: {line}"
