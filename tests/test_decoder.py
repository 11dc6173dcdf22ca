"""The decoder: the encoder's mirror, and what it takes for the positions of other pictures."""

import numpy as np
import pytest
import tensorflow as tf

from unpooling import vgg19, weights
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder

LAYER = "block3_conv2"


@pytest.fixture(scope="module")
def encoder():
    return Encoder(LAYER, weights.load("random", LAYER).layers)


def make_decoder(layer):
    random = np.random.default_rng(0)
    layers = weights.load_decoder("random", layer).layers
    return Decoder(
        layer,
        {
            name: (kernel, random.normal(0, 1, bias.shape).astype(np.float32))
            for name, (kernel, bias) in layers.items()
        },
    )


@pytest.fixture(scope="module")
def decoder():
    return make_decoder(LAYER)


def noise(*shape):
    return np.random.default_rng(1).uniform(0, 255, shape).astype(np.float32)


def straightforward(decoder, features, indices):
    """The decoder in the fewest words: convolutions, and `tf.scatter_nd` for unpooling."""
    values = features
    variables = {v.name.partition(":")[0]: v for v in decoder.ordered_variables}
    for block in vgg19.mirror(decoder.layer):
        if block.pooled:
            batch, height, width, channels = values.shape
            shape = tf.constant([batch, 2 * height, 2 * width, channels], tf.int64)
            values = tf.scatter_nd(indices[block.number - 1], tf.reshape(values, [-1]), shape)
        for c in block.convolutions:
            values = tf.nn.conv2d(values, variables[f"{c.name}/kernel"], 1, "SAME")
            values = values + variables[f"{c.name}/bias"]
            values = values if c.out_channels == 3 else tf.nn.relu(values)
    return values


def test_it_mirrors_the_encoder():
    convolutions = [c for block in vgg19.mirror(LAYER) for c in block.convolutions]
    assert [(c.name, c.in_channels, c.out_channels) for c in convolutions] == [
        ("decoder_block3_conv2", 256, 256),
        ("decoder_block3_conv1", 256, 128),
        ("decoder_block2_conv2", 128, 128),
        ("decoder_block2_conv1", 128, 64),
        ("decoder_block1_conv2", 64, 64),
        ("decoder_block1_conv1", 64, 3),
    ]
    assert [block.pooled for block in vgg19.mirror(LAYER)] == [False, True, True]


@pytest.mark.parametrize("layer", vgg19.LAYERS)
def test_pictures_come_out_as_the_straightforward_decoder_makes_them(layer):
    side = vgg19.downsampling(layer)
    encoder = Encoder(layer, weights.load("random", layer).layers)
    decoder = make_decoder(layer)
    outputs = encoder(noise(2, side, 2 * side, 3))
    pictures = decoder(outputs)
    assert pictures.dtype == tf.float32
    features, *indices = outputs if isinstance(outputs, list) else [outputs]
    expected = straightforward(decoder, features, indices)
    np.testing.assert_allclose(pictures, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert pictures.shape == (2, side, 2 * side, 3)


def test_indices_of_both_dtypes_and_switches_decode_to_the_same(encoder, decoder):
    images = noise(2, 8, 12, 3)
    features, *indices = encoder(images)
    expected = decoder([features, *indices])
    as_int32 = [tf.cast(i, tf.int32) for i in indices]
    np.testing.assert_array_equal(decoder([features, *as_int32]), expected)
    np.testing.assert_array_equal(decoder(encoder.compact(images)), expected)
    np.testing.assert_array_equal(decoder((features, *indices)), expected)


def test_replaced_features_of_the_right_shape_are_decoded(encoder, decoder):
    features, *indices = encoder(noise(1, 8, 12, 3))
    other = tf.random.stateless_uniform(features.shape, [1, 2])
    assert decoder([other, *indices]).shape == (1, 8, 12, 3)


def test_block1_takes_the_bare_features_or_a_list_of_them():
    decoder = make_decoder("block1_conv2")
    features = noise(1, 5, 7, 64)
    np.testing.assert_array_equal(decoder(features), decoder([features]))


# What does not fit together.

FIT = "do not fit `features`, which need those of a pooled map"


def refused(decoder, inputs, *words, kind=tf.errors.InvalidArgumentError):
    """Eagerly, and from a graph that knows nothing of the inputs' sizes."""
    specs = [
        tf.TensorSpec([None] * (len(x.shape) - 1) + [x.shape[-1]], x.dtype)
        for x in map(tf.convert_to_tensor, inputs)
    ]
    graph = tf.function(lambda *inputs: decoder(list(inputs)), input_signature=specs)
    for call in (lambda: decoder(inputs), lambda: graph(*inputs)):
        with pytest.raises(kind) as error:
            call()
        for word in words:
            assert word in str(error.value)


def test_positions_of_another_size_of_picture_are_refused(encoder, decoder):
    features, *_ = encoder(noise(1, 8, 16, 3))
    # As many rows, but of a picture on its side.
    _, *indices = encoder(noise(1, 16, 8, 3))
    words = ("`block1_indices`", FIT, "of another picture")
    refused(decoder, [features, *indices], *words)
    _, *switches = encoder.compact(noise(1, 16, 8, 3))
    refused(decoder, [features, *switches], "`block1_switches`", FIT)


def test_positions_of_another_layer_are_refused(encoder, decoder):
    features, one, two = encoder(noise(1, 8, 16, 3))
    refused(decoder, [features, two, one], "`block1_indices`", FIT, "of another layer")
    refused(decoder, [features, one, one], "`block2_indices`", FIT)


@pytest.mark.parametrize("form", ["__call__", "compact"])
@pytest.mark.parametrize("shape", [(1, 10, 16, 3), (1, 16, 14, 3), (2, 11, 8, 3)])
def test_a_picture_of_the_wrong_sides_is_refused_with_advice(encoder, decoder, form, shape):
    outputs = getattr(encoder, form)(noise(*shape))
    refused(decoder, outputs, "`block1_", FIT, "not multiples of 4: pad it before it is encoded")


def test_an_odd_row_that_the_first_pooling_dropped_leaves_no_trace(encoder, decoder):
    np.testing.assert_array_equal(decoder(encoder(noise(1, 9, 8, 3))).shape, (1, 8, 8, 3))


def test_batches_that_were_joined_are_refused(encoder, decoder):
    """As Keras' `predict` does."""
    one, two = encoder(noise(2, 8, 8, 3)), encoder(noise(2, 8, 8, 3) / 2)
    joined = [tf.concat(pair, 0) for pair in zip(one, two, strict=True)]
    refused(decoder, joined, "`block1_indices`", "joined from several batches")
    one, two = encoder.compact(noise(2, 8, 8, 3)), encoder.compact(noise(2, 8, 8, 3) / 2)
    joined = [tf.concat(pair, 0) for pair in zip(one, two, strict=True)]
    assert decoder(joined).shape == (4, 8, 8, 3)


def test_rows_in_another_order_are_refused(encoder, decoder):
    features, one, two = encoder(noise(1, 8, 8, 3))
    order = np.arange(len(one))
    order[:-1] = order[:-1][::-1]
    words = ("the rows of `block1_indices` are not in the order",)
    refused(decoder, [features, tf.gather(one, order), two], *words)


def test_missing_rows_are_refused(encoder, decoder):
    features, one, two = encoder(noise(1, 8, 8, 3))
    refused(decoder, [features, one[1:], two], "`block1_indices`", FIT)
    refused(decoder, [features, one, two[:0]], "`block2_indices` must be indices of shape (N, 4)")


def test_features_without_pictures_are_refused(encoder, decoder):
    features, *indices = encoder(noise(1, 8, 8, 3))
    refused(decoder, [features[:0], *indices], "`features` must be", "none of them 0")


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda f, *i: [f], "takes the list [features, block1_indices, block2_indices]"),
        (lambda f, *i: [f, *i, i[0]], "Received: 4 tensors"),
        (lambda f, *i: [f[..., :64], *i], "`features` must be"),
        (lambda f, *i: [tf.cast(f, tf.float16), *i], "Received: float16"),
        (lambda f, *i: [f, tf.cast(i[0], tf.float32), i[1]], "`block1_indices` must be"),
        (lambda f, *i: [f, i[0], i[1][:, :3]], "`block2_indices` must be"),
        (lambda f, *i: [f, tf.cast(i[0], tf.uint8), i[1]], "`block1_indices` must be"),
    ],
)
def test_tensors_of_another_kind_are_refused(encoder, decoder, change, words):
    inputs = change(*encoder(noise(1, 8, 8, 3)))
    refused(decoder, inputs, words, kind=ValueError)


def test_each_variable_and_the_features_get_a_gradient(encoder, decoder):
    features, *indices = encoder(noise(1, 8, 8, 3))
    with tf.GradientTape() as tape:
        tape.watch(features)
        loss = tf.reduce_mean(decoder([features, *indices]) ** 2)
    gradients = tape.gradient(loss, [features, *decoder.ordered_variables])
    assert len(gradients) == 13
    for gradient in gradients:
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_the_gradient_is_that_of_the_straightforward_decoder(encoder, decoder):
    features, *indices = encoder(noise(1, 8, 8, 3))
    found = []
    for decode in (
        lambda: decoder([features, *indices]),
        lambda: straightforward(decoder, features, indices),
    ):
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = tf.reduce_mean(tf.sin(decode()))
        found.append(tape.gradient(loss, [features, *decoder.ordered_variables]))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5 * np.abs(theirs).max())
