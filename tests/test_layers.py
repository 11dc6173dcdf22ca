"""The Keras 3 models equal the TensorFlow halves, on each backend, in ties and in gradients."""

import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import descriptors
from tests.descriptors import Descriptor
from unpooling import layers, weights

LAYER, DEEPER = "block2_conv2", "block3_conv2"
EVEN = (2, 8, 12, 3)

# Runs the pair without TensorFlow, and a model that TensorFlow saved; saves one.
PROGRAM = """
import sys

class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(name)

import keras
import numpy as np
from unpooling import layers
folder, layer = sys.argv[1:]
given = np.load(f"{folder}/given.npz")
numpy, found = keras.ops.convert_to_numpy, {}
pair = [
    make(layer, f"{folder}/{name}.h5")
    for make, name in ((layers.encoder_model, "encoder"), (layers.decoder_model, "decoder"))
]
encoder, decoder = pair

if keras.backend.backend() == "jax":
    import jax

    def loss(variables, images):
        encoded, _ = encoder.stateless_call(variables[0], [], images)
        pictures, _ = decoder.stateless_call(variables[1], [], encoded)
        return (pictures * given["upstream"]).sum()

    values = [[v.value for v in model.trainable_variables] for model in pair]
    gradients = jax.jit(jax.grad(loss, (0, 1)))(values, given["even"])
    found["gradient"] = gradients[1]
    found |= {f"{i}_{j}": g for i, half in enumerate(gradients[0]) for j, g in enumerate(half)}
else:
    images = keras.ops.convert_to_tensor(given["even"]).requires_grad_()
    upstream = keras.ops.convert_to_tensor(given["upstream"])
    (decoder(encoder(images)) * upstream).sum().backward()
    found["gradient"] = numpy(images.grad)
    found |= {
        f"{i}_{j}": numpy(v.value.grad)
        for i, model in enumerate(pair) for j, v in enumerate(model.trainable_variables)
    }
assert "tensorflow" not in sys.modules
sys.meta_path.insert(0, NoTensorFlow())  # Keras looks whether it is there when it saves.
for number, array in enumerate(encoder.predict(given["odd"], verbose=0)):
    found[f"encoded_{number}"] = array
whole = keras.saving.load_model(f"{folder}/whole.keras")
for number, array in enumerate(whole.predict(given["whole"], batch_size=1, verbose=0)):
    found[f"whole_{number}"] = array
np.savez(f"{folder}/found.npz", **found)
decoder.save(f"{folder}/decoder.keras")
"""


def models(encoder_weights, decoder_weights, layer=LAYER):
    decoder = layers.decoder_model(layer, decoder_weights)
    return layers.encoder_model(layer, encoder_weights), decoder


def halves(make_weights=descriptors.random_weights, layer=LAYER):
    """The pair of TensorFlow, and its weights."""
    pair = [Descriptor(kind, layer) for kind in ("encoder", "decoder")]
    arrays = [make_weights(half.kind, layer) for half in pair]
    return [half.make(array) for half, array in zip(pair, arrays, strict=True)], arrays


def gradients(encode, decode, images, variables, upstream):
    with tf.GradientTape() as tape:
        tape.watch(images)
        pictures = decode(encode(images))
    return tape.gradient(pictures, [images, *variables], output_gradients=upstream)


def assert_close(found, expected, tolerance=1e-5):
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def assert_same_encoding(found, expected):
    assert_close(found[0], expected[0])
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        assert ours.dtype == np.uint8 and ours.shape == theirs.shape
        assert (np.asarray(ours) != np.asarray(theirs)).mean() < 1e-3


@pytest.mark.parametrize("flat", [False, True], ids=["noise", "flat"])
def test_without_rounding_they_are_exactly_equal_with_ties_and_odd_sizes(flat):
    (encoder, decoder), arrays = halves(descriptors.whole_weights, DEEPER)
    encode, decode = models(*arrays, DEEPER)
    images = descriptors.whole_images()
    if flat:
        images = np.broadcast_to(images[:, :1, :1], images.shape)
    for found, expected in zip(encode(images), encoder.compact(images), strict=True):
        np.testing.assert_array_equal(found, expected)
    encoded = encode(images[:, :16, :20])
    np.testing.assert_array_equal(decode(encoded), decoder(encoded))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradients_are_those_of_the_tensorflow_halves(jit_compile):
    (encoder, decoder), arrays = halves()
    encode, decode = models(*arrays)
    images = tf.constant(descriptors.images(EVEN))
    upstream = tf.constant(np.random.default_rng(3).normal(size=EVEN).astype(np.float32))
    expected = gradients(
        encoder.compact, decoder, images, encoder.variables + decoder.variables, upstream
    )
    variables = encode.trainable_variables + decode.trainable_variables
    variables = [variable.value for variable in variables]
    step = tf.function(gradients, jit_compile=jit_compile, autograph=False)
    for ours, theirs in zip(
        step(encode, decode, images, variables, upstream), expected, strict=True
    ):
        assert_close(ours, theirs, 1e-4)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_on_another_backend_they_never_import_tensorflow_and_equal_it(
    backend, run_command, tmp_path
):
    if backend == "torch" and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    (encoder, decoder), arrays = halves()
    for name, half in zip(("encoder", "decoder"), arrays, strict=True):
        weights.save(tmp_path / f"{name}.h5", half)
    (exact, _), whole = halves(descriptors.whole_weights, DEEPER)
    models(*whole, DEEPER)[0].save(tmp_path / "whole.keras")
    given = {
        "even": descriptors.images(EVEN),
        "odd": descriptors.images(),
        "whole": descriptors.whole_images(),
        "upstream": np.random.default_rng(3).normal(size=EVEN).astype(np.float32),
    }
    np.savez(tmp_path / "given.npz", **given)

    result = run_command("-c", PROGRAM, tmp_path, LAYER, KERAS_BACKEND=backend)

    assert result.returncode == 0, result.stderr
    found = dict(np.load(tmp_path / "found.npz"))
    encoded = [found[f"encoded_{number}"] for number in range(2)]
    assert_same_encoding(encoded, encoder.compact(given["odd"]))
    for number, expected in enumerate(exact.compact(given["whole"])):
        np.testing.assert_array_equal(found[f"whole_{number}"], expected)
    images, upstream = tf.constant(given["even"]), tf.constant(given["upstream"])
    variables = encoder.variables + decoder.variables
    first, *others = gradients(encoder.compact, decoder, images, variables, upstream)
    pair = enumerate((encoder, decoder))
    names = [f"{i}_{j}" for i, half in pair for j in range(len(half.variables))]
    for name, expected in zip(["gradient", *names], [first, *others], strict=True):
        assert_close(found[name], expected, 1e-4)
    inputs = encoder.compact(images)
    assert_close(keras.saving.load_model(tmp_path / "decoder.keras")(inputs), decoder(inputs))


def test_under_mixed_precision_they_compute_in_half_and_pictures_are_whole():
    (encoder, decoder), arrays = halves()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encode, decode = models(*arrays)
    finally:
        keras.config.set_dtype_policy("float32")
    features, *switches = encode(descriptors.images(EVEN))
    expected = encoder.compact(descriptors.images(EVEN))
    assert features.dtype == tf.bfloat16 and {s.dtype for s in switches} == {tf.uint8}
    assert_close(tf.cast(features, tf.float32), expected[0], 0.03)
    pictures = decode(expected)
    assert pictures.dtype == tf.float32
    assert_close(pictures, decoder(expected), 0.03)


def test_block1_takes_and_returns_the_bare_features():
    (encoder, decoder), arrays = halves(layer="block1_conv2")
    encode, decode = models(*arrays, "block1_conv2")
    images = descriptors.images()
    assert_close(encode(images), encoder(images))
    assert_close(decode(encode(images)), decoder(encoder(images)))


def test_layers_name_what_does_not_fit():
    pooled, switches = layers.MaxPooling2DWithSwitches()(tf.zeros((2, 5, 7, 3)))
    assert pooled.shape == switches.shape == (2, 2, 3, 3)
    assert layers.MaxUnpooling2D()(pooled, switches).shape == (2, 4, 6, 3)
    with pytest.raises(ValueError, match=r"`switches` must be .*\(2, 2, 3, 3\) and \(1, 2, 3, 3\)"):
        layers.MaxUnpooling2D()(pooled, switches[:1])
    unknown = [tf.TensorSpec((None, None, None, 3), dtype) for dtype in (tf.float32, tf.uint8)]
    unpool = tf.function(layers.MaxUnpooling2D(), input_signature=unknown, autograph=False)
    with pytest.raises(tf.errors.InvalidArgumentError):  # As many values, in other rows.
        unpool(pooled, tf.reshape(switches, (2, 3, 2, 3)))
    with pytest.raises(ValueError, match=r"H and W at least 2: .*\(2, 1, 7, 3\)"):
        layers.MaxPooling2DWithSwitches()(tf.zeros((2, 1, 7, 3)))


@pytest.mark.parametrize("first", [np.nan, 0])
def test_a_nan_wins_if_it_is_the_first_and_loses_otherwise(first):
    window = np.array([first, np.nan, np.nan, 5], np.float32).reshape(1, 2, 2, 1)
    pooled, switches = layers.MaxPooling2DWithSwitches()(window)
    np.testing.assert_array_equal(np.ravel(pooled), [np.nan if np.isnan(first) else 5])
    np.testing.assert_array_equal(np.ravel(switches), [0 if np.isnan(first) else 3])
