"""Max pooling with index tuples and its inverse: by hand, against the oracle, and as properties."""

import math
import re

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from benchmarks.straightforward import straightforward_pool
from tests import oracle
from unpooling import pooling
from unpooling.options import ENGINES, INDEX_DTYPES

NAN, INF = math.nan, math.inf
INVALID = tf.errors.InvalidArgumentError

# The same examples on every run and machine.
PROPERTY = hypothesis.settings(derandomize=True, deadline=None, max_examples=100)

# Subnormal numbers are left out: TensorFlow's threads take them for zero, NumPy does not.
FINITE = st.floats(width=32, allow_subnormal=False, allow_nan=False, allow_infinity=False)
NEGATIVE = FINITE.map(lambda value: -abs(value) - 1)
ANY = FINITE | st.sampled_from([NAN, INF, -INF])


@st.composite
def maps(draw, floats=ANY):
    """Float32 maps (B, H, W, C): random, constant, or of up to six values and so full of ties."""
    sides = st.integers(2, 7)
    shape = draw(st.tuples(st.integers(1, 3), sides, sides, st.sampled_from([1, 2, 3, 5, 8, 17])))
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


def assert_maxima(pooled, expected):
    """Asserts equality but for windows that begin with NaN or hold -inf alone: those are open."""
    expected = np.asarray(expected)
    known = ~np.isnan(expected) & (expected > -INF)
    np.testing.assert_array_equal(np.where(known, pooled, 0), np.where(known, expected, 0))


# --- Answers worked out by hand.


@pytest.mark.parametrize(
    ("window", "value", "y", "x"),
    [
        ([[4, 3], [2, 1]], 4, 0, 0),
        ([[2, 3], [4, 1]], 4, 1, 0),
        ([[1, 2], [3, 4]], 4, 1, 1),
        # All negative: the greatest, not the largest, and never the zero of a padding.
        ([[-3, -1], [-2, -4]], -1, 0, 1),
        # Ties.
        ([[7, 7], [7, 7]], 7, 0, 0),
        ([[1, 2], [7, 7]], 7, 1, 0),
        ([[-5, -1], [-1, -5]], -1, 0, 1),
        # The two zeros are equal.
        ([[-0.0, 0.0], [0.0, 0.0]], 0, 0, 0),
        # A NaN wins if it is the first, and loses otherwise.
        ([[NAN, 2], [3, 4]], NAN, 0, 0),
        ([[2, NAN], [4, 3]], 4, 1, 0),
        ([[1, NAN], [NAN, NAN]], 1, 0, 0),
        # Infinities.
        ([[-INF, -INF], [-INF, -INF]], -INF, 0, 0),
        ([[-INF, NAN], [-INF, -INF]], -INF, 0, 0),
        ([[1, 2], [INF, INF]], INF, 1, 0),
    ],
)
@pytest.mark.parametrize("channels", [1, 8])  # TensorFlow may vectorise over the channels.
@pytest.mark.parametrize("engine", ENGINES)
def test_the_winner_of_one_window(window, value, y, x, channels, engine):
    values = np.repeat(np.array(window, np.float32).reshape(1, 2, 2, 1), channels, axis=-1)

    pooled, indices = pooling.max_pool_with_indices(tf.constant(values), engine=engine)
    again, switches = pooling.max_pool_with_switches(tf.constant(values), engine=engine)

    assert_maxima(pooled, np.full((1, 1, 1, channels), value, np.float32))
    np.testing.assert_array_equal(indices, [(0, y, x, c) for c in range(channels)])
    np.testing.assert_array_equal(again, pooled)
    np.testing.assert_array_equal(switches, np.full((1, 1, 1, channels), 2 * y + x))
    # So does the oracle.
    expected_pooled, expected_indices = oracle.max_pool_with_indices(values)
    np.testing.assert_array_equal(expected_pooled, np.full((1, 1, 1, channels), value))
    np.testing.assert_array_equal(expected_indices, indices)


def test_unpooling_a_map_of_odd_sides_worked_out_by_hand():
    # The last row and column belong to no window: their 99 must not win.
    values = np.float32([[1, 8, 2, 2, 99], [3, 4, 2, 5, 99], [99, 99, 99, 99, 99]])
    values = tf.reshape(values, (1, 3, 5, 1))
    pooled, indices = pooling.max_pool_with_indices(values)
    assert pooled.numpy().ravel().tolist() == [8, 5]
    assert indices.numpy().tolist() == [[0, 0, 1, 0], [0, 1, 3, 0]]
    unpooled = pooling.unpool(pooled, indices, tf.shape(values))
    assert unpooled[0, ..., 0].numpy().tolist() == [[0, 8, 0, 0, 0], [0, 0, 0, 5, 0], [0] * 5]


# --- Properties of any map.


@hypothesis.given(maps(), st.sampled_from(INDEX_DTYPES), st.sampled_from(ENGINES))
@PROPERTY
def test_values_and_positions_equal_the_oracles(values, index_dtype, engine):
    expected_pooled, expected_indices = oracle.max_pool_with_indices(values)

    pooled, indices = pooling.max_pool_with_indices(tf.constant(values), index_dtype, engine)
    same, switches = pooling.max_pool_with_switches(tf.constant(values), engine)

    assert (pooled.dtype, indices.dtype, switches.dtype) == (tf.float32, index_dtype, tf.uint8)
    assert_maxima(pooled, expected_pooled)
    np.testing.assert_array_equal(same, pooled)
    np.testing.assert_array_equal(indices, expected_indices)
    # Both forms say the same.
    made = pooling.switches_to_indices(switches, index_dtype)
    assert made.dtype == index_dtype
    np.testing.assert_array_equal(made, expected_indices)
    back = pooling.indices_to_switches(indices, tf.shape(pooled))
    assert back.dtype == tf.uint8
    np.testing.assert_array_equal(back, switches)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_large_map_full_of_ties_and_nan_pools_as_the_straightforward_graph(engine):
    random = np.random.default_rng(0)
    values = np.maximum(random.normal(size=(2, 67, 600, 16)), 0).round(1).astype(np.float32)
    values[random.uniform(size=values.shape) < 0.01] = NAN

    pooled, indices = pooling.max_pool_with_indices(tf.constant(values), engine=engine)
    _, switches = pooling.max_pool_with_switches(tf.constant(values), engine=engine)

    expected_pooled, expected_indices = straightforward_pool(tf.constant(values), tf.int64)
    assert_maxima(pooled, expected_pooled)
    np.testing.assert_array_equal(indices, expected_indices)
    # Here are places that a byte does not hold.
    np.testing.assert_array_equal(pooling.indices_to_switches(indices, tf.shape(pooled)), switches)


@hypothesis.given(maps(), st.sampled_from([*INDEX_DTYPES, "switches"]), st.booleans())
@PROPERTY
def test_unpooling_is_the_scatter_of_the_contract_and_its_gradient_a_gather(values, form, shaped):
    if not shaped:  # Then the sides are even.
        values = values[:, : values.shape[1] // 2 * 2, : values.shape[2] // 2 * 2]
    _, indices = oracle.max_pool_with_indices(values)
    if form == "switches":
        _, positions = pooling.max_pool_with_switches(tf.constant(values))
    else:
        _, positions = pooling.max_pool_with_indices(tf.constant(values), form)
    # A decoder unpools its own values, not the maxima.
    batch, height, width, channels = values.shape
    own = tf.Variable(normal((batch, height // 2, width // 2, channels), seed=1))
    with tf.GradientTape() as tape:
        unpooled = pooling.unpool(own, positions, tf.shape(values) if shaped else None)
    upstream = normal(values.shape, seed=2)
    gradient = tape.gradient(unpooled, own, output_gradients=tf.constant(upstream))

    np.testing.assert_array_equal(unpooled, oracle.unpool(own.numpy(), indices, values.shape))
    np.testing.assert_array_equal(
        unpooled, tf.scatter_nd(indices, tf.reshape(own, [-1]), tf.constant(values.shape, tf.int64))
    )
    np.testing.assert_array_equal(gradient, upstream[tuple(indices.T)].reshape(own.shape))


@hypothesis.given(maps(FINITE), st.sampled_from(ENGINES))
@PROPERTY
def test_the_gradient_of_pooling_goes_to_the_winners_only(values, engine):
    variable = tf.Variable(values)
    with tf.GradientTape(persistent=True) as tape:
        pooled, _ = pooling.max_pool_with_indices(variable, engine=engine)
        plain = pooling.max_pool(variable)
        compact, _ = pooling.max_pool_with_switches(variable, engine)
    upstream = normal(pooled.shape, seed=2)

    # Of finite maps only: `max_pool` treats NaN, and a window of nothing but -inf, in its own way.
    np.testing.assert_array_equal(plain, pooled)
    expected = oracle.unpool(upstream, oracle.max_pool_with_indices(values)[1], values.shape)
    for target in (pooled, plain, compact):
        gradient = tape.gradient(target, variable, output_gradients=tf.constant(upstream))
        np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("engine", ENGINES)
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


# --- Types, static shapes, errors.


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_floating_dtype_is_kept(dtype, engine):
    values = tf.cast(normal((2, 3, 5, 2)), dtype)

    pooled, indices = pooling.max_pool_with_indices(values, engine=engine)
    unpooled = pooling.unpool(pooled, indices, tf.shape(values))

    assert (pooled.dtype, indices.dtype, unpooled.dtype) == (dtype, tf.int64, dtype)
    assert pooling.max_pool(values).dtype == dtype
    np.testing.assert_array_equal(indices, oracle.max_pool_with_indices(values.numpy())[1])


@pytest.mark.parametrize("index_dtype", [tf.float32, tf.int16, "float64", "int"])
def test_another_index_dtype_or_engine_is_refused(index_dtype):
    name = getattr(index_dtype, "name", index_dtype)
    message = re.escape(f"`index_dtype` must be int64 or int32. Received: {name}.")
    values = tf.ones((1, 2, 2, 1))
    with pytest.raises(ValueError, match=message):
        pooling.max_pool_with_indices(values, index_dtype)
    with pytest.raises(ValueError, match=message):
        pooling.switches_to_indices(tf.cast(values, tf.uint8), index_dtype)
    for pool in (pooling.max_pool_with_indices, pooling.max_pool_with_switches):
        with pytest.raises(ValueError, match=r"one of argmax, xla\. Received: 'x'"):
            pool(values, engine="x")


@pytest.mark.parametrize(
    "positions",
    [tf.zeros((1, 1, 2, 1), tf.int32), tf.zeros((2, 4), tf.uint8), tf.zeros((2, 4))],
    ids=["int32 switches", "uint8 indices", "float32 indices"],
)
def test_positions_of_neither_form_are_refused(positions):
    received = re.escape(f"{positions.dtype.name} of shape {positions.shape}")
    with pytest.raises(ValueError, match=f"`positions` must be indices, .* Received: {received}"):
        pooling.unpool(tf.zeros((1, 1, 2, 1)), positions, (1, 2, 4, 1))


@pytest.fixture
def unpoolable():
    """Values (2, 3, 4, 5) with indices and switches of a map (2, 7, 8, 5)."""
    values = tf.constant(normal((2, 7, 8, 5)))
    pooled, indices = pooling.max_pool_with_indices(values)
    return pooled, indices, pooling.max_pool_with_switches(values)[1]


def test_the_shape_and_the_positions_of_another_map_are_refused(unpoolable):
    pooled, indices, switches = unpoolable
    fit = (2, 7, 8, 5)
    wrong = [(3, 7, 8, 5), (2, 7, 8, 77), (2, 40, 8, 5), (2, 5, 8, 5), (2, 7, 10, 5), (2, 6, 7, 5)]
    for positions in (indices, switches):
        for unpool in (pooling.unpool, tf.function(pooling.unpool)):
            for shape in wrong:
                with pytest.raises(INVALID, match="`shape` must be that of the"):
                    unpool(pooled, positions, shape)
            assert unpool(pooled, positions, fit).shape == fit
    for fewer in (indices[:-1], tf.concat([indices, indices], 0), switches[:1], switches[:, :2]):
        with pytest.raises(INVALID, match="`positions` must be one for each value"):
            pooling.unpool(pooled, fewer)


def test_validation_finds_every_position_that_is_not_in_its_window(unpoolable):
    pooled, indices, switches = unpoolable
    for right in (indices, tf.cast(indices, tf.int32), switches):
        np.testing.assert_array_equal(
            pooling.unpool(pooled, right, validate=True), pooling.unpool(pooled, right)
        )
    wrong = [indices[::-1]]
    for column, step in enumerate([1, 2, 2, 1]):  # Another picture, window, window, channel.
        wrong.append(tf.tensor_scatter_nd_add(indices, [[17, column]], [step]))
    for rows in wrong:
        pooling.unpool(pooled, rows)  # Not looked at.
        with pytest.raises(INVALID, match="must be the rows that a pooling"):
            pooling.unpool(pooled, rows, validate=True)
    with pytest.raises(INVALID, match="must be 0 to 3 as switches"):
        pooling.unpool(pooled, switches + 4, validate=True)
