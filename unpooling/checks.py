"""Assertions on the shapes that tensors have when a graph runs."""

from collections.abc import Sequence

import tensorflow as tf

__all__ = ["assert_that", "hide_shape", "shape_of"]

# One more than a map has, so that a comparison of shapes also compares the ranks.
_AXES = 5

# A signature of a SavedModel runs with whatever shape a caller feeds, yet TensorFlow takes the
# shapes that it declares for granted and drops comparisons with them. So they are hidden from it.


def hide_shape(tensor: tf.Tensor, known: Sequence[int | None] | None = None) -> tf.Tensor:
    """Returns a tensor of which TensorFlow knows only the shape `known`; None for nothing."""
    return tf.raw_ops.PlaceholderWithDefault(input=tensor, shape=known)


def shape_of(tensor: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the shape that a tensor has when the graph runs.

    Returns:
      The shape, (rank,), int32, and the same filled up or cut to five entries, with -1 for axes
      that are not there.
    """
    shape = tf.shape(hide_shape(tensor))
    return shape, tf.concat([shape, [-1] * _AXES], axis=0)[:_AXES]


def assert_that(condition: tf.Tensor, *message: object) -> tf.Operation | None:
    """Returns an operation that fails with a message, for `tf.control_dependencies`.

    Args:
      condition: (), bool.
      *message: texts and tensors.
    """
    return tf.debugging.Assert(condition, message, summarize=8)
