"""An encoder with the engine "xla" runs inside `jit_compile=True`, forward and backward."""

import numpy as np
import pytest
import tensorflow as tf

from tests import descriptors
from tests.descriptors import Descriptor
from unpooling.options import ENGINES

# Two poolings.
LAYER = "block3_conv2"


@pytest.fixture(scope="module")
def loaded(saved_model):
    """The encoder of each engine, loaded, with weights that leave nothing to rounding."""
    weights = descriptors.whole_weights("encoder", LAYER)
    return {e: Descriptor("encoder", LAYER, engine=e).load(saved_model, weights) for e in ENGINES}


def training_step(model, call):
    """Returns a function from inputs to outputs and the gradients of all variables."""
    variables = list(model.trainable_variables)

    def step(inputs):
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(call(inputs))
            loss = tf.reduce_sum(outputs[0])
        return outputs, tape.gradient(loss, variables)

    return step


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("method", ["__call__", "compact", "features"])
def test_compiled_it_returns_what_the_default_does_forward_and_backward(loaded, method):
    images = tf.constant(descriptors.whole_images())
    step = training_step(loaded["xla"], getattr(loaded["xla"], method))
    (features, *positions), gradients = tf.function(step, jit_compile=True)(images)

    step = training_step(loaded["argmax"], getattr(loaded["argmax"], method))
    (expected, *expected_positions), expected_gradients = step(images)
    assert_close(features, expected)
    for found, wanted in zip(positions, expected_positions, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert len(gradients) == 12
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        assert_close(found, wanted)


def test_the_default_compiles_for_its_features_and_says_why_not_for_positions(loaded):
    model, images = loaded["argmax"], descriptors.whole_images()
    compiled = tf.function(training_step(model, model.features), jit_compile=True)
    (features,), gradients = compiled(images)
    assert_close(features, model.features(images))
    assert len(gradients) == 12
    compiled = tf.function(lambda x: model(x), jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="MaxPoolWithArgmax"):
        compiled(images)


@pytest.mark.parametrize("form", ["int64", "switches"])
def test_a_decoder_compiles(form, saved_model):
    descriptor = descriptors.DECODERS[1]
    decoder = descriptors.module(descriptor, "loaded", saved_model)
    inputs = [tf.constant(each) for each in descriptor.inputs(form)]
    compiled = tf.function(training_step(decoder, decoder), jit_compile=True)
    (pictures,), gradients = compiled(inputs)
    (expected,), expected_gradients = training_step(decoder, decoder)(inputs)
    assert_close(pictures, expected)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        assert_close(found, wanted)
