"""The rules of a hub for its pages, one by one."""

import re

import pytest

from export import hub_page
from tests.conftest import ROOT

MODULE = """# Module someone/a-model/3

It does something.

<!-- asset-path: https://example.com/a-model/model.tar.gz -->
<!-- task: image-feature-vector -->
<!-- fine-tunable: true -->
<!-- dataset: coco-2017 -->
<!-- format: saved_model_2 -->
<!-- network-architecture: vgg-style -->
<!-- license: mit -->

## Overview
<!-- not: metadata any more -->
"""

COLLECTION = """# Collection someone/models/1
All that there is.
<!-- task: image-feature-vector -->
"""

PUBLISHER = """# Publisher someone
A person.

[![Icon URL]](https://example.com/face.png)

## Details
"""


def test_a_modules_page_is_read():
    assert hub_page.read(MODULE) == hub_page.Page(
        kind="Module",
        publisher="someone",
        name="a-model",
        version=3,
        description="It does something.",
        metadata={
            "asset-path": ["https://example.com/a-model/model.tar.gz"],
            "task": ["image-feature-vector"],
            "fine-tunable": ["true"],
            "dataset": ["coco-2017"],
            "format": ["saved_model_2"],
            "network-architecture": ["vgg-style"],
            "license": ["mit"],
        },
    )


def test_a_collections_page_is_read():
    page = hub_page.read(COLLECTION)
    assert (page.kind, page.name, page.version) == ("Collection", "models", 1)
    assert page.description == "All that there is."


def test_a_publishers_page_is_read():
    page = hub_page.read(PUBLISHER)
    assert (page.kind, page.publisher, page.name, page.version) == ("Publisher", "someone", "", 0)
    assert page.metadata == {}


def test_a_page_may_end_after_its_head():
    assert hub_page.read("# Publisher someone\nA person.").description == "A person."


def test_a_description_may_take_several_lines():
    text = MODULE.replace("something.", "something\nfor someone.")
    assert hub_page.read(text).description == "It does something for someone."


def test_some_metadata_may_appear_more_than_once():
    text = MODULE.replace("<!-- dataset: coco-2017 -->", "<!--dataset:coco-2017-->\n" * 2)
    assert hub_page.read(text).metadata["dataset"] == ["coco-2017", "coco-2017"]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (MODULE, "someone/models/a-model/3.md"),
        (COLLECTION, "someone/collections/models/1.md"),
        (PUBLISHER, "someone/someone.md"),
    ],
)
def test_every_page_has_its_place(text, path):
    assert hub_page.docs_path(hub_page.read(text)) == path


FIRST_LINE = "the first line must be `# Module PUBLISHER/NAME/VERSION`"
BREACHES = [
    # (page, what is replaced, by what, words of the refusal)
    (MODULE, "# Module ", "Module ", FIRST_LINE),
    (MODULE, "# Module ", "# Placeholder ", FIRST_LINE),
    (MODULE, "someone", "Some One", FIRST_LINE),
    (MODULE, "/a-model/3", "/3", FIRST_LINE),
    (MODULE, "/a-model/3", "/a model/3", FIRST_LINE),
    (MODULE, "/3\n", "/three\n", FIRST_LINE),
    (MODULE, "/3\n", "/3 \n", FIRST_LINE),
    (PUBLISHER, "someone", "someone/1", FIRST_LINE),
    (MODULE, "It does something.\n", "", "must be followed by a description"),
    (PUBLISHER, "A person.\n", "", "must be followed by a description"),
    (MODULE, "<!-- license: mit -->", "licence: mit", "only metadata comments may stand"),
    (MODULE, "<!-- license: mit -->", "<!-- licence mit -->", "only metadata comments may stand"),
    (MODULE, "<!-- license: mit -->", "[![Icon URL]](x)", "only metadata comments may stand"),
    (MODULE, "<!-- license", "<!-- parent-model", "the metadata of a Module must be asset-path"),
    (COLLECTION, "<!-- task", "<!-- license", "the metadata of a Collection must be task"),
    (PUBLISHER, "[![Icon URL]](https://example.com/face.png)", "<!-- task: x -->", "of a Publish"),
    *[
        (MODULE, f"<!-- {key}", "<!-- language", "the metadata of a Module must be asset-path")
        for key in ("asset-path", "task", "fine-tunable", "format")
    ],
    *[
        (MODULE, f"<!-- {key}:", f"<!-- {key}: x -->\n<!-- {key}:", f"`{key}` appears twice")
        for key in ("asset-path", "fine-tunable", "format", "license")
    ],
    *[
        (MODULE, f"<!-- {key}: ", f"<!-- {key}: no-such-", f"`{key}` must be one of the hub's tags")
        for key in ("task", "dataset", "network-architecture", "license", "format", "fine-tunable")
    ],
    (MODULE, "model.tar.gz", "model.zip", "must be an http or https URL ending in .tar.gz"),
    (MODULE, "https://example", "gs://example", "must be an http or https URL"),
    (
        MODULE,
        "https://example.com/a-model/",
        "https://github.com/someone/models/releases/download/v1/",
        "may not be a download of a GitHub release",
    ),
]


@pytest.mark.parametrize(("text", "old", "new", "words"), BREACHES)
def test_a_page_that_breaks_a_rule_is_refused(text, old, new, words):
    assert old in text
    with pytest.raises(ValueError, match=re.escape(words)):
        hub_page.read(text.replace(old, new, 1))


def test_an_empty_page_is_refused():
    with pytest.raises(ValueError, match=re.escape(FIRST_LINE)):
        hub_page.read("")


def test_the_tags_that_this_project_uses_are_the_hubs():
    tags = hub_page.tags()
    assert set(tags) == {"task", "dataset", "network-architecture", "license"}
    assert {"imagenet-ilsvrc-2012-cls", "coco-2017", "other"} <= set(tags["dataset"])
    assert all(len(values) == len(set(values)) for values in tags.values())


def test_the_readme_says_where_the_dataset_tags_are_listed():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "assets/hub_tags.json" in text
