"""Assertions on the shapes that tensors have when a graph runs."""

from collections.abc import Sequence

import tensorflow as tf

__all__ = ["are_between", "assert_that", "hide_shape", "shape_of"]

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


def are_between(axes: tf.Tensor, least: Sequence[int], most: Sequence[int | None]) -> tf.Tensor:
    """Returns whether a shape has as many axes as `least`, and sizes between.

    Args:
      axes: as `shape_of` returns them.
      least: the smallest size of each axis.
      most: the largest size of each axis; None for any.
    """
    absent = [-1] * (_AXES - len(least))
    most = [tf.int32.max if size is None else size for size in most]
    return tf.reduce_all((axes >= [*least, *absent]) & (axes <= [*most, *absent]), axis=0)


def assert_that(condition: tf.Tensor, *message: object) -> tf.Operation | None:
    """Returns an operation that fails with a message, for `tf.control_dependencies`.

    Args:
      condition: (), bool.
      *message: texts and tensors.
    """
    # `tf.debugging.Assert` puts twice as many operations into a graph.
    return tf.raw_ops.Assert(condition=condition, data=message, summarize=8)
