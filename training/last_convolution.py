"""The convolution that makes pixels, faster than as one of TensorFlow's."""

import tensorflow as tf

__all__ = ["convolve_to_pixels"]

_OFFSETS = [(y, x) for y in range(3) for x in range(3)]


def convolve_to_pixels(values: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Returns what `convolutions.convolve` returns without ReLU, and has its gradients.

    TensorFlow's libraries fill up three channels to as many as a vector of the processor holds.
    Here, one product of matrices makes all nine taps of every pixel, which are then added up.

    Args:
      values: (B, H, W, in), any floating dtype.
      kernel, bias: (3, 3, in, out) and (out,), any floating dtype; `out` a few.

    Returns:
      (B, H, W, out), dtype of `kernel`, in which the convolution is computed.
    """
    return tf.nn.bias_add(_convolve(tf.cast(values, kernel.dtype), kernel), bias)


@tf.custom_gradient
def _convolve(values, kernel):
    _, _, channels, out = kernel.shape
    matrix = tf.reshape(tf.transpose(kernel, [2, 0, 1, 3]), [channels, 9 * out])
    rows = tf.reshape(values, [-1, channels])
    batch, height, width, _ = tf.unstack(tf.shape(values))
    taps = tf.reshape(tf.matmul(rows, matrix), [batch, height, width, 9 * out])
    taps = _framed(taps)
    pixels = tf.add_n(
        [
            taps[:, y : y + height, x : x + width, number * out : (number + 1) * out]
            for number, (y, x) in enumerate(_OFFSETS)
        ]
    )

    def gradient(upstream):
        framed = _framed(upstream)
        taps = [framed[:, 2 - y :, 2 - x :][:, :height, :width] for y, x in _OFFSETS]
        taps = tf.reshape(tf.concat(taps, axis=-1), [-1, 9 * out])
        of_kernel = tf.reshape(tf.matmul(rows, taps, transpose_a=True), [channels, 3, 3, out])
        of_values = tf.reshape(tf.matmul(taps, matrix, transpose_b=True), tf.shape(values))
        return of_values, tf.transpose(of_kernel, [1, 2, 0, 3])

    return pixels, gradient


def _framed(maps):
    return tf.pad(maps, [[0, 0], [1, 1], [1, 1], [0, 0]])
