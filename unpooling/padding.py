"""Pictures whose sides the poolings do not halve evenly: padded before, cropped after.

An encoder with K - 1 poolings drops what does not fill a window, so that a decoder could not give
it back. Only sides that are multiples of 2^(K-1) come through whole.
"""

import numpy as np
import tensorflow as tf

__all__ = ["crop", "cut", "pad_by_reflection", "reflected"]


def pad_by_reflection(images: tf.Tensor, multiple: int) -> tf.Tensor:
    """Extends pictures below and to the right until their sides are multiples.

    Args:
      images: (B, H, W, C), any dtype, H and W at least 1.
      multiple: 2^(K-1), for `blockK_conv2`: 16 for block5; `vgg19.downsampling` knows it.

    Returns:
      (B, H', W', C), dtype of `images`, H' and W' the next multiples: each row and column beyond
      the border is the one as far inside it, the border itself not repeated, as in `numpy.pad`'s
      mode "reflect"; also for pictures smaller than what is added. `crop` undoes it.

    Raises:
      ValueError: if `multiple` is less than 1.
    """
    if multiple < 1:
        raise ValueError(f"`multiple` must be at least 1. Received: {multiple}.")
    images = tf.convert_to_tensor(images)
    for axis in (1, 2):
        side = tf.shape(images)[axis]
        place = tf.range(-(-side // multiple) * multiple)
        period = tf.maximum(2 * (side - 1), 1)  # There and back; a single row stays where it is.
        place = place % period
        images = tf.gather(images, tf.minimum(place, period - place), axis=axis)
    return images


def reflected(length: int, multiple: int) -> np.ndarray:
    """Returns which row or column `pad_by_reflection` puts where, (the next multiple,), int64."""
    place = np.arange(-(-length // multiple) * multiple) % max(2 * (length - 1), 1)
    return np.minimum(place, 2 * (length - 1) - place) if length > 1 else place


def cut(picture: tf.Tensor, multiple: int) -> tf.Tensor:
    """Returns a picture without what lies below and to the right of the last whole multiple.

    Args:
      picture: (H, W, C), any dtype; an array comes back as an array.
      multiple: as for `pad_by_reflection`.

    Returns:
      (H', W', C), H' and W' the multiples before, 0 for sides that are less than one.
    """
    height, width = (side // multiple * multiple for side in picture.shape[:2])
    return picture[:height, :width]


def crop(padded: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Removes from decoded pictures what `pad_by_reflection` added.

    Args:
      padded: (B, H', W', C'), as large as what `pad_by_reflection` returned.
      images: (B, H, W, C), the pictures as they were before.

    Returns:
      (B, H, W, C').
    """
    _, height, width, _ = tf.unstack(tf.shape(images))
    return padded[:, :height, :width]
