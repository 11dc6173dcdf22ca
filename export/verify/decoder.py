"""What a decoder promises, for `verify` to hold a loaded one against.

Nothing of this package's own decoder or pooling is used: pictures are compared with those of
Keras' convolutions, carrying the archive's weights, and `tf.scatter_nd`.
"""

import functools
import re

import keras
import numpy as np
import tensorflow as tf

from export.verify.loaded import Subject, close, error_of, expect, plain
from unpooling import vgg19

__all__ = ["CHECKS"]

_DTYPES = ("int64", "int32")


def _pooled(subject):
    """The blocks after which the encoder pools, block1 first."""
    return [block for block in vgg19.blocks_up_to(subject.layer) if block.pooled]


def _channels(subject):
    return vgg19.blocks_up_to(subject.layer)[-1].channels


def _inputs(subject: Subject, sizes=((1, 2, 3), (3, 1, 2), (2, 4, 1))):
    """Features of several sizes and batches, and switches drawn by lot, with the names of sizes.

    Yields:
      name, features (B, h, w, C), float32, and for each pooling (B, h_k, w_k, C_k), uint8.
    """
    random = np.random.default_rng(0)
    pooled = _pooled(subject)
    for batch, height, width in sizes:
        shape = (batch, height, width, _channels(subject))
        features = np.maximum(random.normal(0, 100, shape), 0).astype(np.float32)
        switches = []
        for block in pooled:
            scale = 2 ** (len(pooled) - block.number)
            shape = (batch, height * scale, width * scale, block.channels)
            switches.append(random.integers(0, 4, shape).astype(np.uint8))
        yield f"{batch}x{height}x{width}", features, switches


def _indices(switches, dtype):
    """The rows (batch, y, x, channel) that say the same as switches."""
    batch, y, x, channel = np.indices(switches.shape)
    rows = [batch, 2 * y + switches // 2, 2 * x + switches % 2, channel]
    return np.stack([row.ravel() for row in rows], axis=1).astype(dtype)


def _forms(features, switches):
    """A decoder's input in each form: {name: list of tensors, or the bare features}."""
    forms = {dtype: [features, *(_indices(s, dtype) for s in switches)] for dtype in _DTYPES}
    forms["uint8"] = [features, *switches]
    return {
        name: [tf.constant(x) for x in tensors] if switches else tf.constant(features)
        for name, tensors in forms.items()
    }


def _signatures(subject):
    features = {"features": ("float32", (None, None, None, _channels(subject)))}
    pooled = _pooled(subject)
    promised = {
        "serving_default": {**features, **{b.indices_name: ("int64", (None, 4)) for b in pooled}},
        "compact": {
            **features,
            **{b.switches_name: ("uint8", (None, None, None, b.channels)) for b in pooled},
        },
    }
    signatures = subject.loaded.signatures
    expect(set(signatures) == set(promised), f"signatures {sorted(signatures)}")
    for name, inputs in promised.items():
        found = _specs(signatures[name].structured_input_signature[1])
        expect(found == inputs, f"{name} takes {found}, not {inputs}")
        found = _specs(signatures[name].structured_outputs)
        wanted = {"images": ("float32", (None, None, None, 3))}
        expect(found == wanted, f"{name} returns {found}, not {wanted}")
    return "; ".join(f"{name}: {', '.join(promised[name])} -> images" for name in promised)


def _specs(structure):
    return {key: (spec.dtype.name, tuple(spec.shape)) for key, spec in structure.items()}


def _serve(subject, name, tensors):
    """Calls a signature with tensors in the order of a call; returns the pictures."""
    tensors = tensors if isinstance(tensors, list) else [tensors]
    pooled = _pooled(subject)
    names = [b.indices_name if name == "serving_default" else b.switches_name for b in pooled]
    inputs = dict(zip(["features", *names], tensors, strict=True))
    return subject.loaded.signatures[name](**inputs)["images"]


def _outputs(subject):
    sizes = []
    for name, features, switches in _inputs(subject):
        batch, height, width, _ = features.shape
        scale = vgg19.downsampling(subject.layer)
        wanted = (batch, height * scale, width * scale, 3)
        forms = _forms(features, switches)
        first = subject.loaded(forms["int64"])
        for form, tensors in forms.items():
            images = subject.loaded(tensors)
            expect(isinstance(images, tf.Tensor), f"a call returns a {type(images).__name__}")
            found = (images.dtype.name, tuple(images.shape))
            expect(found == ("float32", wanted), f"{name}: {found}, not {wanted}")
            expect(close(images, first), f"{name}: {form} positions give other pictures")
        for signature, form in (("serving_default", "int64"), ("compact", "uint8")):
            images = _serve(subject, signature, forms[form])
            expect(close(images, first), f"{name}: the signature {signature} differs")
        sizes.append(name)
    return f"pictures for features of {', '.join(sizes)}, the same from indices and switches"


def _pictures(subject):
    """Compares with Keras' convolutions and `tf.scatter_nd`."""
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    values = {plain(v): v.numpy() for v in subject.loaded.variables}
    last = subject.convolutions[-1]
    layers = {}
    for c in subject.convolutions:
        activation = None if c is last else "relu"
        layers[c.name] = keras.layers.Conv2D(
            c.out_channels, 3, padding="same", activation=activation
        )
        layers[c.name].build((None, None, None, c.in_channels))
        layers[c.name].set_weights([values[f"{c.name}/kernel"], values[f"{c.name}/bias"]])
    sizes = []
    for name, features, switches in _inputs(subject):
        maps = features
        for block in subject.blocks:
            if block.pooled:
                batch, height, width, channels = maps.shape
                maps = tf.scatter_nd(
                    _indices(switches[block.number - 1], "int64"),
                    tf.reshape(maps, [-1]),
                    tf.constant([batch, 2 * height, 2 * width, channels], tf.int64),
                )
            for c in block.convolutions:
                maps = layers[c.name](maps)
        found = subject.loaded(_forms(features, switches)["int64"])
        expect(close(found, maps), f"{name}: pictures differ from Keras' and tf.scatter_nd's")
        sizes.append(name)
    return f"equal those of Keras' convolutions and tf.scatter_nd for {', '.join(sizes)}"


def _gradients(subject):
    variables = list(subject.loaded.trainable_variables)
    (_, features, switches), *_ = _inputs(subject)
    features = tf.constant(features)
    tensors = _forms(features.numpy(), switches)["int64"]
    with tf.GradientTape() as tape:
        tape.watch(features)
        images = subject.loaded([features, *tensors[1:]] if switches else features)
        loss = tf.reduce_mean(images**2)
    gradients = tape.gradient(loss, [features, *variables])
    for name, gradient in zip(["features", *map(plain, variables)], gradients, strict=True):
        expect(gradient is not None, f"{name} has no gradient")
        expect(np.isfinite(gradient.numpy()).all(), f"{name} has a gradient not finite")
        expect(np.any(gradient.numpy() != 0), f"{name} has a gradient of zeros")
    return f"finite and not zero for the features and all {len(variables)} variables"


def _errors(subject):
    """What does not fit together is refused in every form, and what fits is not."""
    (_, features, switches), (_, _, others), *_ = _inputs(subject)
    cases = [("features of other channels", features[..., :5], switches, "features")]
    if switches:
        cases.append(("another picture's positions", features, others, "block1_.* do not fit"))
    for form, signature in (("int64", "serving_default"), ("uint8", "compact")):
        calls = {
            "the call": subject.loaded,
            f"the signature {signature}": functools.partial(_serve, subject, signature),
        }
        for name, call in calls.items():
            message = error_of(call, _forms(features, switches)[form])
            expect(message is None, f"{name} refuses what fits: {message}")
            for what, maps, positions, words in cases:
                message = error_of(call, _forms(maps, positions)[form])
                expect(message is not None, f"{name} accepts {what}")
                expect(
                    re.search(words, message, re.DOTALL),
                    f"{name} refuses {what} without saying what is wrong: {message}",
                )
    return f"{', '.join(what for what, *_ in cases)}: refused"


def _xla(subject):
    (_, features, switches), *_ = _inputs(subject)
    tensors = _forms(features, switches)["uint8"]
    variables = list(subject.loaded.trainable_variables)

    def step(tensors):
        with tf.GradientTape() as tape:
            images = subject.loaded(tensors)
            loss = tf.reduce_mean(images**2)
        return images, tape.gradient(loss, variables)

    images, gradients = tf.function(step, jit_compile=True)(tensors)
    expected_images, expected_gradients = step(tensors)
    expect(close(images, expected_images), "pictures differ")
    for v, found, expected in zip(variables, gradients, expected_gradients, strict=True):
        expect(close(found, expected), f"the gradient of {plain(v)} differs")
    return "a training step compiles and gives the same pictures and gradients"


CHECKS = (
    # (name, function, whether the rest needs it)
    ("signatures", _signatures, True),
    ("outputs", _outputs, False),
    ("pictures", _pictures, False),
    ("gradients", _gradients, False),
    ("wrong input", _errors, False),
    ("XLA", _xla, False),
)
