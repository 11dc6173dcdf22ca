"""How the project renders its Jinja templates: cards, pages of a hub, HTML."""

import pathlib

import jinja2

__all__ = ["ASSETS", "environment"]

# Beside the packages: the templates of cards and of a hub's pages, and the hub's tags.
ASSETS = pathlib.Path(__file__).parent.parent / "assets"


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
