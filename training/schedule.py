"""How the learning rate goes down."""

import keras
from keras.optimizers import schedules

__all__ = ["linear", "optimizer"]


def linear(
    first: float, last: float, steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns the learning rate that goes from `first` to `last` in equal steps."""
    return schedules.PolynomialDecay(first, max(steps, 1), last, power=1.0)


def optimizer(first: float, last: float, steps: int) -> keras.optimizers.Optimizer:
    """Returns Adam (D. Kingma and J. Ba, arXiv 1412.6980) with default parameters and `linear`."""
    return keras.optimizers.Adam(linear(first, last, steps))
