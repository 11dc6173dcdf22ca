"""How fast a decoder learns, and by which rule."""

import keras

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

    def get_config(self):
        """Returns the arguments, as Keras asks for."""
        return {name: getattr(self, name) for name in ("first", "last", "steps", "warm_up")}


def make_optimizer(
    name: str, learning_rate: keras.optimizers.schedules.LearningRateSchedule, last: str
) -> keras.optimizers.Optimizer:
    """Returns what changes a decoder's weights.

    Args:
      name: "adam" for Adam (D. Kingma and J. Ba, arXiv 1412.6980) with default parameters; "muon"
        for Muon (K. Jordan et al., https://kellerjordan.github.io/posts/muon) for all kernels but
        the last, which makes pixels. Its steps are scaled so that Adam's learning rates suit them
        (J. Liu et al., arXiv 2502.16982). Adam with a memory of about 100 steps changes the rest.
      learning_rate: what it is at each step.
      last: the name of the convolution that makes pixels.
    """
    if name == "adam":
        return keras.optimizers.Adam(learning_rate)
    return keras.optimizers.Muon(
        learning_rate,
        adam_beta_2=0.99,
        adam_weight_decay=None,
        weight_decay=None,
        exclude_layers=[f"{last}_kernel$"],
    )
