"""Padding by reflection: what NumPy does, for every size, in graphs and in training."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from unpooling import padding


@pytest.mark.parametrize(
    ("row", "multiple", "expected"),
    [
        ([1, 2, 3, 4, 5], 8, [1, 2, 3, 4, 5, 4, 3, 2]),
        ([1, 2], 8, [1, 2, 1, 2, 1, 2, 1, 2]),
        ([1], 4, [1, 1, 1, 1]),
    ],
)
def test_the_picture_goes_on_as_in_a_mirror(row, multiple, expected):
    padded = padding.pad_by_reflection(tf.reshape(row, (1, 1, -1, 1)), multiple)
    assert padded[0, 0, :, 0].numpy().tolist() == expected


@hypothesis.settings(derandomize=True, deadline=None)
@hypothesis.given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 4, 8, 16]))
def test_it_is_numpys_reflection_and_crop_undoes_it(height, width, multiple):
    images = np.random.default_rng(0).uniform(0, 255, (2, height, width, 3)).astype(np.float32)
    padded = padding.pad_by_reflection(images, multiple)
    more = [-side % multiple for side in (height, width)]
    expected = np.pad(images, [(0, 0), (0, more[0]), (0, more[1]), (0, 0)], mode="reflect")
    np.testing.assert_array_equal(padded, expected)
    assert padded.shape[1] % multiple == padded.shape[2] % multiple == 0
    np.testing.assert_array_equal(padding.crop(padded, images), images)


def test_gradients_reach_the_rows_that_were_reflected():
    images = tf.ones((1, 3, 3, 1))
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(padding.pad_by_reflection(images, 4))
    # Row and column 1 are seen twice.
    expected = np.outer([1, 2, 1], [1, 2, 1])[np.newaxis, ..., np.newaxis]
    np.testing.assert_array_equal(tape.gradient(total, images), expected)


@pytest.mark.parametrize("multiple", [0, -4])
def test_a_multiple_below_1_is_refused(multiple):
    with pytest.raises(ValueError, match=f"`multiple` must be at least 1. Received: {multiple}"):
        padding.pad_by_reflection(tf.zeros((1, 4, 4, 3)), multiple)


def test_cutting_keeps_whole_multiples():
    picture = np.arange(7 * 9 * 3).reshape(7, 9, 3)
    np.testing.assert_array_equal(padding.cut(picture, 4), picture[:4, :8])
    assert padding.cut(picture, 8).shape == (0, 8, 3)
    np.testing.assert_array_equal(padding.cut(picture, 1), picture)
