"""The error of this project, and messages that fit on one line."""

__all__ = ["UserError", "one_line"]


class UserError(ValueError):
    """Something the caller passed cannot be used.

    The message says what was received, what is allowed and what to do. Commands print it on one
    line. Any other exception is a bug and keeps its traceback.
    """


def one_line(message: object) -> str:
    """Returns the text of a message on one line, with everything unprintable escaped.

    Names in an archive may hold line ends, control characters of a terminal, or no text at all.
    """
    text = " ".join(str(message).split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
