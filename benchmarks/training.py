"""A training step and its parts, and the batches of photographs, timed in turn."""

import os
import shutil
import time
import unittest.mock

import numpy as np
import tensorflow as tf
from PIL import Image

from benchmarks import times
from benchmarks.names import progress
from training import config, data, initial_weights, model, optimizers
from unpooling import pooling, weights

PLAIN_STEP = "plain pooling, nearest-neighbour upsampling"
STEP = "pooling with switches, unpooling"

LAYERS = "block2_conv2", "block3_conv2"
PRECISIONS = "float32", "bfloat16"
SIDES = {"small": (480, 320), "large": (6000, 4000)}  # of photographs, in pixels

_CONSECUTIVE = 5  # steps, so that what is prefetched meanwhile does not count


def time_steps(layer, precision, rounds):
    """{name: median seconds of a training step}, with plain pooling and upsampling, and with ours.

    The first is the same step, traced with other functions in the place of these two.
    """
    wanted = _recipe(layer, precision)
    images = _images(wanted)
    plain = {
        "unpool": times.nearest,
        "max_pool_with_switches": lambda values: (pooling.max_pool(values), None),
    }
    with unittest.mock.patch.multiple(pooling, **plain):
        plain_step = tf.function(_model(wanted, images).train_step)
        plain_step(images)
    step = tf.function(_model(wanted, images).train_step)
    calls = {PLAIN_STEP: lambda: plain_step(images), STEP: lambda: step(images)}
    return times.time_in_turn(calls, rounds)


def time_parts(layer, precision, rounds, folder):
    """{part of a step: median seconds}; the last, the whole step, is the sum of the others.

    A part's time is that of the function that ends with it, less that of the one before.

    Args:
      folder: where the photographs lie of which the whole step takes its batches.
    """
    wanted = _recipe(layer, precision)
    images, dtype = _images(wanted), tf.as_dtype(precision)
    made, batches = _model(wanted, images), _batches(wanted, folder)

    @tf.function
    def encode():
        return model.encode_with_switches(layer, made._encoder, images)

    @tf.function
    def compare():
        return made._compare(images, dtype)[0]

    @tf.function
    def differentiate():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(made._compare(images, dtype)[0])
        return tape.gradient(loss, made.trainable_variables)

    step = tf.function(made.train_step)
    calls = {
        "encoder": encode,
        "decoder and loss": compare,
        "their gradients": differentiate,
        "optimizer": lambda: step(images),
        "input": lambda: step(next(batches)),
    }

    def repeated(call):
        return lambda: [call() for _ in range(_CONSECUTIVE)]

    calls = {name: repeated(call) for name, call in calls.items()}
    parts, before = {}, 0.0
    for name, seconds in times.time_in_turn(calls, rounds).items():
        parts[name], before = seconds / _CONSECUTIVE - before, seconds / _CONSECUTIVE
    return {**parts, "the whole step": before}


def write_photographs(directory, number=24):
    """Writes photographs of noise, as many of each of `SIDES`, and returns {size: folder}."""
    folders = {size: os.path.join(directory, size) for size in SIDES}
    for size, (width, height) in SIDES.items():
        os.makedirs(folders[size])
        coarse = (height // 8, width // 8, 3)
        noise = np.random.default_rng(0).integers(0, 256, coarse, np.uint8)
        first, *others = (os.path.join(folders[size], f"{n}.jpg") for n in range(number))
        picture = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(first, quality=90)
        for other in others:
            shutil.copy(first, other)
    return folders


def time_batches(layer, folder):
    """Seconds of a batch of photographs when nothing else is computed.

    It is the mean over as many passes as crops are kept for.
    """
    wanted, count = _recipe(layer, "float32"), data.MOST_AHEAD * len(os.listdir(folder))
    batches, count = _batches(wanted, folder), max(1, count // wanted.batch_size)
    progress(f"{count} batches for {layer} of photographs in {os.path.basename(folder)}")
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return (time.perf_counter() - start) / count


def _recipe(layer, precision):
    return config.recipe(layer, photos="photos", precision=precision, weights="random")


def _images(wanted):
    shape = (wanted.batch_size, wanted.crop, wanted.crop, 3)
    return tf.random.stateless_uniform(shape, (0, 0), 0, 255)


def _batches(wanted, folder):
    paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    return iter(data.training_batches(paths, wanted.crop, wanted.batch_size, wanted.seed))


def _model(wanted, images):
    """What is trained, with random weights."""
    encoder = weights.load("random", wanted.layer).layers
    layers, _ = initial_weights.initial_layers(wanted, encoder, images)
    scale = model.root_mean_square(wanted.layer, encoder, images)
    made = model.Reconstruction(wanted, encoder, layers, scale)
    optimizer = optimizers.make_optimizer(wanted, 10_000)
    made.compile(optimizer=optimizer, jit_compile=False)
    optimizer.build(made.trainable_variables)
    return made
