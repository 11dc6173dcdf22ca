"""Gradients are those of the plain graph: `tf.nn.max_pool2d`, and `tf.scatter_nd` to unpool."""

import numpy as np
import tensorflow as tf
import tensorflow_hub as hub

from tests import descriptors, oracle
from tests.descriptors import DEEPEST_DECODER, DEEPEST_ENCODER


def plain_features(images, weights):
    """An encoder's features, by the shortest graph."""
    values = images[..., ::-1] - oracle.MEAN_BGR.astype(np.float32)
    for block, count in oracle.CONVOLUTIONS.items():
        if block > 1:
            values = tf.nn.max_pool2d(values, 2, 2, "VALID")
        for number in range(1, count + 1):
            kernel, bias = weights.pop(f"block{block}_conv{number}")
            values = tf.nn.relu(tf.nn.conv2d(values, kernel, 1, "SAME") + bias)
            if not weights:
                return values


def plain_pictures(features, indices, weights):
    """A decoder's pictures, by the shortest graph."""
    values = features
    for number, (name, (kernel, bias)) in enumerate(weights.items()):
        if number:
            values = tf.nn.relu(values)
        block = int(name.removeprefix("decoder_block")[0])
        if indices and block == len(indices):
            batch, height, width, channels = values.shape
            shape = tf.constant([batch, 2 * height, 2 * width, channels], tf.int64)
            values = tf.scatter_nd(indices.pop(), tf.reshape(values, [-1]), shape)
        values = tf.nn.conv2d(values, kernel, 1, "SAME") + bias
    return values


def gradients(compute, sources):
    """The gradients of random sums of what is computed, with respect to each source."""
    with tf.GradientTape() as tape:
        tape.watch(sources)
        values = compute()
    upstream = np.random.default_rng(3).normal(size=values.shape).astype(np.float32)
    return tape.gradient(values, sources, output_gradients=tf.constant(upstream))


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        scale = np.abs(theirs).max()
        assert scale > 0
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * scale)


def pairs(variables, descriptor):
    """The kernel and bias of each convolution by its name."""
    return dict(
        zip(descriptor.weights, zip(variables[::2], variables[1::2], strict=True), strict=True)
    )


@descriptors.every(descriptors.MODULES, DEEPEST_ENCODER, DEEPEST_DECODER)
def test_every_way_to_call_has_the_gradients_of_the_plain_graph(descriptor, form, saved_model):
    module = descriptors.module(descriptor, form, saved_model)
    variables = list(module.variables)
    inputs = descriptor.inputs()
    if descriptor.kind == "encoder":
        first = tf.constant(inputs)
        calls = [
            lambda: tf.nest.flatten(module(first))[0],
            lambda: tf.nest.flatten(module.compact(first))[0],
            lambda: module.features(first),
        ]
        if form == "loaded":
            calls += [
                lambda s=signature: s(images=first)["features"]
                for signature in module.signatures.values()
            ]
        expected = gradients(
            lambda: plain_features(first, pairs(variables, descriptor)), [first, *variables]
        )
    else:
        first, switches, indices = descriptors.decoder_inputs(descriptor.layer)
        first = tf.constant(first)
        names = ["features", *(f"block{k}_indices" for k in range(1, descriptor.block))]
        calls = [
            lambda: module([first, *indices] if indices else first),
            lambda: module([first, *switches] if switches else first),
        ]
        if form == "loaded":
            tensors = dict(zip(names, [first, *map(tf.constant, indices)], strict=True))
            calls.append(lambda: module.signatures["serving_default"](**tensors)["images"])
        expected = gradients(
            lambda: plain_pictures(first, list(indices), pairs(variables, descriptor)),
            [first, *variables],
        )
    for call in calls:
        assert_same(gradients(call, [first, *variables]), expected)


def test_the_gradient_goes_through_a_loaded_encoder_and_a_loaded_decoder(saved_model):
    encoder = descriptors.module(descriptors.ENGINES[0], "loaded", saved_model)
    decoder = descriptors.module(descriptors.DECODERS[1], "loaded", saved_model)
    images = tf.constant(descriptors.images((1, 8, 12, 3)))

    def plain():
        _, indices = encoder(images)
        features = plain_features(images, pairs(encoder.variables, descriptors.ENGINES[0]))
        return plain_pictures(
            features, [indices], pairs(decoder.variables, descriptors.DECODERS[1])
        )

    sources = [images, *encoder.variables, *decoder.variables]
    assert_same(gradients(lambda: decoder(encoder(images)), sources), gradients(plain, sources))


def persistent(compute, source):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(source)
        total = tf.reduce_sum(compute(source) ** 2)
    return tape.gradient(total, source)


def nested(compute, source):
    with tf.GradientTape() as outer:
        outer.watch(source)
        with tf.GradientTape() as inner:
            inner.watch(source)
            total = tf.reduce_sum(compute(source) ** 3)
        square = tf.reduce_sum(inner.gradient(total, source) ** 2)
    return outer.gradient(square, source)


def jacobian(compute, source):
    with tf.GradientTape() as tape:
        tape.watch(source)
        sums = tf.reduce_sum(compute(source) ** 2, axis=[0, 1, 2])[:3]
    return tape.jacobian(sums, source)


def forward_mode(compute, source):
    with tf.autodiff.ForwardAccumulator(source, tf.ones_like(source)) as accumulator:
        values = compute(source)
    return accumulator.jvp(values)


def in_a_function(compute, source):
    return tf.function(persistent)(compute, source)


TAPES = [persistent, nested, jacobian, forward_mode, in_a_function]


def assert_tapes_agree(found, expected, source):
    for tape in TAPES:
        assert_same([tape(found, source)], [tape(expected, source)])
    # An ordinary tape over the same object still works after these.
    assert_same(
        gradients(lambda: found(source), [source]), gradients(lambda: expected(source), [source])
    )


@descriptors.every(descriptors.ENGINES[:2])
def test_every_kind_of_tape_agrees_with_the_plain_graph(descriptor, form, saved_model):
    module = descriptors.module(descriptor, form, saved_model)
    images = tf.constant(descriptors.images((1, 9, 8, 3)))
    calls = [lambda x: module(x)[0], lambda x: module.compact(x)[0]]
    if form == "loaded":
        calls.append(lambda x: module.signatures["compact"](images=x)["features"])
        calls.append(lambda x: hub.KerasLayer(module)(x)[0])

    def plain(x):
        return plain_features(x, pairs(module.variables, descriptor))

    for call in calls:
        assert_tapes_agree(call, plain, images)


@descriptors.every(descriptors.DECODERS[1:])
def test_every_kind_of_tape_agrees_for_a_decoder(descriptor, form, saved_model):
    module = descriptors.module(descriptor, form, saved_model)
    features, switches, indices = descriptors.decoder_inputs(descriptor.layer)

    def plain(x):
        return plain_pictures(x, list(indices), pairs(module.variables, descriptor))

    for positions in (indices, switches):
        assert_tapes_agree(lambda x, p=positions: module([x, *p]), plain, tf.constant(features))
