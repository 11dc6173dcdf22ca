"""Arguments that cannot be used, in one line."""

from collections.abc import Sequence

import numpy as np

from unpooling.errors import UserError, one_line

__all__ = ["check_choice", "check_picture"]


def check_picture(picture: object, name: str) -> None:
    """Raises a UserError if something is not a picture (H, W, 3), uint8."""
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8:
        if picture.ndim == 3 and picture.shape[2] == 3 and picture.size:
            return
        received = f"shape {picture.shape}"
    else:
        received = str(getattr(picture, "dtype", type(picture).__name__))
    raise UserError(
        f"`{name}` must be a picture, RGB, uint8, of shape (H, W, 3). Received: {received}."
    )


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raises a UserError if an argument is not one of those that are allowed."""
    if value not in allowed:
        raise UserError(
            f"`{name}` must be one of {', '.join(allowed)}. Received: {one_line(value)}."
        )
