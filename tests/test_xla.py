"""An archive built with `--pooling=xla` runs inside `jit_compile=True`, forward and backward."""

import numpy as np
import pytest
import tensorflow as tf

LAYER = "block4_conv2"


@pytest.fixture(scope="module")
def loaded(saved_model):
    """The archive of each engine, loaded."""
    return {p: tf.saved_model.load(saved_model(LAYER, pooling=p)) for p in ("argmax", "xla")}


def picture(seed):
    """Of odd sides, so that poolings drop rows and columns."""
    return tf.random.stateless_uniform((1, 37, 53, 3), (seed, 0), 0, 255)


def training_step(model):
    variables = list(model.trainable_variables)

    def step(images):
        with tf.GradientTape() as tape:
            outputs = model(images)
            loss = tf.reduce_mean(outputs[0] ** 2)
        return outputs, tape.gradient(loss, variables)

    return step


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_forward_and_backward_equal_the_defaults(loaded):
    images = picture(0)
    expected_outputs, expected_gradients = training_step(loaded["argmax"])(images)
    compiled = tf.function(training_step(loaded["xla"]), jit_compile=True)
    outputs, gradients = compiled(images)
    assert_close(outputs[0], expected_outputs[0])
    for indices, expected in zip(outputs[1:], expected_outputs[1:], strict=True):
        np.testing.assert_array_equal(indices, expected)
    assert len(gradients) == 20
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        assert_close(gradient, expected)


def test_without_xla_it_returns_what_the_default_returns(loaded):
    images = picture(1)
    for found, expected in zip(loaded["xla"](images), loaded["argmax"](images), strict=True):
        np.testing.assert_array_equal(found, expected)
    found, expected = loaded["xla"].compact(images), loaded["argmax"].compact(images)
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left, right)


def test_switches_under_xla_equal_the_defaults(loaded):
    images = picture(2)
    compiled = tf.function(lambda x: loaded["xla"].compact(x), jit_compile=True)
    for found, expected in zip(
        compiled(images)[1:], loaded["argmax"].compact(images)[1:], strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_the_default_says_that_xla_cannot_compile_it(loaded):
    compiled = tf.function(lambda x: loaded["argmax"](x), jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="MaxPoolWithArgmax"):
        compiled(picture(0))


@pytest.mark.parametrize("pooling", ["argmax", "xla"])
def test_the_features_run_under_xla_from_either_build(loaded, pooling):
    images = picture(3)
    compiled = tf.function(lambda x: loaded[pooling].features(x), jit_compile=True)
    assert_close(compiled(images), loaded[pooling].features(images))


@pytest.mark.parametrize("pooling", ["argmax", "xla"])
def test_the_features_gradient_runs_under_xla_from_either_build(loaded, pooling):
    model, images = loaded[pooling], picture(4)
    variables = list(model.trainable_variables)

    def gradients(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model.features(images) ** 2)
        return tape.gradient(loss, variables)

    found = tf.function(gradients, jit_compile=True)(images)
    for gradient, expected in zip(found, gradients(images), strict=True):
        assert_close(gradient, expected)


def test_another_picture_of_the_same_size_is_not_compiled_again(loaded):
    compiled = tf.function(training_step(loaded["xla"]), jit_compile=True)
    hlo = compiled.experimental_get_compiler_ir(picture(0))(stage="hlo")
    (entry,) = [line for line in hlo.splitlines() if line.startswith("ENTRY")]
    # Were the picture a constant of the program, each one would need a program of its own.
    assert "f32[1,37,53,3]" in entry
