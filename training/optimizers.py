"""How fast a decoder learns, and by which rule."""

import keras

from training.config import TrainConfig
from unpooling import vgg19

__all__ = ["Linear", "make_optimizer"]


class Linear(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises from 0 to `first`, then falls to `last`, each time linearly.

    Args:
      first, last: the learning rates.
      steps: the number of steps, warming up included.
      warm_up: the number of steps of the rise.
    """

    def __init__(self, first: float, last: float, steps: int, warm_up: int = 0):
        super().__init__()
        self.first, self.last, self.steps, self.warm_up = first, last, steps, warm_up

    def __call__(self, step):
        """Returns the learning rate of a step, (), float32."""
        step = keras.ops.cast(step, "float32")
        rising = self.first * step / max(self.warm_up, 1)
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        falling = self.first + (self.last - self.first) * keras.ops.clip(done, 0.0, 1.0)
        return keras.ops.where(step < self.warm_up, rising, falling)


def make_optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    """Returns what changes a decoder's weights, in so many steps.

    That is Adam (D. Kingma and J. Ba, arXiv 1412.6980) with default parameters; or Muon (K. Jordan
    et al., https://kellerjordan.github.io/posts/muon) for all kernels but the last, which makes
    pixels. Its steps are scaled so that Adam's learning rates suit them (J. Liu et al., arXiv
    2502.16982). Adam with a memory of about 100 steps changes the rest.
    """
    rates = config.learning_rate, config.final_learning_rate
    learning_rate = Linear(*rates, steps, round(config.warm_up * steps))
    if config.optimizer == "adam":
        return keras.optimizers.Adam(learning_rate)
    last = vgg19.convolutions(config.layer, "decoder")[-1].name
    return keras.optimizers.Muon(
        learning_rate,
        adam_beta_2=0.99,
        adam_weight_decay=None,
        weight_decay=None,
        exclude_layers=[f"{last}_kernel$"],
    )
