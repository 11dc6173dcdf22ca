"""VGG19 encoders that return where each pooled maximum came from, and decoders that unpool."""

import importlib
from typing import TYPE_CHECKING

from unpooling.vgg19 import LAYERS

if TYPE_CHECKING:
    from unpooling.decoder import Decoder
    from unpooling.encoder import Encoder
    from unpooling.loading import load
    from unpooling.padding import crop, pad_by_reflection
    from unpooling.pooling import (
        indices_to_switches,
        max_pool_with_indices,
        max_pool_with_switches,
        switches_to_indices,
        unpool,
    )

__version__ = "0.4.0"

__all__ = [
    "LAYERS",
    "Decoder",
    "Encoder",
    "__version__",
    "crop",
    "indices_to_switches",
    "load",
    "max_pool_with_indices",
    "max_pool_with_switches",
    "pad_by_reflection",
    "switches_to_indices",
    "unpool",
]

# Importing TensorFlow takes seconds. These names are imported when they are first used.
_MODULES = {
    "Decoder": "decoder",
    "Encoder": "encoder",
    "crop": "padding",
    "indices_to_switches": "pooling",
    "load": "loading",
    "max_pool_with_indices": "pooling",
    "max_pool_with_switches": "pooling",
    "pad_by_reflection": "padding",
    "switches_to_indices": "pooling",
    "unpool": "pooling",
}


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
