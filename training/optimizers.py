"""How fast a decoder learns, and by which rule."""

import keras
from keras.optimizers import schedules

from training import config

__all__ = ["Muon", "linear", "optimizer"]


def linear(
    first: float, last: float, steps: int, warm_up: int = 0
) -> schedules.LearningRateSchedule:
    """Returns the learning rate that goes from `first` to `last` in equal steps.

    Args:
      first, last: the learning rates.
      steps: how many steps there are, warming up included.
      warm_up: how many steps it takes to come from 0 to `first`, before it goes down.
    """
    if not warm_up:
        return schedules.PolynomialDecay(first, max(steps, 1), last, power=1.0)
    # Cosine decay with its warm-up would be Keras' own; two straight lines are not.
    return _UpAndDown(first, last, steps, warm_up)


@keras.saving.register_keras_serializable("training")
class _UpAndDown(schedules.LearningRateSchedule):
    """From 0 to `first` in `warm_up` steps, then to `last` in the others, each time linearly."""

    def __init__(self, first, last, steps, warm_up):
        super().__init__()
        self._config = {"first": first, "last": last, "steps": steps, "warm_up": warm_up}
        self._warm_up = warm_up
        self._up = schedules.PolynomialDecay(0.0, warm_up, first, power=1.0)
        self._down = schedules.PolynomialDecay(first, max(steps - warm_up, 1), last, power=1.0)

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        down = self._down(keras.ops.maximum(step - self._warm_up, 0.0))
        return keras.ops.where(step < self._warm_up, self._up(step), down)

    def get_config(self):
        return self._config


@keras.saving.register_keras_serializable("training")
class Muon(keras.optimizers.Adam):
    """Muon for matrices, and Adam, its memory about 100 steps, for everything else.

    K. Jordan et al., https://kellerjordan.github.io/posts/muon: the momentum is brought near to the
    orthogonal matrix that is closest to it, then scaled so that Adam's learning rates suit it
    (J. Liu et al., arXiv 2502.16982). No weight decay. `keras.optimizers.Muon` does the same, but
    that of Keras 3.12, the last for Python 3.10, cannot be used with TensorFlow.

    Args:
      learning_rate: what it is at each step.
      by_adam: the names of matrices that are left to Adam.
      momentum: how much of the last momentum stays.
    """

    def __init__(self, learning_rate, by_adam=(), momentum=0.95, beta_2=0.99, **kwargs):
        super().__init__(learning_rate, beta_2=beta_2, **kwargs)
        self.by_adam = list(by_adam)
        self.momentum = momentum

    def build(self, variables):
        super().build(variables)
        self._by_muon = [len(v.shape) == 2 and v.name not in self.by_adam for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        if not self._by_muon[index]:
            super().update_step(gradient, variable, learning_rate)
            return
        last = self._momentums[index]
        self.assign(last, self.momentum * last + gradient)
        step = _orthogonal(gradient + self.momentum * last)
        scale = 0.2 * max(variable.shape) ** 0.5
        self.assign_sub(variable, keras.ops.cast(learning_rate, variable.dtype) * scale * step)

    def get_config(self):
        return {**super().get_config(), "by_adam": self.by_adam, "momentum": self.momentum}


def _orthogonal(matrix):
    """The orthogonal matrix near to one, by five steps of Newton-Schulz with Jordan's numbers."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else keras.ops.transpose(matrix)
    x = x / (keras.ops.norm(x) + 1e-7)
    for _ in range(5):
        square = x @ keras.ops.transpose(x)
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * (square @ square)) @ x
    return x if wide else keras.ops.transpose(x)


def optimizer(
    name: str, learning_rate: schedules.LearningRateSchedule, last: str
) -> keras.optimizers.Optimizer:
    """Returns what changes a decoder's weights.

    "adam" is Adam (D. Kingma and J. Ba, arXiv 1412.6980) with default parameters, "muon" is `Muon`
    for all kernels but the last, which makes pixels.

    Args:
      name: one of `config.OPTIMIZERS`.
      learning_rate: what it is at each step.
      last: the name of the convolution that makes pixels.

    Raises:
      ValueError: if `name` is not one of those.
    """
    if name == "adam":
        return keras.optimizers.Adam(learning_rate)
    if name == "muon":
        return Muon(learning_rate, by_adam=[f"{last}_kernel"])
    raise ValueError(
        f"`optimizer` must be one of {', '.join(config.OPTIMIZERS)}. Received: {name!r}."
    )
