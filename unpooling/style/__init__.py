"""Photorealistic style transfer on pairs of an encoder and its decoder, at any size."""

from unpooling.style.pairs import load_modules, load_pairs
from unpooling.style.style import Style
from unpooling.style.transfer import SMOOTHINGS, transfer
from unpooling.style.transforms import METHODS

__all__ = ["METHODS", "SMOOTHINGS", "Style", "load_modules", "load_pairs", "stylize", "transfer"]


def __getattr__(name):
    if name != "stylize":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from unpooling.style.files import stylize  # It needs Pillow, which the others do not.

    return stylize
