"""What a hub demands of a page: of a model's, a collection's, a publisher's.

The rules are those of tfhub.dev, which other hubs took over: tools/validator.py and tags/*.yaml in
https://github.com/tensorflow/tfhub.dev.
"""

import dataclasses
import json
import pathlib
import re

from export import spec

__all__ = ["Page", "docs_path", "read", "tags"]

_TAGS = pathlib.Path(__file__).parent.parent / "assets" / "hub_tags.json"
_NAME = r"[\w.-]+(?:/[\w.-]+)*"
_FIRST_LINES = (
    re.compile(rf"# (?P<kind>Publisher) (?P<publisher>{spec.PUBLISHER})", re.ASCII),
    re.compile(
        rf"# (?P<kind>Module|Collection) (?P<publisher>{spec.PUBLISHER})/(?P<name>{_NAME})/"
        r"(?P<version>\d+)",
        re.ASCII,
    ),
)
_METADATA = re.compile(r"<!--(?P<key>[\w\s-]+):(?P<value>.+)-->", re.ASCII)
_ICON = "[![Icon URL]]"

# By the kind of page: the keys that must be there, and those that may.
_REQUIRED = {
    "Module": {"asset-path", "fine-tunable", "format", "task"},
    "Collection": {"task"},
    "Publisher": set(),
}
_OPTIONAL = {
    "Module": {
        *("colab", "dataset", "interactive-visualizer", "language", "license"),
        "network-architecture",
    },
    "Collection": {"dataset", "language", "network-architecture"},
    "Publisher": set(),
}
_REPEATABLE = {"dataset", "language", "network-architecture", "task"}
_FORMATS = ["hub", "saved_model", "saved_model_2"]


@dataclasses.dataclass(frozen=True)
class Page:
    """A page that keeps the rules.

    Attributes:
      kind: "Module", "Collection" or "Publisher".
      publisher: the publisher's name on the hub.
      name: the model's or the collection's name; empty for a publisher.
      version: a whole number; 0 for a publisher.
      description: what stands between the first line and the metadata, in one line.
      metadata: for each key its values.
    """

    kind: str
    publisher: str
    name: str
    version: int
    description: str
    metadata: dict[str, list[str]]


def tags() -> dict[str, list[str]]:
    """Returns for `task`, `dataset`, `network-architecture` and `license` the values allowed."""
    found = json.loads(_TAGS.read_text(encoding="utf-8"))
    found.pop("source")
    return found


def read(text: str) -> Page:
    """Reads the head of a page and holds it against the rules.

    Args:
      text: the page, in Markdown.

    Raises:
      ValueError: says which rule the page breaks.
    """
    lines = text.split("\n")
    match = next((m for pattern in _FIRST_LINES if (m := pattern.fullmatch(lines[0]))), None)
    if not match:
        raise ValueError(
            "the first line must be `# Module PUBLISHER/NAME/VERSION`, `# Collection "
            "PUBLISHER/NAME/VERSION` or `# Publisher PUBLISHER`, the publisher in lower case. "
            f"Received: {lines[0]!r:.120}."
        )
    found = match.groupdict()
    kind = found["kind"]
    head = [line for line in lines[1 : _first_heading(lines)] if line]
    metadata_at = next(
        (i for i, line in enumerate(head) if line.startswith(("<!--", _ICON))), len(head)
    )
    description = " ".join(head[:metadata_at])
    if not description:
        raise ValueError("the first line must be followed by a description.")
    metadata = _read_metadata(head[metadata_at:], kind)
    _check_values(metadata)
    return Page(
        kind,
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


def _first_heading(lines):
    return next((i for i, line in enumerate(lines[1:], 1) if line.startswith("#")), len(lines))


def _read_metadata(lines, kind):
    metadata = {}
    for line in lines:
        if kind == "Publisher" and line.startswith(_ICON):
            continue
        match = _METADATA.fullmatch(line)
        if not match:
            raise ValueError(
                "only metadata comments may stand between the description and the first heading. "
                f"Received: {line!r:.120}."
            )
        metadata.setdefault(match["key"].strip(), []).append(match["value"].strip())
    lacking = _REQUIRED[kind] - set(metadata)
    unknown = set(metadata) - _REQUIRED[kind] - _OPTIONAL[kind]
    if lacking or unknown:
        required = ", ".join(sorted(_REQUIRED[kind])) or "nothing"
        optional = ", ".join(sorted(_OPTIONAL[kind])) or "nothing"
        raise ValueError(
            f"the metadata of a {kind} must be {required}, and may be {optional}. "
            f"Received: {', '.join(sorted(metadata)) or 'none'}."
        )
    for key, values in metadata.items():
        if len(values) > 1 and key not in _REPEATABLE:
            raise ValueError(f"the metadata `{key}` appears twice.")
    return metadata


def _check_values(metadata):
    allowed = {**tags(), "format": _FORMATS, "fine-tunable": ["true", "false"]}
    for key, values in metadata.items():
        for value in values:
            if key in allowed and value not in allowed[key]:
                raise ValueError(
                    f"`{key}` must be one of the hub's tags ({', '.join(allowed[key][:8])}"
                    f"{', ...' if len(allowed[key]) > 8 else ''}). Received: {value!r:.80}."
                )
    for path in metadata.get("asset-path", []):
        if not re.fullmatch(spec.ASSET_URL, path, re.ASCII) or not path.endswith(".tar.gz"):
            raise ValueError(
                f"`asset-path` must be an http or https URL ending in .tar.gz. Received: {path!r}."
            )
        if re.match(r"https://github\.com/.*/releases/download/", path):
            raise ValueError(
                "`asset-path` may not be a download of a GitHub release: robots.txt keeps hubs "
                f"from fetching it. Received: {path}."
            )
