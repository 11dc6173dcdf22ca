"""Max pooling with index tuples and its inverse: by hand, against the oracle, and as properties."""

import math
import re

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from benchmarks.straightforward import straightforward_pool
from export import spec
from tests import oracle
from unpooling import pooling

NAN, INF = math.nan, math.inf

# The same examples on every run and machine.
PROPERTY = hypothesis.settings(derandomize=True, deadline=None, max_examples=100)

INDEX_DTYPES = st.sampled_from([tf.int64, tf.int32])
ENGINES = st.sampled_from(spec.ENGINES)

# Subnormal numbers are left out: TensorFlow's threads take them for zero, NumPy does not.
FINITE = st.floats(width=32, allow_subnormal=False, allow_nan=False, allow_infinity=False)
NEGATIVE = FINITE.map(lambda value: -abs(value) - 1)
ANY = FINITE | st.sampled_from([NAN, INF, -INF])


@st.composite
def maps(draw, floats=ANY):
    """Float32 maps (B, H, W, C): random, constant, or of up to six values and so full of ties."""
    shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(2, 7)),
        draw(st.integers(2, 7)),
        draw(st.sampled_from([1, 2, 3, 5, 8, 17])),
    )
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    palette = draw(
        st.none()
        | floats.map(lambda value: [value])
        | st.lists(floats, min_size=2, max_size=6)
        | st.lists(NEGATIVE, min_size=2, max_size=6)
    )
    if palette is None:
        return random.normal(size=shape).astype(np.float32)
    return random.choice(np.array(palette, np.float32), size=shape)


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# --- Answers worked out by hand.


@pytest.mark.parametrize(
    ("window", "value", "y", "x"),
    [
        ([[4, 3], [2, 1]], 4, 0, 0),
        ([[3, 4], [2, 1]], 4, 0, 1),
        ([[2, 3], [4, 1]], 4, 1, 0),
        ([[1, 2], [3, 4]], 4, 1, 1),
        # All negative: the greatest, not the largest, and never the zero of a padding.
        ([[-3, -1], [-2, -4]], -1, 0, 1),
        # Ties.
        ([[7, 7], [7, 7]], 7, 0, 0),
        ([[0, 0], [0, 0]], 0, 0, 0),
        ([[1, 7], [7, 7]], 7, 0, 1),
        ([[1, 2], [7, 7]], 7, 1, 0),
        ([[1, 7], [2, 7]], 7, 0, 1),
        ([[7, 1], [2, 7]], 7, 0, 0),
        ([[-5, -1], [-1, -5]], -1, 0, 1),
        # The two zeros are equal.
        ([[-0.0, 0.0], [0.0, 0.0]], 0, 0, 0),
        # A NaN wins if it is the first, and loses otherwise.
        ([[NAN, 2], [3, 4]], NAN, 0, 0),
        ([[2, NAN], [4, 3]], 4, 1, 0),
        ([[2, 4], [NAN, 3]], 4, 0, 1),
        ([[4, 3], [2, NAN]], 4, 0, 0),
        ([[NAN, NAN], [NAN, NAN]], NAN, 0, 0),
        ([[1, NAN], [NAN, NAN]], 1, 0, 0),
        # Infinities.
        ([[-INF, -INF], [-INF, -INF]], -INF, 0, 0),
        ([[-INF, -INF], [-INF, -9]], -9, 1, 1),
        ([[-INF, NAN], [-INF, -INF]], -INF, 0, 0),
        ([[1, INF], [2, 3]], INF, 0, 1),
        ([[1, 2], [INF, INF]], INF, 1, 0),
        ([[NAN, INF], [INF, INF]], NAN, 0, 0),
    ],
)
@pytest.mark.parametrize("channels", [1, 8])  # TensorFlow may vectorise over the channels.
@pytest.mark.parametrize("engine", spec.ENGINES)
def test_the_winner_of_one_window(window, value, y, x, channels, engine):
    values = np.repeat(np.array(window, np.float32).reshape(1, 2, 2, 1), channels, axis=-1)

    pooled, indices = pooling.max_pool_with_indices(tf.constant(values), engine=engine)
    again, switches = pooling.max_pool_with_switches(tf.constant(values), engine=engine)

    np.testing.assert_array_equal(pooled, np.full((1, 1, 1, channels), value, np.float32))
    np.testing.assert_array_equal(indices, [(0, y, x, c) for c in range(channels)])
    np.testing.assert_array_equal(again, pooled)
    np.testing.assert_array_equal(switches, np.full((1, 1, 1, channels), 2 * y + x))


# Two pictures of 3 rows, 5 columns and 2 channels. The last row and column belong to no window:
# their 99 must not win.
ODD_MAP = np.stack(
    [
        [
            [[1, 8, 2, 2, 99], [3, 4, 2, 2, 99], [99, 99, 99, 99, 99]],  # batch 0, channel 0
            [[-1, -2, 0, 1, 99], [-3, -4, 5, 4, 99], [99, 99, 99, 99, 99]],  # channel 1
        ],
        [
            [[6, 5, 0, 0, 99], [6, 5, 0, 3, 99], [99, 99, 99, 99, 99]],  # batch 1, channel 0
            [[0, 0, 9, 0, 99], [7, 0, 0, 0, 99], [99, 99, 99, 99, 99]],  # channel 1
        ],
    ]
).astype(np.float32)  # (2, 2, 3, 5), channels first to be readable
ODD_MAP = np.moveaxis(ODD_MAP, 1, -1)  # (2, 3, 5, 2)
ODD_POOLED = [[[[8, -1], [2, 5]]], [[[6, 7], [3, 9]]]]  # (2, 1, 2, 2)
ODD_INDICES = [
    (0, 0, 1, 0),
    (0, 0, 0, 1),
    (0, 0, 2, 0),
    (0, 1, 2, 1),
    (1, 0, 0, 0),
    (1, 1, 0, 1),
    (1, 1, 3, 0),
    (1, 0, 2, 1),
]


def test_pooling_an_odd_map_of_two_batches_and_two_channels():
    pooled, indices = pooling.max_pool_with_indices(tf.constant(ODD_MAP))

    np.testing.assert_array_equal(pooled, ODD_POOLED)
    np.testing.assert_array_equal(indices, ODD_INDICES)
    np.testing.assert_array_equal(pooling.max_pool(tf.constant(ODD_MAP)), ODD_POOLED)


def test_unpooling_an_odd_map_of_two_batches_and_two_channels():
    unpooled = pooling.unpool(
        tf.constant(ODD_POOLED, tf.float32), tf.constant(ODD_INDICES), tf.constant([2, 3, 5, 2])
    )

    expected = np.stack(
        [
            [
                [[0, 8, 2, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
                [[-1, 0, 0, 0, 0], [0, 0, 5, 0, 0], [0, 0, 0, 0, 0]],
            ],
            [
                [[6, 0, 0, 0, 0], [0, 0, 0, 3, 0], [0, 0, 0, 0, 0]],
                [[0, 0, 9, 0, 0], [7, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
            ],
        ]
    )
    np.testing.assert_array_equal(unpooled, np.moveaxis(expected, 1, -1))


def test_the_oracle_gives_the_answers_worked_out_by_hand():
    pooled, indices = oracle.max_pool_with_indices(ODD_MAP)

    np.testing.assert_array_equal(pooled, ODD_POOLED)
    np.testing.assert_array_equal(indices, ODD_INDICES)


# --- Properties of any map.


@hypothesis.given(maps(), INDEX_DTYPES, ENGINES)
@PROPERTY
def test_values_and_tuples_equal_the_oracles(values, index_dtype, engine):
    expected_pooled, expected_indices = oracle.max_pool_with_indices(values)

    pooled, indices = pooling.max_pool_with_indices(tf.constant(values), index_dtype, engine)

    np.testing.assert_array_equal(pooled, expected_pooled)
    np.testing.assert_array_equal(indices, expected_indices)
    assert pooled.dtype == tf.float32
    assert indices.dtype == index_dtype


@hypothesis.given(maps(), INDEX_DTYPES, ENGINES)
@PROPERTY
def test_values_and_tuples_equal_those_of_the_straightforward_graph(values, index_dtype, engine):
    expected_pooled, expected_indices = straightforward_pool(tf.constant(values), index_dtype)

    pooled, indices = pooling.max_pool_with_indices(tf.constant(values), index_dtype, engine)

    np.testing.assert_array_equal(pooled, expected_pooled)
    np.testing.assert_array_equal(indices, expected_indices)


@pytest.mark.parametrize("engine", spec.ENGINES)
def test_a_large_map_full_of_ties_and_nan_pools_as_the_straightforward_graph(engine):
    random = np.random.default_rng(0)
    values = np.maximum(random.normal(size=(2, 67, 131, 64)), 0).round(1).astype(np.float32)
    values[random.uniform(size=values.shape) < 0.01] = NAN

    pooled, indices = pooling.max_pool_with_indices(tf.constant(values), engine=engine)

    expected_pooled, expected_indices = straightforward_pool(tf.constant(values), tf.int64)
    np.testing.assert_array_equal(pooled, expected_pooled)
    np.testing.assert_array_equal(indices, expected_indices)


@hypothesis.given(maps(), INDEX_DTYPES, ENGINES)
@PROPERTY
def test_switches_say_the_same_as_tuples(values, index_dtype, engine):
    expected_pooled, indices = pooling.max_pool_with_indices(tf.constant(values), index_dtype)

    pooled, switches = pooling.max_pool_with_switches(tf.constant(values), engine)

    assert switches.dtype == tf.uint8
    assert switches.shape == pooled.shape
    np.testing.assert_array_equal(pooled, expected_pooled)
    made = pooling.switches_to_indices(switches, index_dtype)
    assert made.dtype == index_dtype
    np.testing.assert_array_equal(made, indices)
    back = pooling.indices_to_switches(indices, tf.shape(pooled))
    assert back.dtype == tf.uint8
    np.testing.assert_array_equal(back, switches)


@hypothesis.given(maps(), ENGINES)
@PROPERTY
def test_unpooling_from_switches_is_unpooling_from_tuples(values, engine):
    pooled, switches = pooling.max_pool_with_switches(tf.constant(values), engine)
    own = tf.Variable(normal(pooled.shape, seed=1))
    with tf.GradientTape() as tape:
        unpooled = pooling.unpool(own, switches, tf.shape(values))
    upstream = normal(values.shape, seed=2)
    gradient = tape.gradient(unpooled, own, output_gradients=tf.constant(upstream))

    _, indices = oracle.max_pool_with_indices(values)
    np.testing.assert_array_equal(unpooled, oracle.unpool(own.numpy(), indices, values.shape))
    np.testing.assert_array_equal(gradient, upstream[tuple(indices.T)].reshape(pooled.shape))


def test_tuples_of_places_beyond_a_byte_make_the_right_switches():
    values = normal((1, 2, 1500, 1))
    pooled, indices = pooling.max_pool_with_indices(tf.constant(values))
    _, switches = pooling.max_pool_with_switches(tf.constant(values))

    assert int(tf.reduce_max(indices)) > 1024
    np.testing.assert_array_equal(pooling.indices_to_switches(indices, tf.shape(pooled)), switches)


@hypothesis.given(maps(), INDEX_DTYPES)
@PROPERTY
def test_tuples_are_in_range_unique_and_point_at_the_pooled_values(values, index_dtype):
    pooled, indices = pooling.max_pool_with_indices(tf.constant(values), index_dtype)

    batch, height, width, channels = values.shape
    indices = indices.numpy()
    assert indices.shape == (batch * (height // 2) * (width // 2) * channels, 4)
    assert (indices >= 0).all()
    assert (indices < values.shape).all()
    assert len(np.unique(indices, axis=0)) == len(indices)
    np.testing.assert_array_equal(values[tuple(indices.T)], tf.reshape(pooled, [-1]))


@hypothesis.given(maps(), INDEX_DTYPES)
@PROPERTY
def test_unpooling_puts_every_maximum_back_and_zeros_elsewhere(values, index_dtype):
    pooled, indices = pooling.max_pool_with_indices(tf.constant(values), index_dtype)
    unpooled = pooling.unpool(pooled, indices, tf.shape(values)).numpy()

    won = np.zeros(values.shape, bool)
    won[tuple(oracle.max_pool_with_indices(values)[1].T)] = True
    np.testing.assert_array_equal(unpooled, np.where(won, values, 0))
    np.testing.assert_array_equal(
        unpooled, oracle.unpool(*oracle.max_pool_with_indices(values), values.shape)
    )


@hypothesis.given(maps(FINITE))
@PROPERTY
def test_max_pool_gives_the_values_of_max_pool_with_indices(values):
    # Of finite maps only: they treat NaN, and a window of nothing but -inf, in different ways.
    pooled, _ = pooling.max_pool_with_indices(tf.constant(values))

    np.testing.assert_array_equal(pooling.max_pool(tf.constant(values)), pooled)


@hypothesis.given(maps(), INDEX_DTYPES, INDEX_DTYPES)
@PROPERTY
def test_unpool_is_the_scatter_of_the_contract(values, index_dtype, shape_dtype):
    _, indices = pooling.max_pool_with_indices(tf.constant(values), index_dtype)
    # A decoder unpools its own values, not the maxima.
    _, height, width, _ = values.shape
    pooled = normal((len(values), height // 2, width // 2, values.shape[-1]), seed=1)

    unpooled = pooling.unpool(tf.constant(pooled), indices, tf.shape(values, out_type=shape_dtype))

    expected = tf.scatter_nd(
        indices, tf.reshape(pooled, [-1]), tf.shape(values, out_type=indices.dtype)
    )
    np.testing.assert_array_equal(unpooled, expected)
    np.testing.assert_array_equal(unpooled, oracle.unpool(pooled, indices.numpy(), values.shape))


# --- Gradients.


@hypothesis.given(maps(FINITE), INDEX_DTYPES, ENGINES)
@PROPERTY
def test_the_gradient_of_pooling_goes_to_the_winners_only(values, index_dtype, engine):
    variable = tf.Variable(values)
    with tf.GradientTape(persistent=True) as tape:
        pooled, _ = pooling.max_pool_with_indices(variable, index_dtype, engine)
        plain = pooling.max_pool(variable)
        compact, _ = pooling.max_pool_with_switches(variable, engine)
    upstream = normal(pooled.shape, seed=2)

    _, winners = oracle.max_pool_with_indices(values)
    expected = oracle.unpool(upstream, winners, values.shape)
    for target in (pooled, plain, compact):
        gradient = tape.gradient(target, variable, output_gradients=tf.constant(upstream))
        np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("engine", spec.ENGINES)
def test_the_second_derivative_is_that_of_plain_pooling(engine):
    def second_derivative(pool):
        values = tf.Variable(normal((2, 5, 6, 3)))
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                cubes = tf.reduce_sum(pool(values) ** 3)
            squares = tf.reduce_sum(inner.gradient(cubes, values) ** 2)
        return outer.gradient(squares, values)

    expected = second_derivative(pooling.max_pool)

    for pool in (pooling.max_pool_with_indices, pooling.max_pool_with_switches):
        found = second_derivative(lambda values, pool=pool: pool(values, engine=engine)[0])
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@hypothesis.given(maps(), INDEX_DTYPES)
@PROPERTY
def test_the_gradient_of_unpooling_is_a_gather(values, index_dtype):
    maxima, indices = pooling.max_pool_with_indices(tf.constant(values), index_dtype)
    pooled = tf.Variable(normal(maxima.shape, seed=1))
    with tf.GradientTape() as tape:
        unpooled = pooling.unpool(pooled, indices, tf.shape(values))
    upstream = normal(values.shape, seed=2)

    gradient = tape.gradient(unpooled, pooled, output_gradients=tf.constant(upstream))

    expected = upstream[tuple(indices.numpy().T)].reshape(maxima.shape)
    np.testing.assert_array_equal(gradient, expected)


# --- Types, static shapes, errors.


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
@pytest.mark.parametrize("index_dtype", [tf.int64, tf.int32])
def test_every_floating_dtype_is_kept(dtype, index_dtype):
    values = tf.constant(ODD_MAP, dtype)

    pooled, indices = pooling.max_pool_with_indices(values, index_dtype)
    unpooled = pooling.unpool(pooled, indices, tf.shape(values))

    assert (pooled.dtype, indices.dtype, unpooled.dtype) == (dtype, index_dtype, dtype)
    assert pooling.max_pool(values).dtype == dtype
    np.testing.assert_array_equal(tf.cast(pooled, tf.float32), ODD_POOLED)
    np.testing.assert_array_equal(indices, ODD_INDICES)


def test_indices_are_int64_unless_asked():
    _, indices = pooling.max_pool_with_indices(tf.constant(ODD_MAP))

    assert indices.dtype == tf.int64


@pytest.mark.parametrize("channels", [2, None])
@pytest.mark.parametrize("index_dtype", [tf.int64, tf.int32])
def test_a_graph_serves_every_size_and_keeps_the_static_shapes(channels, index_dtype):
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, channels), tf.float32)])
    def pool_and_unpool(values):
        pooled, indices = pooling.max_pool_with_indices(values, index_dtype)
        assert pooled.shape.as_list() == [None, None, None, channels]
        assert indices.shape.as_list() == [None, 4]
        return pooled, indices, pooling.unpool(pooled, indices, tf.shape(values))

    for shape in ((1, 2, 2, 2), (3, 5, 8, 2), (2, 6, 3, 2)):
        values = normal(shape)
        expected_pooled, expected_indices = oracle.max_pool_with_indices(values)

        pooled, indices, unpooled = pool_and_unpool(values)

        np.testing.assert_array_equal(pooled, expected_pooled)
        np.testing.assert_array_equal(indices, expected_indices)
        np.testing.assert_array_equal(
            unpooled, oracle.unpool(expected_pooled, expected_indices, shape)
        )


@pytest.mark.parametrize("index_dtype", [tf.float32, tf.int16, tf.uint32, "float64", "int"])
def test_another_index_dtype_is_refused(index_dtype):
    name = getattr(index_dtype, "name", index_dtype)
    message = f"`index_dtype` must be int64 or int32. Received: {name}."
    with pytest.raises(ValueError, match=re.escape(message)):
        pooling.max_pool_with_indices(tf.constant(ODD_MAP), index_dtype)


@pytest.mark.parametrize("pool", [pooling.max_pool_with_indices, pooling.max_pool_with_switches])
def test_another_engine_is_refused(pool):
    with pytest.raises(ValueError, match=r"`engine` must be one of argmax, xla. Received: 'cuda'"):
        pool(tf.constant(ODD_MAP), engine="cuda")


@pytest.mark.parametrize("shape", [(2, 4, 1, 3), (1, 3, 1, 1)])
@pytest.mark.parametrize("engine", spec.ENGINES)
def test_a_map_without_windows_gives_nothing(shape, engine):
    values = tf.ones(shape)

    pooled, indices = pooling.max_pool_with_indices(values, engine=engine)
    _, switches = pooling.max_pool_with_switches(values, engine=engine)

    assert pooled.shape == switches.shape == (shape[0], shape[1] // 2, shape[2] // 2, shape[3])
    assert indices.shape == (0, 4)
    np.testing.assert_array_equal(pooling.unpool(pooled, indices, shape), np.zeros(shape))
    np.testing.assert_array_equal(pooling.unpool(pooled, switches, shape), np.zeros(shape))


@pytest.mark.parametrize(
    "positions",
    [tf.zeros((1, 1, 2, 1), tf.int32), tf.zeros((2, 4), tf.uint8), tf.zeros((2, 4))],
    ids=["int32 switches", "uint8 indices", "float32 indices"],
)
def test_positions_of_neither_form_are_refused(positions):
    received = re.escape(f"{positions.dtype.name} of shape {positions.shape}")
    with pytest.raises(ValueError, match=f"`positions` must be indices, .* Received: {received}"):
        pooling.unpool(tf.zeros((1, 1, 2, 1)), positions, (1, 2, 4, 1))
