"""README is a front page: its code prints what it says, its links and commands exist."""

import re
import shutil

import numpy as np
import pytest

import unpooling
from tests.conftest import ROOT

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
        exec("".join(re.findall(CODE.format("python"), README, re.M | re.S)), names)
    return names


def test_its_unpooling_puts_each_value_where_it_was(names):
    unpooled, values = names["unpooled"], names["values"]
    np.testing.assert_array_equal(unpooled != 0, unpooled == values)


def test_pytorchs_indices_are_converted_both_ways(names):
    # Two channels of 2x5, of which the pooling drops the last column: pooled, they are 1x2.
    flat = np.array([[[[0, 8]], [[6, 3]]]])  # of PyTorch, (B, C, h, w): y * 5 + x
    rows = [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 3, 0], [0, 0, 3, 1]]
    np.testing.assert_array_equal(names["from_pytorch"](flat, 5), rows)
    np.testing.assert_array_equal(names["to_pytorch"](np.array(rows), (1, 1, 2, 2), 5), flat)


def test_pytorchs_layout_is_converted_for_any_map(names):
    values = np.random.default_rng(0).normal(size=(2, 7, 9, 3)).astype(np.float32)
    pooled, indices = unpooling.max_pool_with_indices(values)
    flat = names["to_pytorch"](indices.numpy(), pooled.shape, width=9)
    planes = values.transpose(0, 3, 1, 2).reshape(2, 3, 63)
    taken = np.take_along_axis(planes, flat.reshape(2, 3, -1), axis=2).reshape(flat.shape)
    np.testing.assert_array_equal(taken, pooled.numpy().transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(names["from_pytorch"](flat, width=9), indices)


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
    packages = ("unpooling", "export", "training", "publish")
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
