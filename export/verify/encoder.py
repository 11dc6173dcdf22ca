"""What an encoder promises, for `verify` to hold a loaded one against.

Nothing of this package's own encoder is used: features and switches are compared with
`keras.applications.VGG19` carrying the archive's weights.
"""

import re

import keras
import numpy as np
import tensorflow as tf

from export.verify.loaded import TOLERANCE, Subject, as_list, close, equal, error_of, expect, plain
from unpooling import vgg19

__all__ = ["CHECKS"]


def _pictures(subject: Subject):
    """Pictures of several sizes and batches: (name, (B, H, W, 3) float32 in [0, 255])."""
    scale = vgg19.downsampling(subject.layer)
    random = np.random.default_rng(0)
    for batch, height, width in (
        (1, 2 * scale, 2 * scale),
        (3, scale, 3 * scale),
        (2, 2 * scale + 5, scale + 3),
        (1, scale, scale),
    ):
        picture = random.uniform(0, 255, (batch, height, width, 3)).astype(np.float32)
        yield f"{batch}x{height}x{width}", picture
    yield "flat", np.full((1, 2 * scale, 2 * scale, 3), 128, np.float32)


def _call(subject: Subject, images):
    """The outputs of a call as a list of NumPy arrays."""
    return [output.numpy() for output in as_list(subject.loaded(tf.constant(images)))]


def _signatures(subject):
    signatures = subject.loaded.signatures
    dtypes = {
        spec.dtype.name
        for name, spec in signatures["serving_default"].structured_outputs.items()
        if name != "features"
    }
    expect(len(dtypes) <= 1 and dtypes <= {"int64", "int32"}, f"index dtypes {sorted(dtypes)}")
    subject.index_dtype = dtypes.pop() if dtypes else "int64"
    features = {"features": ("float32", (None, None, None, subject.blocks[-1].channels))}
    indices = {b.indices_name: (subject.index_dtype, (None, 4)) for b in subject.pooled_blocks}
    switches = {
        b.switches_name: ("uint8", (None, None, None, b.channels)) for b in subject.pooled_blocks
    }
    promised = {
        "serving_default": {**features, **indices},
        "compact": {**features, **switches},
        "features": features,
    }
    expect(set(signatures) == set(promised), f"signatures {sorted(signatures)}")
    for name, outputs in promised.items():
        (_, inputs) = signatures[name].structured_input_signature
        found = {key: (spec.dtype.name, tuple(spec.shape)) for key, spec in inputs.items()}
        expect(found == {"images": ("float32", (None, None, None, 3))}, f"{name} takes {found}")
        found = {
            key: (spec.dtype.name, tuple(spec.shape))
            for key, spec in signatures[name].structured_outputs.items()
        }
        expect(found == outputs, f"{name} returns {found}, not {outputs}")
    return "; ".join(f"{name}: images -> {', '.join(promised[name])}" for name in promised)


def _outputs(subject):
    sizes = []
    for name, images in _pictures(subject):
        batch, height, width, _ = images.shape
        outputs = subject.loaded(tf.constant(images))
        if subject.pooled_blocks:
            expect(isinstance(outputs, list), f"a call returns a {type(outputs).__name__}")
        else:
            expect(isinstance(outputs, tf.Tensor), f"a call returns a {type(outputs).__name__}")
            outputs = [outputs]
        expected = []
        for block in subject.pooled_blocks:
            height, width = height // 2, width // 2
            expected.append((subject.index_dtype, (batch * height * width * block.channels, 4)))
        expected.insert(0, ("float32", (batch, height, width, subject.blocks[-1].channels)))
        found = [(output.dtype.name, tuple(output.shape)) for output in outputs]
        expect(found == expected, f"{name}: {found}, not {expected}")
        served = subject.loaded.signatures["serving_default"](images=tf.constant(images))
        names = ["features", *(block.indices_name for block in subject.pooled_blocks)]
        for key, output in zip(names, outputs, strict=True):
            expect(equal(served[key], output), f"{name}: {key} of serving_default differs")
        alone = subject.loaded.signatures["features"](images=tf.constant(images))["features"]
        expect(close(alone, outputs[0]), f"{name}: the signature features differs")
        _check_compact(subject, name, images, outputs)
        sizes.append(name)
    return f"shapes and dtypes as promised, also by signature, for {', '.join(sizes)}"


def _check_compact(subject, name, images, outputs):
    """Holds the method and the signature `compact` against the outputs of a call."""
    served = subject.loaded.signatures["compact"](images=tf.constant(images))
    features, *switches = as_list(subject.loaded.compact(tf.constant(images)))
    expect(close(features, outputs[0]), f"{name}: features of compact differ")
    expect(equal(served["features"], features), f"{name}: the signature compact differs")
    batch, height, width, _ = images.shape
    for block, found, rows in zip(subject.pooled_blocks, switches, outputs[1:], strict=True):
        height, width = height // 2, width // 2
        rows = rows.numpy()
        expected = (2 * (rows[:, 1] % 2) + rows[:, 2] % 2).astype(np.uint8)
        expected = expected.reshape(batch, height, width, block.channels)
        where = f"{name}: {block.switches_name}"
        expect(equal(found, expected), f"{where} do not say the same as the indices")
        expect(equal(served[block.switches_name], found), f"{where} of the signature differ")


def _features_and_indices(subject):
    """Compares with Keras, block by block, and unpools."""
    # Whatever the user's keras.json says.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    maps = _keras_maps(subject)
    rows = 0
    for name, images in _pictures(subject):
        features, *indices = _call(subject, images)
        preprocessed = keras.applications.vgg19.preprocess_input(images)
        *before, expected = (value.numpy() for value in tf.nest.flatten(maps(preprocessed)))
        expect(close(features, expected), f"{name}: features differ from Keras' VGG19")
        for block, values, found in zip(subject.pooled_blocks, before, indices, strict=True):
            _check_indices(f"{name}: {block.indices_name}", values, found)
            rows += len(found)
    return f"features equal Keras' VGG19; {rows:,} indices in range, unique, each the maximum's"


def _keras_maps(subject):
    """A Keras model: preprocessed images -> the map before each pooling, and the features."""
    model = keras.applications.VGG19(include_top=False, weights=None)
    for v in subject.loaded.variables:
        layer, part = plain(v).split("/")
        getattr(model.get_layer(layer), part).assign(v)
    names = [block.convolutions[-1].name for block in subject.blocks]
    return keras.Model(model.input, [model.get_layer(name).output for name in names])


def _check_indices(name, before, indices):
    """Holds (N, 4) index tuples against the map (B, H, W, C) that Keras pools there."""
    batch, height, width, channels = before.shape
    height, width = height // 2, width // 2
    expect(
        (indices >= 0).all() and (indices < before.shape).all(),
        f"{name} are out of the map's range",
    )
    # The window of each row follows from its place; so no two rows can be equal either.
    place = np.indices((batch, height, width, channels)).reshape(4, -1).T
    expect(
        (indices // [1, 2, 2, 1] == place).all(), f"{name} do not lie in the windows of their rows"
    )
    windows = before[:, : 2 * height, : 2 * width].reshape(batch, height, 2, width, 2, channels)
    windows = windows.transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4)  # row-major inside a window
    winners = (indices[:, 1] % 2) * 2 + indices[:, 2] % 2
    won = windows[np.arange(len(windows)), winners]
    doubt = np.sort(windows, axis=1)
    doubt = doubt[:, 3] - doubt[:, 2] <= TOLERANCE * np.abs(before).max()
    expect(
        ((winners == windows.argmax(axis=1)) | doubt).all(), f"{name} do not point at the maxima"
    )
    # Exact zeros are ties in any arithmetic: ReLU makes them, and the first must win.
    ties = (windows == 0).all(axis=1)
    expect((winners[ties] == 0).all(), f"{name}: in a tie it is not the first that wins")
    unpooled = tf.scatter_nd(indices, won, before.shape).numpy()
    again = unpooled[:, : 2 * height, : 2 * width].reshape(batch, height, 2, width, 2, channels)
    expect(
        np.array_equal(again.max(axis=(2, 4)).ravel(), won)
        and np.count_nonzero(unpooled) == np.count_nonzero(won),
        f"{name}: tf.scatter_nd does not put every maximum back",
    )


def _nan(subject):
    scale = vgg19.downsampling(subject.layer)
    shape = (1, 2 * scale, 2 * scale, 3)
    for value in (np.nan, np.inf, -np.inf):
        images = np.full(shape, 128, np.float32)
        images[0, :scale] = value
        _, *indices = _call(subject, images)
        height, width = shape[1:3]
        for block, found in zip(subject.pooled_blocks, indices, strict=True):
            limit = (1, height, width, block.channels)
            expect(((found >= 0) & (found < limit)).all(), f"{block.indices_name} leave the map")
            height, width = height // 2, width // 2
    return "indices stay in range for NaN and infinite pictures"


def _gradients(subject):
    scale = vgg19.downsampling(subject.layer)
    images = tf.random.stateless_uniform((1, 2 * scale, 2 * scale, 3), (0, 0), 0, 255)
    variables = list(subject.loaded.trainable_variables)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(as_list(subject.loaded(images))[0])
    gradients = tape.gradient(loss, variables)
    for v, gradient in zip(variables, gradients, strict=True):
        expect(gradient is not None, f"{plain(v)} has no gradient")
        expect(np.isfinite(gradient.numpy()).all(), f"{plain(v)} has a gradient not finite")
        expect(np.any(gradient.numpy() != 0), f"{plain(v)} has a gradient of zeros")
    return f"finite and not zero for all {len(variables)} variables"


def _errors(subject):
    minimum = vgg19.downsampling(subject.layer)
    wrong_shapes = {
        "a picture without a batch axis": (32, 32, 3),
        "one channel": (1, 32, 32, 1),
        "four channels": (1, 32, 32, 4),
        "an empty batch": (0, 32, 32, 3),
    }
    if minimum > 1:
        wrong_shapes["a picture too small"] = (1, minimum - 1, 32, 3)
    # (what, input, how a message names what came, how it names what is needed)
    cases = [
        (
            what,
            tf.zeros(shape),
            r"[\[(]" + "[ ,]+".join(map(str, shape)) + r"[\])]",
            r"\(B, H, W, 3\)|\(None, None, None, 3\)",
        )
        for what, shape in wrong_shapes.items()
    ]
    valid = (1, 32, 32, 3)
    cases += [
        ("uint8", tf.zeros(valid, tf.uint8), "uint8", "float32|float tensor"),
        ("float64", tf.zeros(valid, tf.float64), "float64|double", "float32|float tensor"),
    ]
    signatures = subject.loaded.signatures
    calls = {
        "the call": subject.loaded,
        "serving_default": lambda images: signatures["serving_default"](images=images),
        "the signature compact": lambda images: signatures["compact"](images=images),
        "the signature features": lambda images: signatures["features"](images=images),
    }
    for what, images, received, needed in cases:
        for name, call in calls.items():
            message = error_of(call, images)
            expect(message is not None, f"{name} accepts {what}")
            expect(
                re.search(received, message) and re.search(needed, message),
                f"{name} refuses {what} without saying what came and what is needed: {message}",
            )
    return f"{', '.join(what for what, *_ in cases)}: refused with what came and what is needed"


def _xla(subject):
    """A training step under XLA, if the module was built for that."""
    if subject.pooling == "argmax":
        return "not promised by --pooling=argmax"
    minimum = vgg19.downsampling(subject.layer)
    images = tf.random.stateless_uniform((1, 2 * minimum, 3 * minimum, 3), (1, 0), 0, 255)
    variables = list(subject.loaded.trainable_variables)

    def step(images):
        with tf.GradientTape() as tape:
            outputs = as_list(subject.loaded(images))
            loss = tf.reduce_mean(outputs[0])
        return outputs, tape.gradient(loss, variables)

    outputs, gradients = tf.function(step, jit_compile=True)(images)
    expected_outputs, expected_gradients = step(images)
    expect(close(outputs[0], expected_outputs[0]), "features differ")
    for found, expected in zip(outputs[1:], expected_outputs[1:], strict=True):
        expect(equal(found, expected), "indices differ")
    for v, found, expected in zip(variables, gradients, expected_gradients, strict=True):
        expect(close(found, expected), f"the gradient of {plain(v)} differs")
    return "a training step compiles and gives the same outputs and gradients"


CHECKS = (
    # (name, function, whether the rest needs it)
    ("signatures", _signatures, True),
    ("outputs", _outputs, False),
    ("features and indices", _features_and_indices, False),
    ("NaN", _nan, False),
    ("gradients", _gradients, False),
    ("wrong input", _errors, False),
    ("XLA", _xla, False),
)
