"""How fast a decoder learns, and by which rule."""

import keras
from keras import ops

from training.config import TrainConfig

__all__ = ["Linear", "Soap", "make_optimizer"]


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


class Soap(keras.optimizers.Optimizer):
    """SOAP: Adam in the eigenbases of the gradients' covariances.

    The method is by N. Vyas et al. (arXiv 2409.11321). What a convolution sees is strongly
    correlated, so the best steps are many times as large in some directions as in others. Adam
    scales each coordinate by itself, which helps most in a basis in which the coordinates are
    independent. Here, each axis of a kernel has such a basis; biases learn by Adam alone.

    Args:
      learning_rate: a number or a schedule.
      beta_1, beta_2: how much of the means of gradients and of their squares each step keeps.
      covariance_beta: likewise of the covariances.
      every: after how many steps the bases are turned, by one step of orthogonal iteration.
    """

    def __init__(
        self, learning_rate, beta_1=0.9, beta_2=0.99, covariance_beta=0.95, every=5, name="soap"
    ):
        super().__init__(learning_rate=learning_rate, name=name)
        self.beta_1, self.beta_2, self.every = beta_1, beta_2, every
        self.covariance_beta = covariance_beta

    def build(self, variables):
        """Makes the state for variables of any shapes."""
        if self.built:
            return
        super().build(variables)
        self._means, self._squares = self.add_optimizer_variables(variables, ["mean", "square"])
        self._axes = [
            [self._add_axis(n, f"{v.name}_{axis}") for axis, n in enumerate(v.shape) if v.ndim > 1]
            for v in variables
        ]

    def update_step(self, gradient, variable, learning_rate):
        """Changes a variable by its gradient."""
        index = self._get_variable_index(variable)
        mean, square, axes = self._means[index], self._squares[index], self._axes[index]
        step = ops.cast(self.iterations + 1, variable.dtype)
        rate = learning_rate * ops.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        bases = [ops.convert_to_tensor(basis) for _, basis in axes]
        self.assign(mean, self.beta_1 * mean + (1 - self.beta_1) * gradient)
        squared = ops.square(_turn(gradient, bases))
        self.assign(square, self.beta_2 * square + (1 - self.beta_2) * squared)
        change = _turn(ops.convert_to_tensor(mean), bases) / (ops.sqrt(square) + 1e-8)
        self.assign_sub(variable, rate * _turn(change, map(ops.transpose, bases)))
        for axis, (covariance, basis) in enumerate(axes):
            self._learn_basis(gradient, axis, covariance, basis)

    def _add_axis(self, size, name):
        """The covariance along an axis, and the basis to learn in."""
        covariance = self.add_variable((size, size), "zeros", name=f"{name}_covariance")
        return covariance, self.add_variable((size, size), "identity", name=f"{name}_basis")

    def _learn_basis(self, gradient, axis, covariance, basis):
        """Adds a gradient to the covariance, and at times turns the basis to its eigenvectors."""
        others = [n for n in range(gradient.ndim) if n != axis]
        new = ops.tensordot(gradient, gradient, axes=[others, others])
        kept = self.covariance_beta
        self.assign(covariance, kept * covariance + (1 - kept) * new)
        old = ops.convert_to_tensor(basis)
        turned = ops.cond(
            ops.equal(self.iterations % self.every, self.every - 1),
            lambda: ops.qr(ops.matmul(covariance, old))[0],
            lambda: old,
        )
        self.assign(basis, turned)


def _turn(tensor, bases):
    """A tensor in a new basis for each of its axes; without bases, as it is."""
    for basis in bases:
        tensor = ops.tensordot(tensor, basis, axes=[[0], [0]])  # The axis becomes the last one.
    return tensor


def make_optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    """Returns what changes a decoder's weights, in so many steps.

    That is Adam (D. Kingma and J. Ba, arXiv 1412.6980) with default parameters, or `Soap`.
    """
    rates = config.learning_rate, config.final_learning_rate
    learning_rate = Linear(*rates, steps, round(config.warm_up * steps))
    return {"adam": keras.optimizers.Adam, "soap": Soap}[config.optimizer](learning_rate)
