"""The encoder against the oracle, against Keras' VGG19, and against its own contract."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import oracle
from unpooling import encoder, vgg19, weights

# A feature is a sum of thousands of products that cancel each other. What float32 loses of it is
# in proportion to the products, not to the sum: next to a feature of 1000 stands one of 0.01 with
# the same error. So "within 1e-5" is 1e-5 of the greatest magnitude in the map.
PRECISION = 1e-5

POOLING_LAYERS = vgg19.LAYERS[1:]


@pytest.fixture(scope="module")
def random_weights():
    """Random weights of block5_conv2, and so of every layer, whose biases are not zero.

    Biases of about a tenth of the activations, no two alike: one left out, or added to the wrong
    channel, shows.
    """
    random = np.random.default_rng(11)
    layers = weights.load("random", vgg19.LAYERS[-1], seed=3).layers
    return {
        name: (kernel, random.normal(scale=10, size=bias.shape).astype(np.float32))
        for name, (kernel, bias) in layers.items()
    }


@pytest.fixture(scope="module")
def whole_weights(random_weights):
    """Weights that are small whole numbers: three of +-1 in each kernel, and a bias of -2 to 3.

    On a picture of whole numbers every sum is a whole number below 2^24, which float32 holds: no
    rounding anywhere, whatever the order of the sums. What ties then, ties exactly.
    """
    random = np.random.default_rng(5)
    layers = {}
    for name, (kernel, bias) in random_weights.items():
        taps, channels = np.prod(kernel.shape[:3]), len(bias)
        whole = np.zeros((taps, channels), np.float32)
        for channel in range(channels):
            chosen = random.choice(taps, size=3, replace=False)
            whole[chosen, channel] = random.choice([-1, 1, 1], size=3)
        layers[name] = (
            whole.reshape(kernel.shape),
            random.integers(-2, 4, size=channels).astype(np.float32),
        )
    return layers


@pytest.fixture(scope="module")
def keras_vgg19(random_weights):
    """Keras' own VGG19 with the same weights."""
    model = keras.applications.VGG19(include_top=False, weights=None)
    for name, kernel_and_bias in random_weights.items():
        model.get_layer(name).set_weights(kernel_and_bias)
    return model


def keras_features(keras_vgg19, layer, images):
    model = keras.Model(keras_vgg19.input, keras_vgg19.get_layer(layer).output)
    # A copy, because preprocess_input works in place.
    return model(keras.applications.vgg19.preprocess_input(np.array(images)))


def random_images(shape=(2, 32, 48, 3), seed=7):
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)


def flat_images():
    """Two pictures of one colour each, no two channels alike, so that BGR is not RGB."""
    colours = np.array([[250, 130, 10], [40, 20, 200]], np.float32)
    return np.broadcast_to(colours[:, None, None, :], (2, 32, 48, 3))


def whole_images(shape):
    """Pictures of whole numbers, 0 to 3, once the mean is subtracted: exactly, these are so few."""
    above_mean = np.random.default_rng(2).integers(0, 4, size=shape)
    return np.float32(oracle.MEAN_BGR[::-1]) + np.float32(above_mean)


def features_of(output):
    return output[0] if isinstance(output, list) else output


def indices_of(output):
    return [each.numpy() for each in output[1:]] if isinstance(output, list) else []


def assert_close(actual, expected):
    expected = np.asarray(expected)
    atol = PRECISION * np.abs(expected).max()
    assert atol > 0, "nothing but zeros: the comparison would say nothing"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


# --- Features and indices against the oracle.


def assert_winners(indices, expected, sums):
    """Asserts that `indices` are the winners, as far as float32 can tell them.

    Where the runner-up is farther away than rounding can reach, the index has to be the oracle's.
    Elsewhere the index is excused, but it has to name one of those that are close. A window that
    is below zero by more than rounding is all zeros after the ReLU, in float32 too: there is no
    excuse for not choosing its first.

    Args:
      indices: (N, 4), what the encoder returned.
      expected: (N, 4), the oracle's.
      sums: (B, H, W, C), the oracle's map before the pooling and before its ReLU.

    Returns:
      The share of the windows that were excused.
    """
    # Windows first: (batch, row and column of the pooled map, channel) are known for each row.
    np.testing.assert_array_equal(indices // [1, 2, 2, 1], expected // [1, 2, 2, 1])

    batch, y, x, channel = (expected // [1, 2, 2, 1] * [1, 2, 2, 1]).T
    window = np.stack(
        [sums[batch, y + dy, x + dx, channel] for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1))],
        axis=-1,
    )  # (N, 4), the four of a window in row-major order
    rounding = PRECISION * np.abs(sums).max()
    values = np.maximum(window, 0)
    # Each of two values may be off by the rounding.
    close = values >= values.max(axis=-1, keepdims=True) - 2 * rounding
    dead = window.max(axis=-1) < -rounding
    excused = (close.sum(axis=-1) > 1) & ~dead

    np.testing.assert_array_equal(indices[~excused], expected[~excused])
    chosen = indices[:, 1] % 2 * 2 + indices[:, 2] % 2
    assert close[np.arange(len(close)), chosen].all()
    return excused.mean()


@pytest.mark.parametrize("layer", vgg19.LAYERS)
def test_features_and_winners_equal_the_oracles_on_random_images(layer, random_weights):
    images = random_images()
    expected = oracle.encode(images, layer, random_weights)

    output = encoder.Encoder(layer, random_weights)(images)

    assert_close(features_of(output), expected.features)
    indices = indices_of(output)
    assert len(indices) == len(expected.indices) == vgg19.LAYERS.index(layer)
    for actual, wanted, sums in zip(indices, expected.indices, expected.sums, strict=True):
        assert assert_winners(actual, wanted, sums) < 0.001


@pytest.mark.parametrize("layer", vgg19.LAYERS)
def test_features_and_winners_equal_the_oracles_on_flat_images(layer, random_weights):
    # Away from the border all four of a window are equal in real numbers, but the rounding of a
    # sum may depend on where in the map it is computed. So up to half of the windows are excused,
    # and rightly; that exact ties go to the first is for the test with whole numbers.
    images = flat_images()
    expected = oracle.encode(images, layer, random_weights)

    output = encoder.Encoder(layer, random_weights)(images)

    assert_close(features_of(output), expected.features)
    for actual, wanted, sums in zip(
        indices_of(output), expected.indices, expected.sums, strict=True
    ):
        assert_winners(actual, wanted, sums)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("layer", vgg19.LAYERS)
def test_without_rounding_everything_equals_the_oracle_exactly(layer, flat, whole_weights):
    images = whole_images((2, 32, 48, 3))
    if flat:
        images = np.broadcast_to(images[:, :1, :1], images.shape)
    expected = oracle.encode(images, layer, whole_weights)
    # Three products and a bias make a sum, so no partial sum of the next layer reaches 2^24.
    assert max(np.abs(x).max() for x in (*expected.sums, expected.features)) < 2**22
    assert len(np.unique(expected.features)) > 10

    output = encoder.Encoder(layer, whole_weights)(images)

    np.testing.assert_array_equal(features_of(output), expected.features)
    for actual, wanted in zip(indices_of(output), expected.indices, strict=True):
        np.testing.assert_array_equal(actual, wanted)


def test_the_comparison_of_winners_can_fail():
    sums = np.array([[5, 3], [-9, 1]], np.float64).reshape(1, 2, 2, 1)
    expected = np.array([[0, 0, 0, 0]])
    assert assert_winners(expected, expected, sums) == 0
    for other in ([0, 0, 1, 0], [0, 1, 0, 0], [0, 1, 1, 0]):
        with pytest.raises(AssertionError):
            assert_winners(np.array([other]), expected, sums)

    # Two that are closer than rounding: either will do, but no third.
    sums[0, 1, 1, 0] = 5 + 1e-6
    expected = np.array([[0, 1, 1, 0]])
    for either in ([0, 0, 0, 0], [0, 1, 1, 0]):
        assert assert_winners(np.array([either]), expected, sums) == 1
    with pytest.raises(AssertionError):
        assert_winners(np.array([[0, 0, 1, 0]]), expected, sums)

    # All below zero: zeros after the ReLU, and the first wins, without excuse.
    expected = np.array([[0, 0, 0, 0]])
    assert assert_winners(expected, expected, -abs(sums)) == 0
    with pytest.raises(AssertionError):
        assert_winners(np.array([[0, 0, 1, 0]]), expected, -abs(sums))


# --- Features and gradients against Keras.


@pytest.mark.parametrize("size", [(37, 53), (32, 48), "minimum"])
@pytest.mark.parametrize("layer", vgg19.LAYERS)
def test_features_equal_keras_at_every_size(layer, size, random_weights, keras_vgg19):
    if size == "minimum":
        size = (2 ** vgg19.LAYERS.index(layer),) * 2
    images = random_images((2, *size, 3))

    output = encoder.Encoder(layer, random_weights)(images)

    assert_close(features_of(output), keras_features(keras_vgg19, layer, images))


@pytest.mark.parametrize("with_indices", [True, False])
def test_gradients_are_keras_and_reach_every_variable(with_indices, random_weights, keras_vgg19):
    layer = vgg19.LAYERS[-1]
    images = random_images()
    module = encoder.Encoder(layer, random_weights)
    with tf.GradientTape() as tape:
        features = module(images)[0] if with_indices else module.features(images)
    gradients = tape.gradient(features, module.ordered_variables, output_gradients=features)

    keras_variables = [
        variable.value
        for name in random_weights
        for variable in keras_vgg19.get_layer(name).weights
    ]
    with tf.GradientTape() as tape:
        features = keras_features(keras_vgg19, layer, images)
    expected = tape.gradient(features, keras_variables, output_gradients=features)

    assert len(gradients) == len(expected) == 28
    for actual, wanted in zip(gradients, expected, strict=True):
        # Not assert_close: a pooling that picks another of two close winners moves a little
        # gradient from one place to another.
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())
        assert np.abs(wanted).max() > 0


# --- The contract: structure, shapes, dtypes, variables.


@pytest.mark.parametrize("layer", vgg19.LAYERS)
def test_features_alone_equal_the_features_of_a_call(layer, random_weights):
    module = encoder.Encoder(layer, random_weights)
    images = random_images((2, 37, 53, 3))

    features = module.features(images)

    assert isinstance(features, tf.Tensor)
    np.testing.assert_array_equal(features, features_of(module(images)))


def test_block1_gives_the_bare_features(random_weights):
    module = encoder.Encoder("block1_conv2", random_weights)

    output = module(random_images())

    assert isinstance(output, tf.Tensor)
    assert output.shape == (2, 32, 48, 64)
    assert output.dtype == tf.float32
    assert module.output_names == ("features",)


@pytest.mark.parametrize("index_dtype", [tf.int64, tf.int32])
@pytest.mark.parametrize("layer", POOLING_LAYERS)
def test_a_call_gives_a_list_of_features_and_indices(layer, index_dtype, random_weights):
    batch, height, width = 2, 32, 48
    module = encoder.Encoder(layer, random_weights, index_dtype)

    output = module(random_images((batch, height, width, 3)))

    assert isinstance(output, list)
    last = vgg19.LAYERS.index(layer) + 1
    channels = {1: 64, 2: 128, 3: 256, 4: 512, 5: 512}
    scale = 2 ** (last - 1)
    assert output[0].shape == (batch, height // scale, width // scale, channels[last])
    assert output[0].dtype == tf.float32
    assert [each.shape.as_list() for each in output[1:]] == [
        [batch * (height // 2**block) * (width // 2**block) * channels[block], 4]
        for block in range(1, last)
    ]
    assert {each.dtype for each in output[1:]} == {index_dtype}
    assert module.output_names == (
        "features",
        *(f"block{block}_indices" for block in range(1, last)),
    )


def test_the_shapes_of_block5_are_those_of_the_contract(random_weights):
    b, h, w = 1, 32, 16

    features, *indices = encoder.Encoder("block5_conv2", random_weights)(
        random_images((b, h, w, 3))
    )

    assert features.shape == (b, h // 16, w // 16, 512)
    assert [each.shape.as_list() for each in indices] == [
        [b * h * w * 16, 4],
        [b * h * w * 8, 4],
        [b * h * w * 4, 4],
        [b * h * w * 2, 4],
    ]


def test_int32_and_int64_tuples_are_equal(random_weights):
    images = random_images((2, 37, 53, 3))

    narrow, wide = (
        indices_of(encoder.Encoder("block4_conv2", random_weights, index_dtype)(images))
        for index_dtype in (tf.int32, tf.int64)
    )

    for a, b in zip(narrow, wide, strict=True):
        np.testing.assert_array_equal(a, b)


def test_indices_are_int64_unless_asked(random_weights):
    module = encoder.Encoder("block2_conv2", random_weights)

    assert module.index_dtype == tf.int64
    assert module(random_images())[1].dtype == tf.int64


@pytest.mark.parametrize("layer", vgg19.LAYERS)
def test_a_graph_serves_every_size_and_keeps_the_static_shapes(layer, whole_weights):
    module = encoder.Encoder(layer, whole_weights)
    graph = tf.function(module, input_signature=[module.input_spec])

    shapes = graph.get_concrete_function().output_shapes

    channels = vgg19.blocks_up_to(layer)[-1].channels
    assert features_of(shapes).as_list() == [None, None, None, channels]
    assert [each.as_list() for each in shapes[1:] if isinstance(shapes, list)] == [
        [None, 4]
    ] * vgg19.LAYERS.index(layer)
    for shape in ((1, 16, 32, 3), (2, 19, 17, 3)):
        images = whole_images(shape)  # Or a graph's fused operations might round differently.
        eager, traced = module(images), graph(images)
        assert isinstance(traced, type(eager))
        np.testing.assert_array_equal(features_of(traced), features_of(eager))
        for a, b in zip(indices_of(traced), indices_of(eager), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("layer", vgg19.LAYERS)
def test_variables_bear_keras_names_in_the_order_of_the_layers(layer, random_weights):
    module = encoder.Encoder(layer, random_weights)

    names = list(random_weights)
    names = names[: names.index(layer) + 1]
    variables = module.ordered_variables
    assert [variable.name.removesuffix(":0") for variable in variables] == [
        f"{name}/{part}" for name in names for part in ("kernel", "bias")
    ]
    for variable, value in zip(
        variables, (part for name in names for part in random_weights[name]), strict=True
    ):
        np.testing.assert_array_equal(variable, value)
    # The properties of a tf.Module hold the same variables, in an order of their own.
    everything = {id(variable) for variable in variables}
    assert {id(variable) for variable in module.variables} == everything
    assert {id(variable) for variable in module.trainable_variables} == everything


def test_block5_has_28_variables(random_weights):
    module = encoder.Encoder("block5_conv2", random_weights)

    assert len(module.ordered_variables) == len(module.trainable_variables) == 28


# --- Wrong input.


def shape_message(minimum_side, shape):
    """A pattern of what is needed, what to do and the shape that came."""
    needed = re.escape(
        "`images` must have the shape (B, H, W, 3), B at least 1, H and W at least "
        f"{minimum_side}: add a batch axis to a single picture, enlarge or pad a small one."
    )
    # Called directly, TensorFlow separates the numbers by commas; in a graph, by spaces.
    came = r",? ".join(map(str, shape))
    return rf"(?s){needed} Received: shape=\W*\b{came}\b(?!,? \d)"


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("block1_conv2", (8, 9, 3)),  # no batch axis
        ("block2_conv2", (8, 9)),
        ("block2_conv2", (1, 2, 8, 9, 3)),
        ("block1_conv2", (2, 8, 9, 1)),
        ("block2_conv2", (2, 8, 9, 4)),
        ("block2_conv2", (2, 3, 8, 9)),  # channels first
        ("block1_conv2", (1, 0, 9, 3)),
        ("block2_conv2", (1, 1, 9, 3)),
        ("block2_conv2", (1, 9, 1, 3)),
        ("block3_conv2", (1, 3, 9, 3)),
        ("block4_conv2", (1, 7, 8, 3)),
        ("block5_conv2", (1, 16, 15, 3)),
        ("block1_conv2", (0, 8, 9, 3)),  # no picture
    ],
)
def test_a_wrong_shape_is_refused(layer, shape, random_weights):
    module = encoder.Encoder(layer, random_weights)
    images = np.zeros(shape, np.float32)
    message = shape_message(2 ** vgg19.LAYERS.index(layer), shape)
    of_any_shape = [tf.TensorSpec(None, tf.float32)]

    for call in (
        module,
        module.features,
        tf.function(module, input_signature=of_any_shape),
        tf.function(module.features, input_signature=of_any_shape),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            call(images)


@pytest.mark.parametrize(
    "shape", [(8, 9, 3), (1, 8, 9, 4), (1, 1, 9, 3), (1, 9, 1, 3), (0, 8, 9, 3)]
)
def test_a_wrong_static_shape_is_refused_while_tracing(shape, random_weights):
    module = encoder.Encoder("block2_conv2", random_weights)
    for call in (module, module.features):
        with pytest.raises(ValueError, match=shape_message(2, shape)):
            tf.function(call).get_concrete_function(tf.TensorSpec(shape, tf.float32))


def test_an_unknown_static_shape_is_accepted_while_tracing(random_weights):
    module = encoder.Encoder("block2_conv2", random_weights)
    for shape in (None, (None, None, None, None), (None, 2, None, None), (3, None, 2, 3)):
        tf.function(module).get_concrete_function(tf.TensorSpec(shape, tf.float32))


@pytest.mark.parametrize("dtype", ["uint8", "float64", "float16", "int32"])
def test_a_wrong_dtype_is_refused(dtype, random_weights):
    module = encoder.Encoder("block1_conv2", random_weights)
    message = re.escape(
        "`images` must be float32, RGB, values in [0, 255]: convert with "
        f"tf.cast(images, tf.float32). Received: dtype={dtype}."
    )

    for call in (module, module.features, tf.function(module)):
        with pytest.raises(ValueError, match=message):
            call(tf.zeros((1, 8, 9, 3), dtype))


@pytest.mark.parametrize("layer", ["block6_conv2", "block1_conv1", ""])
def test_another_layer_is_refused(layer, random_weights):
    with pytest.raises(ValueError, match=f"`layer` must be one of .*Received: '{layer}'"):
        encoder.Encoder(layer, random_weights)


@pytest.mark.parametrize("index_dtype", [tf.float32, tf.int16, tf.uint32, "foo"])
def test_another_index_dtype_is_refused(index_dtype, random_weights):
    name = getattr(index_dtype, "name", index_dtype)
    message = rf"`index_dtype` must be int64 or int32\. Received: {name}\."
    with pytest.raises(ValueError, match=message):
        encoder.Encoder("block1_conv2", random_weights, index_dtype)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("share", [0.001, 0.5, 1])
def test_pictures_that_are_not_finite_still_give_indices_in_range(bad, share, random_weights):
    images = random_images((2, 33, 48, 3))
    images[np.random.default_rng(1).uniform(size=images.shape) < share] = bad

    output = encoder.Encoder("block4_conv2", random_weights)(images)

    sizes = {1: (33, 48, 64), 2: (16, 24, 128), 3: (8, 12, 256)}
    for indices, (height, width, channels) in zip(indices_of(output), sizes.values(), strict=True):
        # Each in its own window, which is in range.
        windows = list(np.ndindex(2, height // 2, width // 2, channels))
        np.testing.assert_array_equal(indices // [1, 2, 2, 1], windows)
