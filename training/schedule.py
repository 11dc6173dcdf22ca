"""How fast a decoder learns, and by which rule."""

import keras
from keras.optimizers import schedules

from training import options

__all__ = ["linear", "optimizer"]


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


def optimizer(
    name: str, learning_rate: schedules.LearningRateSchedule, last: str
) -> keras.optimizers.Optimizer:
    """Returns what changes a decoder's weights.

    "adam" is Adam (D. Kingma and J. Ba, arXiv 1412.6980) with default parameters. "muon" is Muon
    (K. Jordan et al., https://kellerjordan.github.io/posts/muon) for the kernels, scaled so that
    Adam's learning rates suit it (J. Liu et al., arXiv 2502.16982), without weight decay; and Adam,
    its memory about 100 steps, for the biases and the kernel that makes pixels.

    Args:
      name: one of `options.OPTIMIZERS`.
      learning_rate: what it is at each step.
      last: the name of the convolution that makes pixels.

    Raises:
      ValueError: if `name` is not one of those.
    """
    if name == "adam":
        return keras.optimizers.Adam(learning_rate)
    if name == "muon":
        return keras.optimizers.Muon(
            learning_rate,
            adam_beta_2=0.99,
            weight_decay=None,
            adam_weight_decay=None,
            exclude_layers=[f"{last}_kernel"],
        )
    raise ValueError(
        f"`optimizer` must be one of {', '.join(options.OPTIMIZERS)}. Received: {name!r}."
    )
