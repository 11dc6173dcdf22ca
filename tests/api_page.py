"""Writes docs/api.md from the docstrings of `unpooling`.

python -m tests.api_page
"""

import inspect
import pathlib

import unpooling

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "api.md"

_HEAD = """\
# API

The public names of `unpooling`, from their docstrings. `python -m tests.api_page` writes this page.

`B` is the batch, `H` and `W` are height and width, `C` is the number of channels, and `K` is the
number of an encoder's last block. `UserError` is a `ValueError`.
"""

# Of these classes, the methods that are for users.
_METHODS = {
    "Encoder": ("load", "__call__", "compact", "features"),
    "Decoder": ("load", "__call__"),
}

# In the order in which they are used.
_NAMES = (
    *("Encoder", "Decoder", "load"),
    *("max_pool_with_indices", "max_pool_with_switches", "unpool"),
    *("switches_to_indices", "indices_to_switches", "pad_by_reflection", "crop"),
)


def render() -> str:
    """Returns docs/api.md."""
    parts = [_HEAD]
    for name in _NAMES:
        value = getattr(unpooling, name)
        parts.append(f"## {name}\n\n{_entry(f'unpooling.{name}', value)}")
        for method in _METHODS.get(name, ()):
            called = {"load": f"{name}.load", "__call__": name.lower()}
            title = called.get(method, f"{name.lower()}.{method}")
            parts.append(f"### {title}\n\n{_entry(title, getattr(value, method))}")
    layers = ", ".join(f"`{layer}`" for layer in unpooling.LAYERS)
    parts.append(f"## LAYERS\n\nThe layers at which an encoder can end: {layers}.\n")
    parts.append("## `__version__`\n\nThe version of the package, a string.\n")
    return "\n".join(parts)


def _entry(title, value):
    """The signature, without types, and the docstring of a function or a class."""
    parameters = inspect.signature(value).parameters.values()
    bare = [p.replace(annotation=p.empty) for p in parameters if p.name != "self"]
    bare = [p.replace(default=_Text(p.default)) if p.default is not p.empty else p for p in bare]
    signature = str(inspect.Signature(bare))
    text = inspect.getdoc(value)
    if inspect.isclass(value):
        arguments = inspect.getdoc(value.__init__).partition("Args:")
        text = f"{text}\n\n{''.join(arguments[1:])}"
    first, _, rest = text.partition("\n\n")
    lines = f"```text\n{rest}\n```\n" if rest else ""
    return f"`{title}{signature}`\n\n{' '.join(first.split())}\n\n{lines}"


class _Text(str):
    """A default as one writes it: "int64" for tf.int64."""

    def __new__(cls, value):
        return super().__new__(cls, repr(getattr(value, "name", value)))

    def __repr__(self):
        return str(self)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8", newline="\n")
