"""The terms of the loss, each one number for each picture."""

from collections.abc import Sequence

import tensorflow as tf

__all__ = ["mean_squared", "terms"]


def terms(images: tf.Tensor, decoded: tf.Tensor, names: Sequence[str]) -> dict[str, tf.Tensor]:
    """Returns the terms that compare pixels.

    Args:
      images: (B, H, W, 3), float32, values in [0, 255]; for "ms_ssim", H and W at least 176.
      decoded: likewise, the reconstructions, not necessarily in that range.
      names: which of them: "l1", the mean absolute error; "l2", the mean squared error; "ms_ssim",
        1 - MS-SSIM (Z. Wang, E. Simoncelli and A. Bovik, "Multiscale structural similarity for
        image quality assessment", 2003). Other names are passed over.

    Returns:
      {name: (B,), float32}, at least 0.
    """
    found = {}
    if "l1" in names:
        found["l1"] = tf.reduce_mean(tf.abs(images - decoded), axis=(1, 2, 3))
    if "l2" in names:
        found["l2"] = mean_squared(images, decoded)
    if "ms_ssim" in names:
        similarity = tf.image.ssim_multiscale(images, _finite_gradient(decoded), max_val=255.0)
        found["ms_ssim"] = 1.0 - similarity
    return found


def mean_squared(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Returns the mean squared difference of each picture's values.

    Args:
      a, b: (B, H, W, C), any floating dtype.

    Returns:
      (B,), float32.
    """
    difference = tf.cast(a, tf.float32) - tf.cast(b, tf.float32)
    return tf.reduce_mean(tf.square(difference), axis=(1, 2, 3))


@tf.custom_gradient
def _finite_gradient(values):
    """The values as they are; of their gradient, 0 where it is not finite.

    MS-SSIM is a product of powers below 1. Where a factor is 0, as with reconstructions that have
    nothing in common with the picture yet, it is 0 all around, but its derived gradient is NaN.
    """

    def gradient(upstream):
        return tf.where(tf.math.is_finite(upstream), upstream, 0.0)

    return tf.identity(values), gradient
