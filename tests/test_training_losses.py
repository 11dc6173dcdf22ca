"""The terms of the loss, each against NumPy or TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf

from tests import photographs
from training import losses


@pytest.fixture(scope="module")
def pair():
    images = np.stack([photographs.picture(n, 176, 180) for n in range(2)]).astype(np.float32)
    return images, images + np.random.default_rng(0).normal(0, 20, images.shape).astype(np.float32)


def test_each_term_is_one_number_for_each_picture(pair):
    images, decoded = pair
    found = losses.terms(images, decoded, ("l1", "l2", "ms_ssim"))
    difference = images.astype(np.float64) - decoded
    np.testing.assert_allclose(found["l1"], np.abs(difference).mean(axis=(1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found["l2"], (difference**2).mean(axis=(1, 2, 3)), rtol=1e-5)
    similarity = tf.image.ssim_multiscale(images, decoded, 255.0)
    np.testing.assert_allclose(found["ms_ssim"], 1 - similarity, rtol=1e-5)
    assert (found["ms_ssim"].numpy() > 0.01).all()
    assert list(losses.terms(images, decoded, ("l2",))) == ["l2"]


def test_of_equal_pictures_nothing_is_lost(pair):
    for values in losses.terms(pair[0], pair[0], ("l1", "l2", "ms_ssim")).values():
        np.testing.assert_allclose(values, [0, 0], atol=1e-6)


def test_the_gradient_is_finite_even_where_nothing_is_alike(pair):
    images = tf.constant(pair[0])
    opposite = tf.Variable(255 - images)
    with tf.GradientTape() as tape:
        loss = losses.terms(images, opposite, ("ms_ssim",))["ms_ssim"]
    assert np.isfinite(tape.gradient(loss, opposite)).all()


def test_the_gradient_is_tensorflows_where_that_is_finite(pair):
    images, decoded = map(tf.constant, pair)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(decoded)
        ours = losses.terms(images, decoded, ("ms_ssim",))["ms_ssim"]
        theirs = 1 - tf.image.ssim_multiscale(images, decoded, 255.0)
    expected = tape.gradient(theirs, decoded).numpy()
    np.testing.assert_allclose(tape.gradient(ours, decoded), expected, atol=1e-9)
    assert np.abs(expected).max() > 0
