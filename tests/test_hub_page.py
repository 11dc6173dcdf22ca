"""The rules of a hub for its pages, one by one."""

import re

import pytest

from export import hub_page, spec
from export.licenses import LICENSES
from unpooling.errors import UserError

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

## Details
"""


def test_the_head_of_a_page_is_read():
    page = hub_page.read(MODULE)
    assert (page.kind, page.publisher) == ("Module", "someone")
    assert (page.name, page.version) == ("a-model", 3)
    assert page.description == "It does something."
    assert page.metadata["dataset"] == ["coco-2017"] and len(page.metadata) == 7
    page = hub_page.read(COLLECTION)
    assert (page.kind, page.name, page.version) == ("Collection", "models", 1)
    assert page.description == "All that there is."
    page = hub_page.read(PUBLISHER)
    assert (page.kind, page.publisher, page.name, page.version) == ("Publisher", "someone", "", 0)
    assert page.metadata == {}
    assert hub_page.read("# Publisher someone\nA person.").description == "A person."


def test_a_description_may_take_several_lines_and_some_metadata_may_appear_twice():
    text = MODULE.replace("something.", "something\nfor someone.")
    text = text.replace("<!-- dataset: coco-2017 -->", "<!--dataset:coco-2017-->\n" * 2)
    assert hub_page.read(text).description == "It does something for someone."
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
    (MODULE, MODULE, "", FIRST_LINE),
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
    (MODULE, "<!-- license", "<!-- parent-model", "the metadata of a Module must be asset-path"),
    (COLLECTION, "<!-- task", "<!-- license", "the metadata of a Collection must be task"),
    (PUBLISHER, "A person.", "A person.\n<!-- task: x -->", "of a Publisher must be nothing"),
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
    with pytest.raises(UserError, match=re.escape(words)):
        hub_page.read(text.replace(old, new, 1))


def test_the_tags_that_this_project_uses_are_the_hubs():
    tags = spec.hub_tags()
    assert set(tags) == {"source", "task", "dataset", "network-architecture", "license"}
    assert {"imagenet-ilsvrc-2012-cls", "coco-2017", "other"} <= set(tags["dataset"])
    assert {"mit", "custom"} | {license.hub for license in LICENSES.values()} <= set(
        tags["license"]
    )
