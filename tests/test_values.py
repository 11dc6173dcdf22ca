"""Modules compute what the oracle computes, and what Keras' VGG19 computes."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import descriptors, oracle
from tests.descriptors import DEEPEST_DECODER, DEEPEST_ENCODER, as_list
from unpooling import vgg19

# A feature is a sum of thousands of products that cancel each other. What float32 loses of it is
# in proportion to the products, not to the sum: next to a feature of 1000 stands one of 0.01 with
# the same error. So "within 1e-5" is 1e-5 of the greatest magnitude in the map.
PRECISION = 1e-5


def assert_close(actual, expected):
    expected = np.asarray(expected)
    atol = PRECISION * np.abs(expected).max()
    assert atol > 0, "nothing but zeros: the comparison would say nothing"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def assert_winners(found, expected, values):
    """Asserts that indices are those of the winners, but for a few that rounding decides.

    Args:
      found, expected: (N, 4), what the encoder returned, and the oracle.
      values: (B, H, W, C), the oracle's map before the pooling.
    """
    np.testing.assert_array_equal(found // [1, 2, 2, 1], expected // [1, 2, 2, 1])  # the windows
    lost = values[tuple(expected.T)] - values[tuple(found.T)]
    assert lost.max() <= 2 * PRECISION * values.max()
    assert (found != expected).any(axis=-1).mean() < 0.001


@functools.cache
def encoding(layer):
    """The oracle's answer for the example."""
    return oracle.encode(descriptors.images(), layer, descriptors.random_weights("encoder", layer))


@descriptors.every(descriptors.ENCODERS, DEEPEST_ENCODER)
def test_an_encoder_returns_the_oracles_features_and_winners(descriptor, form, saved_model):
    module = descriptors.module(descriptor, form, saved_model)
    expected = encoding(descriptor.layer)

    features, *indices = as_list(module(descriptor.inputs()))

    assert_close(features, expected.features)
    for found, wanted, values in zip(indices, expected.indices, expected.maps, strict=True):
        assert found.dtype == descriptor.index_dtype
        assert_winners(found, wanted, values)

    same, *switches = as_list(module.compact(descriptor.inputs()))
    np.testing.assert_array_equal(same, features)
    for found, tuples in zip(switches, indices, strict=True):
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found.ravel(), tuples[:, 1] % 2 * 2 + tuples[:, 2] % 2)

    assert_close(module.features(descriptor.inputs()), features)


@pytest.mark.parametrize("flat", [False, True], ids=["noise", "flat"])
@pytest.mark.parametrize("descriptor", [*descriptors.ENGINES, DEEPEST_ENCODER], ids=str)
def test_without_rounding_an_encoder_equals_the_oracle_exactly(descriptor, flat):
    weights = descriptors.whole_weights("encoder", descriptor.layer)
    images = descriptors.whole_images()
    if flat:  # Everything ties.
        images = np.broadcast_to(images[:, :1, :1], images.shape)
    expected = oracle.encode(images, descriptor.layer, weights)
    # Three products and a bias make a sum, so no partial sum of the next layer reaches 2^24.
    assert max(np.abs(x).max() for x in (*expected.sums, expected.features)) < 2**22
    assert len(np.unique(expected.features)) > 10

    features, *indices = as_list(descriptor.make(weights)(images))

    np.testing.assert_array_equal(features, expected.features)
    for found, wanted in zip(indices, expected.indices, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("size", [(37, 53), (16, 16)])
def test_features_equal_keras(size):
    model = keras.applications.VGG19(include_top=False, weights=None)
    for name, kernel_and_bias in DEEPEST_ENCODER.weights.items():
        model.get_layer(name).set_weights(kernel_and_bias)
    model = keras.Model(model.input, [model.get_layer(layer).output for layer in vgg19.LAYERS])
    images = descriptors.images((2, *size, 3))
    # A copy, because preprocess_input works in place.
    expected = model(keras.applications.vgg19.preprocess_input(np.array(images)))

    for layer, features in zip(vgg19.LAYERS, expected, strict=True):
        encoder = descriptors.Descriptor("encoder", layer).make(DEEPEST_ENCODER.weights)
        assert_close(encoder.features(images), features)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("share", [0.001, 1])
def test_pictures_that_are_not_finite_still_give_indices_in_range(bad, share):
    images = descriptors.images()
    images[np.random.default_rng(1).uniform(size=images.shape) < share] = bad

    _, *indices = descriptors.Descriptor("encoder", "block3_conv2").make()(images)

    for found, (height, width, channels) in zip(indices, [(18, 26, 64), (9, 13, 128)], strict=True):
        # Each in its own window, which is in range.
        windows = list(np.ndindex(2, height, width, channels))
        np.testing.assert_array_equal(found // [1, 2, 2, 1], windows)


@descriptors.every(descriptors.DECODERS, DEEPEST_DECODER)
def test_a_decoder_returns_the_oracles_pictures_from_every_form(descriptor, form, saved_model):
    module = descriptors.module(descriptor, form, saved_model)
    features, _, indices = descriptors.decoder_inputs(descriptor.layer)
    expected = oracle.decode(features, indices, descriptor.layer, descriptor.weights)
    assert expected.min() < 0, "the last convolution has no ReLU"

    pictures = module(descriptor.inputs())

    assert pictures.dtype == tf.float32
    assert_close(pictures, expected)
    for positions in ("int32", "switches"):
        np.testing.assert_array_equal(module(descriptor.inputs(positions)), pictures)


@pytest.mark.parametrize("descriptor", [descriptors.DECODERS[1], DEEPEST_DECODER], ids=str)
def test_without_rounding_a_decoder_equals_the_oracle_exactly(descriptor):
    weights = descriptors.whole_weights("decoder", descriptor.layer)
    features, _, indices = descriptors.decoder_inputs(descriptor.layer)
    features = np.floor(features)
    expected = oracle.decode(features, indices, descriptor.layer, weights)
    assert np.abs(expected).max() < 2**22

    found = descriptor.make(weights)([features, *indices])

    np.testing.assert_array_equal(found, expected)


@descriptors.every(descriptors.DECODERS)
def test_a_decoder_takes_tuples_and_block1_a_list_of_the_features(descriptor, form, saved_model):
    decoder = descriptors.module(descriptor, form, saved_model)
    inputs = tf.nest.flatten(descriptor.inputs())
    expected = decoder(descriptor.inputs())
    np.testing.assert_array_equal(decoder(tuple(inputs)), expected)
    np.testing.assert_array_equal(decoder(inputs), expected)
