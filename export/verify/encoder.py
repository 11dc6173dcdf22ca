"""What an encoder promises, for `verify` to check on a loaded one.

Nothing of this project's own encoder is used: features and indices are compared with
`keras.applications.VGG19` carrying the archive's weights.
"""

import functools
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from export.spec import Spec
from export.verify.loaded import TOLERANCE, Loaded, close, expect, expect_refused

__all__ = ["checks", "example"]


def checks(spec: Spec) -> dict[str, Callable[[Loaded], str]]:
    """Returns the checks of an encoder by name."""
    return {
        "outputs": _check_outputs,
        "features and indices": _check_features_and_indices,
        **({"NaN": _check_nan} if spec.pooled else {}),
        "wrong input": _check_wrong_input,
    }


def example(spec: Spec) -> list[tf.Tensor]:
    """Returns what an encoder can be called with."""
    _, images = next(_pictures(spec))
    return [images]


def _pictures(spec):
    """Yields pictures of several sizes and batches: (name, (B, H, W, 3) float32)."""
    scale = spec.downsampling
    sizes = [(1, 2 * scale, 2 * scale), (3, scale, 3 * scale), (2, 2 * scale + 5, scale + 3)]
    for shape in [*sizes, (1, scale, scale)]:
        images = tf.random.stateless_uniform((*shape, 3), (1, 0), 0, 255)
        yield "x".join(map(str, shape)), images
    yield "flat", tf.fill((1, 2 * scale, 2 * scale, 3), 128.0)


def _check_outputs(loaded: Loaded):
    """A call, the other methods and the signatures say the same."""
    spec, module = loaded.spec, loaded.module
    indices_names = [block.indices_name for block in spec.pooled]
    switches_names = [block.switches_name for block in spec.pooled]
    sizes = dict(_pictures(spec))
    for size, images in sizes.items():
        called = module(images)
        wanted = list if spec.pooled else tf.Tensor
        expect(isinstance(called, wanted), f"a call returns a {type(called).__name__}")
        features, *indices = tf.nest.flatten(called)
        batch, height, width, _ = images.shape
        switches = []
        for block, rows in zip(spec.pooled, indices, strict=True):
            shape = (batch, height >> block.number, width >> block.number, block.channels)
            bits = 2 * (rows[:, 1] % 2) + rows[:, 2] % 2
            switches.append(np.reshape(bits, shape).astype(np.uint8))
        alone = {"features": features}
        with_indices = alone | dict(zip(indices_names, indices, strict=True))
        with_switches = alone | dict(zip(switches_names, switches, strict=True))
        compact = tf.nest.flatten(module.compact(images))
        served = {name: call(images=images) for name, call in module.signatures.items()}
        for what, found, expected in (
            ("compact", dict(zip(with_switches, compact, strict=True)), with_switches),
            ("features", {"features": module.features(images)}, alone),
            ("the signature serving_default", served["serving_default"], with_indices),
            ("the signature compact", served["compact"], with_switches),
            ("the signature features", served["features"], alone),
        ):
            for name, output in expected.items():
                expect(close(found[name], output), f"{size}: {name} of {what} differ")
    return f"the same from a call, compact, features and the signatures, for {', '.join(sizes)}"


def _check_features_and_indices(loaded):
    """Compares with Keras, block by block, and unpools."""
    vgg = keras.applications.VGG19(include_top=False, weights=None)
    for name, arrays in loaded.layers.items():
        vgg.get_layer(name).set_weights(arrays)
    ends = [vgg.get_layer(b.convolutions[-1].name).output for b in loaded.spec.blocks]
    maps = keras.Model(vgg.input, ends)
    count = 0
    for size, images in _pictures(loaded.spec):
        features, *indices = tf.nest.flatten(loaded.module(images))
        preprocessed = keras.applications.vgg19.preprocess_input(images.numpy())
        *before, expected = (values.numpy() for values in tf.nest.flatten(maps(preprocessed)))
        expect(close(features, expected), f"{size}: the features differ from Keras' VGG19")
        for block, values, rows in zip(loaded.spec.pooled, before, indices, strict=True):
            _check_indices(f"{size}: {block.indices_name}", values, rows.numpy())
            count += len(rows)
    return f"features equal Keras' VGG19; {count:,} indices in range, unique, each the maximum's"


def _check_indices(name, before, indices):
    """Compares (N, 4) index tuples with the map (B, H, W, C) that Keras pools there."""
    inside = (indices >= 0).all() and (indices < before.shape).all()
    expect(inside, f"{name} are out of the map's range")
    # The window of each row follows from its place. So no two rows can be equal either.
    batch, height, width, channels = before.shape
    place = np.indices((batch, height // 2, width // 2, channels)).reshape(4, -1).T
    in_place = np.array_equal(indices // [1, 2, 2, 1], place)
    expect(in_place, f"{name} do not lie in the windows of their rows")
    windows = _windows(before)
    chosen = (indices[:, 1] % 2) * 2 + indices[:, 2] % 2
    doubt = np.sort(windows, axis=1)
    doubt = doubt[:, 3] - doubt[:, 2] <= TOLERANCE * np.abs(before).max()
    right = ((chosen == windows.argmax(axis=1)) | doubt).all()
    expect(right, f"{name} do not point at the maxima")
    # Exact zeros are ties in any arithmetic: ReLU makes them, and the first must win.
    ties = (windows == 0).all(axis=1)
    expect((chosen[ties] == 0).all(), f"{name}: in a tie it is not the first that wins")


def _windows(values):
    """(B, H, W, C) -> (N, 4): the windows that are pooled, each in row-major order."""
    batch, height, width, channels = values.shape
    height, width = height // 2, width // 2
    windows = values[:, : 2 * height, : 2 * width].reshape(batch, height, 2, width, 2, channels)
    return windows.transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4)


def _check_nan(loaded):
    side = 2 * loaded.spec.downsampling
    for value in (np.nan, np.inf, -np.inf):
        images = np.full((1, side, side, 3), 128, np.float32)
        images[0, : side // 2] = value
        _, *indices = loaded.module(tf.constant(images))
        for block, rows in zip(loaded.spec.pooled, indices, strict=True):
            before = side >> (block.number - 1)
            inside = (rows >= 0) & (rows < (1, before, before, block.channels))
            expect(np.all(inside), f"{block.indices_name} leave the map")
    return "indices stay in range for NaN and infinite pictures"


def _check_wrong_input(loaded):
    shapes = {
        "a picture without a batch axis": (32, 32, 3),
        "one channel": (1, 32, 32, 1),
        "four channels": (1, 32, 32, 4),
        "an empty batch": (0, 32, 32, 3),
        "a picture that is too small": (1, loaded.spec.downsampling - 1, 32, 3),
    }
    # {what: (input, how a message names what was received)}
    cases = {
        what: (tf.zeros(shape), "[ ,]+".join(map(str, shape))) for what, shape in shapes.items()
    }
    for dtype, received in (("uint8", "uint8"), ("float64", "float64|double")):
        cases[dtype] = (tf.zeros((1, 32, 32, 3), dtype), received)
    calls = {"the call": loaded.module}
    calls |= {f"the signature {name}": call for name, call in loaded.module.signatures.items()}
    for what, (images, received) in cases.items():
        for name, call in calls.items():
            wrong = functools.partial(call, images=images)
            expect_refused(wrong, name, what, received, "None, 3|W, 3|float32|float tensor")
    return f"{', '.join(cases)}: refused with what was received and what is needed"
