"""The rules of a hub for a page: of a model, a collection, a publisher.

They are those of TensorFlow Hub: tools/validator.py and tags/*.yaml in
https://github.com/tensorflow/tfhub.dev.
"""

import dataclasses
import re

from export import spec
from unpooling.errors import UserError

__all__ = ["Page", "docs_path", "read"]

_NAME = r"[\w.-]+(?:/[\w.-]+)*"
_FIRST_LINES = (
    re.compile(rf"# (?P<kind>Publisher) (?P<publisher>{spec.PUBLISHER_PATTERN})", re.ASCII),
    re.compile(
        rf"# (?P<kind>Module|Collection) (?P<publisher>{spec.PUBLISHER_PATTERN})/"
        rf"(?P<name>{_NAME})/(?P<version>\d+)",
        re.ASCII,
    ),
)
_METADATA = re.compile(r"<!--(?P<key>[\w\s-]+):(?P<value>.+)-->", re.ASCII)

# By the kind of page: the keys that it must have, and those that it may have.
_KEYS = {
    "Module": (
        {"asset-path", "fine-tunable", "format", "task"},
        {"dataset", "language", "license", "network-architecture"},
    ),
    "Collection": ({"task"}, {"dataset", "language", "network-architecture"}),
    "Publisher": (set(), set()),
}
_REPEATABLE = {"dataset", "language", "network-architecture", "task"}
_VALUES = {"format": ["hub", "saved_model", "saved_model_2"], "fine-tunable": ["true", "false"]}


@dataclasses.dataclass(frozen=True)
class Page:
    """The head of a page that follows the rules.

    Attributes:
      kind: "Module", "Collection" or "Publisher".
      publisher: the publisher's name on the hub.
      name: the model's or the collection's name; empty for a publisher.
      version: a whole number; 0 for a publisher.
      description: what is between the first line and the metadata, on one line.
      metadata: the values of each key.
    """

    kind: str
    publisher: str
    name: str
    version: int
    description: str
    metadata: dict[str, list[str]]


def read(text: str) -> Page:
    """Reads the head of a page and checks it against the rules.

    Args:
      text: the page, in Markdown.

    Raises:
      UserError: says which rule the page breaks.
    """
    lines = text.split("\n")
    match = next((m for pattern in _FIRST_LINES if (m := pattern.fullmatch(lines[0]))), None)
    if not match:
        raise UserError(
            "the first line must be `# Module PUBLISHER/NAME/VERSION`, `# Collection "
            "PUBLISHER/NAME/VERSION` or `# Publisher PUBLISHER`, the publisher in lower case. "
            f"Received: {lines[0]!r:.120}."
        )
    found = match.groupdict()
    headings = (i for i, line in enumerate(lines[1:], 1) if line.startswith("#"))
    head = [line for line in lines[1 : next(headings, len(lines))] if line]
    metadata_at = next((i for i, line in enumerate(head) if line.startswith("<!--")), len(head))
    description = " ".join(head[:metadata_at])
    if not description:
        raise UserError("the first line must be followed by a description.")
    metadata = _read_metadata(head[metadata_at:], found["kind"])
    _check_values(metadata)
    return Page(
        found["kind"],
        found["publisher"],
        found.get("name") or "",
        int(found.get("version") or 0),
        description,
        metadata,
    )


def docs_path(page: Page) -> str:
    """Returns where a page lies below `assets/docs` of a hub's tree."""
    if page.kind == "Publisher":
        return f"{page.publisher}/{page.publisher}.md"
    folder = {"Module": "models", "Collection": "collections"}[page.kind]
    return f"{page.publisher}/{folder}/{page.name}/{page.version}.md"


def _read_metadata(lines, kind):
    metadata = {}
    for line in lines:
        match = _METADATA.fullmatch(line)
        if not match:
            raise UserError(
                "only metadata comments may stand between the description and the first heading. "
                f"Received: {line!r:.120}."
            )
        metadata.setdefault(match["key"].strip(), []).append(match["value"].strip())
    required, optional = _KEYS[kind]
    if not required <= set(metadata) <= required | optional:
        raise UserError(
            f"the metadata of a {kind} must be {', '.join(sorted(required)) or 'nothing'}, and may "
            f"be {', '.join(sorted(optional)) or 'nothing'}. "
            f"Received: {', '.join(sorted(metadata)) or 'none'}."
        )
    for key, values in metadata.items():
        if len(values) > 1 and key not in _REPEATABLE:
            raise UserError(f"the metadata `{key}` appears twice.")
    return metadata


def _check_values(metadata):
    allowed = spec.hub_tags() | _VALUES
    for key, values in metadata.items():
        for value in values:
            if key in allowed and value not in allowed[key]:
                raise UserError(
                    f"`{key}` must be one of the hub's tags ({', '.join(allowed[key][:8])}"
                    f"{', ...' if len(allowed[key]) > 8 else ''}). Received: {value!r:.80}."
                )
    for path in metadata.get("asset-path", []):
        if not re.fullmatch(spec.ASSET_URL_PATTERN, path, re.ASCII) or path[-7:] != ".tar.gz":
            raise UserError(
                f"`asset-path` must be an http or https URL ending in .tar.gz. Received: {path!r}."
            )
        if re.match(r"https://github\.com/.*/releases/download/", path):
            raise UserError(
                "`asset-path` may not be a download of a GitHub release: robots.txt keeps hubs "
                f"from fetching it. Received: {path}."
            )
