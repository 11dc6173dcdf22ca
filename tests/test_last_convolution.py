"""The convolution that makes pixels is TensorFlow's, its gradients too."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests import photographs
from training import initial_weights, model, optimizers
from training.config import TrainConfig
from training.last_convolution import convolve_to_pixels
from unpooling import weights
from unpooling.convolutions import convolve

plain = functools.partial(convolve, relu=False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(2, 7, 12, 5), (1, 1, 1, 64), (3, 2, 1, 8)])
def test_values_and_gradients_are_those_of_tensorflows(shape, dtype):
    random = np.random.default_rng(0)
    values = tf.cast(random.normal(size=shape), dtype)
    kernel, bias, upstream = (
        tf.constant(random.normal(size=size), tf.float32)
        for size in ((3, 3, shape[-1], 3), (3,), (*shape[:-1], 3))
    )
    found = []
    for function in (plain, convolve_to_pixels):
        with tf.GradientTape() as outer:
            outer.watch(kernel)
            with tf.GradientTape() as tape:
                tape.watch([values, kernel, bias])
                pixels = function(values, kernel, bias)
            gradients = tape.gradient(pixels, [values, kernel, bias], upstream)
            squares = tf.reduce_sum(tf.square(tf.cast(gradients[0], tf.float32)))
        found.append([pixels, *gradients, outer.gradient(squares, kernel)])
    for expected, computed in zip(*found, strict=True):
        assert computed.dtype == expected.dtype and computed.shape == expected.shape
        expected, computed = (tf.cast(tensor, tf.float32) for tensor in (expected, computed))
        tolerance = 1e-5 if dtype == "float32" else 1e-2
        np.testing.assert_allclose(computed, expected, tolerance, tolerance)


def test_training_learns_the_same(monkeypatch):
    images = tf.constant(np.stack([photographs.picture(n, 16, 24) for n in range(2)]), tf.float32)
    config = TrainConfig(layer="block2_conv2", photos="photos", ms_ssim_weight=0, optimizer="soap")
    encoder = weights.load("random", config.layer).layers
    layers, _ = initial_weights.initial_layers(config, encoder, images)
    scale = model.root_mean_square(config.layer, encoder, images)
    learned = []
    for function in (convolve_to_pixels, plain):
        monkeypatch.setattr(model, "convolve_to_pixels", function)
        made = model.Reconstruction(config, encoder, layers, scale)
        made.compile(optimizer=optimizers.make_optimizer(config, 3), jit_compile=False)
        first = made(images).numpy()
        for _ in range(3):
            made.train_step(images)
        learned.append(made(images).numpy())
    np.testing.assert_allclose(learned[0], learned[1], rtol=1e-4, atol=0.01)
    assert np.abs(learned[0] - first).mean() > 1
