"""What an encoder and a decoder share: their convolution, and their variables in order."""

from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from unpooling.vgg19 import Convolution

__all__ = ["Convolutions", "convolve"]


def convolve(values: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, relu: bool = True) -> tf.Tensor:
    """Returns a convolution of stride 1 with zero padding, plus its bias.

    Args:
      values: (B, H, W, in), any floating dtype.
      kernel, bias: (3, 3, in, out) and (out,), any floating dtype.
      relu: whether a ReLU follows.

    Returns:
      (B, H, W, out), dtype of `kernel`, in which the convolution is computed.
    """
    values = tf.nn.conv2d(tf.cast(values, kernel.dtype), kernel, strides=1, padding="SAME")
    values = tf.nn.bias_add(values, bias)
    return tf.nn.relu(values) if relu else values


class Convolutions(tf.Module):
    """A row of convolutions with their variables in the order of the layers.

    Attributes:
      layer: one of `vgg19.LAYERS`.
      weights: for each convolution its (kernel, bias), float32 variables.
    """

    def __init__(
        self,
        name: str,
        layer: str,
        convolutions: Iterable[Convolution],
        weights: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ):
        """Makes the variables.

        Args:
          name: the name of the module.
          layer: one of `vgg19.LAYERS`.
          convolutions: which convolutions, in order.
          weights: for each of them its (kernel, bias): float32, (3, 3, in, out) and (out,).
        """
        super().__init__(name=name)
        self.layer = layer
        self.weights = {
            convolution.name: tuple(
                tf.Variable(array, name=f"{convolution.name}/{part}", dtype=tf.float32)
                for part, array in zip(("kernel", "bias"), weights[convolution.name], strict=True)
            )
            for convolution in convolutions
        }

    # tf.Module would sort them by name.

    @property
    def variables(self) -> tuple[tf.Variable, ...]:
        """Kernel and bias of each convolution, in the order of the layers."""
        return tuple(variable for pair in self.weights.values() for variable in pair)

    @property
    def trainable_variables(self) -> tuple[tf.Variable, ...]:
        """The same: all variables are trainable."""
        return self.variables
