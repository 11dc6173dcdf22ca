"""How fast a decoder learns, and by which rule."""

import keras
from keras import ops

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
        step = ops.cast(step, "float32")
        rising = self.first * step / max(self.warm_up, 1)
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        falling = self.first + (self.last - self.first) * ops.clip(done, 0.0, 1.0)
        return ops.where(step < self.warm_up, rising, falling)


class Muon(keras.optimizers.Muon):
    """Keras' Muon with a cheaper Newton-Schulz iteration.

    Each step of it multiplies the matrix X by a polynomial in X X^T. Here the polynomials alone are
    iterated, on the small square matrix, and X is multiplied once: the same values but for
    rounding, in about a third of the time for the kernels here, which are long and narrow.
    """

    def zeropower_via_newtonschulz5(self, x, steps: int):
        """Returns a matrix with the singular vectors of x and singular values near 1.

        Args:
          x: (N, M), floating.
          steps: the number of iterations.

        Returns:
          (N, M), the same dtype.
        """
        if x.shape[0] > x.shape[1]:
            transposed = self.zeropower_via_newtonschulz5(ops.transpose(x), steps)
            return ops.transpose(transposed)
        x = x / (ops.norm(x) + 1e-7)
        square = ops.matmul(x, ops.transpose(x))
        identity = product = ops.eye(x.shape[0], dtype=x.dtype)
        for _ in range(steps):
            higher = self.muon_b * square + self.muon_c * ops.matmul(square, square)
            polynomial = self.muon_a * identity + higher
            product = ops.matmul(polynomial, product)
            square = ops.matmul(polynomial, ops.matmul(square, polynomial))
        return ops.matmul(product, x)


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
    return Muon(
        learning_rate,
        momentum=config.muon_momentum,
        adam_lr_ratio=config.adam_ratio,
        adam_beta_2=0.99,
        adam_weight_decay=None,
        weight_decay=None,
        exclude_layers=[f"{last}_kernel$"],
    )
