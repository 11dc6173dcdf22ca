"""Photographs: which there are, which are held out, and how they come as batches."""

import concurrent.futures
import hashlib
import os
from collections.abc import Sequence

import tensorflow as tf

from training import config
from unpooling import padding, text

__all__ = [
    "decode_picture",
    "find_pictures",
    "readable",
    "readable_pictures",
    "split_of",
    "split_pictures",
    "training_batches",
    "usable_splits",
    "validation_batches",
]

# What TensorFlow decodes.
_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")

# Photographs between two signs of life: about a minute.
_PROGRESS = 10_000

# Where a hash, taken as a fraction of its range, begins to belong to validation and to test.
_VALIDATION, _TEST = 0.90, 0.99


def find_pictures(folder: str) -> list[str]:
    """Returns the paths of all picture files in a folder and the folders in it, sorted.

    Raises:
      ValueError: if there is no such folder, or no picture in it.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"`photos` must be a folder with pictures. Received: {folder}.")
    paths = [
        os.path.join(directory, name)
        for directory, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(_EXTENSIONS)
    ]
    if not paths:
        raise ValueError(
            f"`photos` must hold pictures ({', '.join(_EXTENSIONS)}). Received: {folder}, which "
            "holds none."
        )
    return sorted(paths)


def split_of(path: str) -> str:
    """Returns the split of a picture, one of `config.SPLITS`.

    It depends on the name of the file alone, by its SHA-256, so it stays when pictures are added,
    removed or moved: 90 % are for training, 9 % for validation, 1 % for the test.
    """
    name = os.fsencode(os.path.basename(path))
    fraction = int.from_bytes(hashlib.sha256(name).digest()[:8], "big") / 2**64
    if fraction < _VALIDATION:
        return "train"
    return "validation" if fraction < _TEST else "test"


def split_pictures(paths: Sequence[str]) -> dict[str, list[str]]:
    """Returns the paths of each split, in the order in which they came."""
    splits = {split: [] for split in config.SPLITS}
    for path in paths:
        splits[split_of(path)].append(path)
    return splits


def decode_picture(path: tf.Tensor | str) -> tf.Tensor:
    """Returns a picture, (H, W, 3), uint8, RGB: without transparency, the first of an animation.

    Raises:
      tf.errors.OpError: if it cannot be read.
    """
    return tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)


def readable(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Decodes each picture once, and tells which can be read.

    Returns:
      The paths of those that can, and of those that cannot, in the order in which they came.
    """
    good = []
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for fine in pool.map(_is_readable, paths):
            good.append(fine)
            if len(good) % _PROGRESS == 0:
                print(f"decoded once: {len(good)} of {len(paths)} photographs", flush=True)
    return (
        [path for path, fine in zip(paths, good, strict=True) if fine],
        [path for path, fine in zip(paths, good, strict=True) if not fine],
    )


def readable_pictures(folder: str) -> list[str]:
    """Returns the pictures of a folder that can be read; counts and names the others.

    Raises:
      ValueError: if there is no such folder, or no picture in it that can be read.
    """
    good, bad = readable(find_pictures(folder))
    if bad:
        names = ", ".join(text.one_line(os.path.relpath(path, folder)) for path in bad)
        print(f"skipped {len(bad)} unreadable: {names}", flush=True)
    if not good:
        raise ValueError(
            f"`photos` must hold pictures that can be read. Received: {folder} with {len(bad)} "
            "that cannot."
        )
    return good


def usable_splits(folder: str) -> dict[str, list[str]]:
    """Returns the `readable_pictures` of a folder for each split.

    Raises:
      ValueError: as that; and if there is no picture for training or for validation.
    """
    splits = split_pictures(readable_pictures(folder))
    counts = ", ".join(f"{len(paths)} {split}" for split, paths in splits.items())
    print(f"photographs: {counts}", flush=True)
    for split in ("train", "validation"):
        if not splits[split]:
            raise ValueError(
                f"`photos` must hold more pictures: none falls to {split}, by the hash of its "
                f"name. Received: {folder} with {counts}."
            )
    return splits


def training_batches(
    paths: Sequence[str], crop: int, batch_size: int, seed: int, first_step: int = 0
) -> tf.data.Dataset:
    """Returns batches without end: every picture once, shuffled, then all again in another order.

    Of each picture a random part, flipped left to right or not. All of it depends on the seed
    alone, so that training which starts at `first_step` sees what it would have seen.

    Args:
      paths: the pictures, at least one.
      crop: side of the part, in pixels. Pictures that are smaller are continued by reflection.
      batch_size: how many pictures each batch has.
      seed: of the order, the parts and the flips.
      first_step: how many batches are left out at the start.

    Returns:
      Elements (batch_size, crop, crop, 3), float32, RGB, values in [0, 255].
    """

    def load(path, number):
        seeds = tf.random.split(tf.stack([tf.cast(seed, tf.int64), number]), 2)
        picture = _at_least(decode_picture(path), crop)
        picture = tf.image.stateless_random_crop(picture, (crop, crop, 3), seeds[0])
        picture = tf.image.stateless_random_flip_left_right(picture, seeds[1])
        return tf.cast(picture, tf.float32)

    order = tf.data.Dataset.from_tensor_slices(list(paths))
    order = order.shuffle(len(paths), seed=seed, reshuffle_each_iteration=True).repeat()
    order = tf.data.Dataset.zip(order, tf.data.Dataset.counter()).skip(first_step * batch_size)
    batches = order.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return _distributable(batches.batch(batch_size, drop_remainder=True))


def validation_batches(paths: Sequence[str], crop: int, batch_size: int) -> tf.data.Dataset:
    """Returns the middle of each picture, once.

    Args:
      paths: the pictures, at least one.
      crop: side of the part, in pixels, as for `training_batches`.
      batch_size: how many pictures each batch has.

    Returns:
      Elements (images, counts): (batch_size, crop, crop, 3), float32, RGB, values in [0, 255],
      and (batch_size,), float32: 1 for each picture, 0 for what fills the last batch.
    """

    def load(path, count):
        picture = _at_least(decode_picture(path), crop)
        top, left = ((tf.shape(picture)[axis] - crop) // 2 for axis in (0, 1))
        picture = tf.image.crop_to_bounding_box(picture, top, left, crop, crop)
        return tf.cast(picture, tf.float32), count

    missing = -len(paths) % batch_size
    paths = [*paths, *[paths[0]] * missing]
    counts = [1.0] * (len(paths) - missing) + [0.0] * missing
    pictures = tf.data.Dataset.from_tensor_slices((paths, counts))
    batches = pictures.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return _distributable(batches.batch(batch_size, drop_remainder=True))


def _is_readable(path):
    try:
        return min(decode_picture(path).shape) > 0
    except (tf.errors.OpError, ValueError):  # ValueError: a name that is not UTF-8.
        return False


def _at_least(picture, side):
    """Continues (H, W, 3) by reflection where a side is smaller than that."""
    height, width = tf.maximum(tf.shape(picture)[0], side), tf.maximum(tf.shape(picture)[1], side)
    padded = padding.pad_by_reflection(picture[tf.newaxis], side)[0, :height, :width]
    return tf.ensure_shape(padded, (None, None, 3))


def _distributable(batches):
    """Several workers share the batches out among them, not the files, which are one source."""
    sharing = tf.data.Options()
    sharing.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.prefetch(tf.data.AUTOTUNE).with_options(sharing)
