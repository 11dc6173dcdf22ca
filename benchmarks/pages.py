"""Writes what was measured into a page."""

__all__ = ["between"]


def between(text: str, name: str, content: str) -> str:
    """Returns a page with other content between its comments `NAME begins` and `NAME ends`.

    Raises:
      SystemExit: if the page lacks one of them.
    """
    begin, end = (f"<!-- {name} {word} -->" for word in ("begins", "ends"))
    if begin not in text or end not in text:
        raise SystemExit(f"the page must have {begin} and {end}.")
    return f"{text.partition(begin)[0]}{begin}\n{content}\n{end}{text.partition(end)[2]}"
