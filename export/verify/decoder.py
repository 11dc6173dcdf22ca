"""What a decoder promises, for `verify` to check on a loaded one.

Nothing of this project's own decoder or pooling is used: pictures are compared with those of
Keras' convolutions, carrying the archive's weights, and `tf.scatter_nd`.
"""

import functools
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from export.spec import Spec
from export.verify.loaded import Loaded, close, expect, expect_refused
from unpooling import options, vgg19

__all__ = ["checks", "example"]


def checks(spec: Spec) -> dict[str, Callable[[Loaded], str]]:
    """Returns the checks of a decoder by name."""
    return {"pictures": _check_pictures, "wrong input": _check_wrong_input}


def example(spec: Spec) -> list[tf.Tensor]:
    """Returns what a decoder can be called with."""
    _, features, switches = next(_inputs(spec))
    return _tensors(features, switches, "int64")


def _inputs(spec):
    """Features of several sizes and batches, with random switches.

    Yields:
      name, features (B, h, w, C), float32, and for each pooling (B, h_k, w_k, C_k), uint8.
    """
    random = np.random.default_rng(0)
    for batch, height, width in ((1, 2, 3), (3, 1, 2), (2, 4, 1)):
        shape = (batch, height, width, spec.channels)
        features = np.maximum(random.normal(0, 100, shape), 0).astype(np.float32)
        switches = []
        for block in spec.pooled:
            scale = 2 ** (len(spec.pooled) - block.number)
            shape = (batch, height * scale, width * scale, block.channels)
            switches.append(random.integers(0, 4, shape).astype(np.uint8))
        yield f"{batch}x{height}x{width}", features, switches


def _indices(switches, dtype="int64"):
    """The rows (batch, y, x, channel) that say the same as switches."""
    batch, y, x, channel = np.indices(switches.shape)
    rows = [batch, 2 * y + switches // 2, 2 * x + switches % 2, channel]
    return np.stack([row.ravel() for row in rows], axis=1).astype(dtype)


def _tensors(features, switches, dtype):
    """A decoder's inputs: features, and indices of this dtype, or switches if it is uint8."""
    positions = switches if dtype == "uint8" else [_indices(s, dtype) for s in switches]
    return [tf.constant(array) for array in (features, *positions)]


def _calls(loaded: Loaded, features, switches):
    """Every way to decode the same: {name: function without arguments}."""

    def serve(signature, dtype, names):
        inputs = dict(zip(["features", *names], _tensors(features, switches, dtype), strict=True))
        return loaded.module.signatures[signature](**inputs)["images"]

    names = [(block.indices_name, block.switches_name) for block in loaded.spec.pooled]
    calls = {
        f"the call with {dtype}": functools.partial(
            loaded.call, _tensors(features, switches, dtype)
        )
        for dtype in (*options.INDEX_DTYPES, "uint8")
    }
    calls["serving_default"] = lambda: serve("serving_default", "int64", [n for n, _ in names])
    calls["compact"] = lambda: serve("compact", "uint8", [n for _, n in names])
    return calls


def _check_pictures(loaded):
    """Compares with Keras' convolutions and `tf.scatter_nd`."""
    layers = {}
    for c in loaded.spec.convolutions:
        layers[c.name] = keras.layers.Conv2D(c.out_channels, 3, padding="same", activation="relu")
        layers[c.name].build((None, None, None, c.in_channels))
        layers[c.name].set_weights(loaded.layers[c.name])
    layers[c.name].activation = keras.activations.linear  # the last
    for size, features, switches in _inputs(loaded.spec):
        maps = features
        for block in vgg19.mirror(loaded.spec.layer):
            if block.unpooled:
                batch, height, width, channels = maps.shape
                shape = tf.constant([batch, 2 * height, 2 * width, channels], tf.int64)
                indices = _indices(switches[block.number - 1])
                maps = tf.scatter_nd(indices, tf.reshape(maps, [-1]), shape)
            for c in block.convolutions:
                maps = layers[c.name](maps)
        for name, call in _calls(loaded, features, switches).items():
            images = call()
            expect(isinstance(images, tf.Tensor), f"{name} returns a {type(images).__name__}")
            same = images.dtype == tf.float32 and close(images, maps)
            expect(same, f"{size}: {name} differs from Keras and tf.scatter_nd")
    return "equal those of Keras' convolutions and tf.scatter_nd, from indices and from switches"


def _check_wrong_input(loaded):
    """What does not fit together is refused in every form."""
    (_, features, switches), (_, _, others), _ = _inputs(loaded.spec)
    cases = {
        "features of other channels": (features[..., :5], switches, "features"),
        "float64 features": (np.float64(features), switches, "float32|float tensor"),
    }
    if switches:
        cases["another picture's positions"] = (features, others, "block1_.* do not fit")
    for what, (*inputs, pattern) in cases.items():
        for name, call in _calls(loaded, *inputs).items():
            expect_refused(call, name, what, pattern)
    return f"{', '.join(cases)}: refused"
