"""What strangers' archives and libraries' errors say, made fit for one line of a terminal."""

__all__ = ["one_line"]


def one_line(message: object) -> str:
    """Returns the text of a message in one line, with everything unprintable escaped.

    Names in an archive may hold line ends, what moves a terminal's cursor, or no text at all.
    """
    text = " ".join(str(message).split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
