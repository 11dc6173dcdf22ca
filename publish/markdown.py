"""A page's Markdown as HTML that is safe to show, whoever wrote it."""

import itertools
import re
from collections.abc import Mapping

import markdown_it
import nh3

__all__ = ["render", "render_line"]

_TAGS = nh3.ALLOWED_TAGS - {"map", "area", "form"}


def render(text: str, moved: Mapping[str, str]) -> str:
    """Returns the body of a page as sanitised HTML, without its first line.

    Args:
      text: the page, in Markdown, with a first line and metadata as `hub_page` has them.
      moved: for the beginnings of pictures' URLs where those pictures lie now.

    Returns:
      HTML without scripts, styles, forms, frames or event handlers.
    """
    renderer = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table")
    # The first line is the title already.
    tokens = renderer.parse(text.partition("\n")[2])
    for heading, content in itertools.pairwise(tokens):
        if heading.type == "heading_open":  # So that links within the page lead somewhere.
            heading.attrSet("id", re.sub(r"\W+", "-", content.content.lower()).strip("-"))
    html = renderer.renderer.render(tokens, renderer.options, {})

    def move(tag, attribute, value):
        if (tag, attribute) == ("img", "src"):
            for beginning, place in moved.items():
                if value.startswith(f"{beginning}/"):
                    return place + value.removeprefix(beginning)
        return value

    return nh3.clean(
        html,
        tags=set(_TAGS),
        attributes={**nh3.ALLOWED_ATTRIBUTES, "code": {"class"}, "h2": {"id"}, "h3": {"id"}},
        attribute_filter=move,
        url_schemes={"http", "https", "mailto"},
    )


def render_line(text: str) -> str:
    """Returns a line of Markdown, such as a description, as sanitised HTML without a paragraph."""
    return nh3.clean(markdown_it.MarkdownIt("commonmark").renderInline(text), tags={"code", "em"})
