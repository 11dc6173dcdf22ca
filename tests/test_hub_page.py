"""The head of a hub's page, and what is refused."""

import re

import pytest

from export import hub_page
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
    assert page.metadata["dataset"] == "coco-2017" and len(page.metadata) == 7
    assert hub_page.docs_path(page) == "someone/models/a-model/3.md"
    page = hub_page.read(COLLECTION)
    assert (page.kind, page.name, page.version) == ("Collection", "models", 1)
    assert page.description == "All that there is."
    assert hub_page.docs_path(page) == "someone/collections/models/1.md"
    page = hub_page.read(PUBLISHER)
    assert (page.kind, page.publisher, page.name, page.version) == ("Publisher", "someone", "", 0)
    assert (page.metadata, hub_page.docs_path(page)) == ({}, "someone/someone.md")
    text = MODULE.replace("something.", "something\nfor someone.")
    assert hub_page.read(text).description == "It does something for someone."


FIRST_LINE = "the first line must be `# Module PUBLISHER/NAME/VERSION`"
KEYS = "the metadata must be asset-path, dataset, fine-tunable, format, license, network-arch"
BREACHES = [
    # (page, what is replaced, by what, words of the refusal)
    (MODULE, "# Module ", "# Placeholder ", FIRST_LINE),
    (MODULE, "someone", "Some One", FIRST_LINE),
    (MODULE, "/a-model/3", "/../a-model/3", FIRST_LINE),
    (MODULE, "/3\n", "/three\n", FIRST_LINE),
    (PUBLISHER, "someone", "someone/models/1", FIRST_LINE),
    (MODULE, "It does something.\n", "", "must be followed by a description"),
    (MODULE, "<!-- license: mit -->", "licence: mit", "only metadata comments may stand"),
    (MODULE, "<!-- license", "<!-- language", KEYS),
    (MODULE, "<!-- license", "<!-- task: x -->\n<!-- license", KEYS),
    (MODULE, "<!-- asset-path: https://example.com/a-model/model.tar.gz -->", "", KEYS),
]


@pytest.mark.parametrize(("text", "old", "new", "words"), BREACHES)
def test_a_page_that_breaks_a_rule_is_refused(text, old, new, words):
    assert old in text
    with pytest.raises(UserError, match=re.escape(words)):
        hub_page.read(text.replace(old, new, 1))
