"""How the project renders its Jinja templates: cards, pages of a hub, HTML."""

import functools
import pathlib

import jinja2

from export.spec import ASSETS

__all__ = ["environment"]


@functools.cache
def environment(folder: pathlib.Path = ASSETS, html: bool = False) -> jinja2.Environment:
    """Returns the environment for the templates in a folder.

    Args:
      folder: where the templates are.
      html: whether values are escaped for HTML. Those in Markdown are checked by their callers.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=html,
    )
