"""The head of a hub's page: of a model, a collection or a publisher.

Its form is that of TensorFlow Hub: tools/validator.py in https://github.com/tensorflow/tfhub.dev.
What the metadata may say is checked by `export.card` and `export.spec.Publication`.
"""

import dataclasses
import re

from export.spec import PUBLISHER_PATTERN
from unpooling.errors import UserError

__all__ = ["Page", "docs_path", "read"]

_FIRST_LINE = re.compile(
    rf"# (Module|Collection|Publisher) ({PUBLISHER_PATTERN})(?:/([\w.-]+)/(\d+))?", re.ASCII
)
_METADATA = re.compile(r"<!--([\w\s-]+):(.+)-->", re.ASCII)
# Sorted.
_KEYS_OF_A_MODULE = (
    "asset-path dataset fine-tunable format license network-architecture task".split()
)


@dataclasses.dataclass(frozen=True)
class Page:
    """The head of a page.

    Attributes:
      kind: "Module", "Collection" or "Publisher".
      publisher: the publisher's name on the hub.
      name: the model's or the collection's name; empty for a publisher.
      version: a whole number; 0 for a publisher.
      description: what is between the first line and the metadata, on one line.
      metadata: the value of each key; of a key that appears twice, the last one.
    """

    kind: str
    publisher: str
    name: str
    version: int
    description: str
    metadata: dict[str, str]


def read(text: str) -> Page:
    """Reads the head of a page.

    Args:
      text: the page, in Markdown.

    Raises:
      UserError: says what is wrong with it.
    """
    first, _, rest = text.partition("\n")
    match = _FIRST_LINE.fullmatch(first)
    if not match or (match[1] == "Publisher") != (match[3] is None):
        raise UserError(
            "the first line must be `# Module PUBLISHER/NAME/VERSION`, `# Collection "
            "PUBLISHER/NAME/VERSION` or `# Publisher PUBLISHER`, the publisher in lower case. "
            f"Received: {first!r:.120}."
        )
    kind, publisher, name, version = match.groups()
    head = [line for line in f"\n{rest}".partition("\n#")[0].split("\n") if line]
    start = next((i for i, line in enumerate(head) if line.startswith("<!--")), len(head))
    if start == 0:
        raise UserError("the first line must be followed by a description.")
    pairs = []
    for line in head[start:]:
        match = _METADATA.fullmatch(line)
        if not match:
            raise UserError(
                "only metadata comments may stand between the description and the first heading. "
                f"Received: {line!r:.120}."
            )
        pairs.append((match[1].strip(), match[2].strip()))
    keys = sorted(key for key, _ in pairs)
    if kind == "Module" and keys != _KEYS_OF_A_MODULE:
        raise UserError(
            f"the metadata must be {', '.join(_KEYS_OF_A_MODULE)}. "
            f"Received: {', '.join(keys) or 'none'}."
        )
    description = " ".join(head[:start])
    return Page(kind, publisher, name or "", int(version or 0), description, dict(pairs))


def docs_path(page: Page) -> str:
    """Returns where a page lies below `assets/docs` of a hub's tree."""
    if page.kind == "Publisher":
        return f"{page.publisher}/{page.publisher}.md"
    folder = {"Module": "models", "Collection": "collections"}[page.kind]
    return f"{page.publisher}/{folder}/{page.name}/{page.version}.md"
