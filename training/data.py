"""Photographs: finding them, holding some out, and making batches of them."""

import collections
import concurrent.futures
import hashlib
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from training import config, pictures
from training.console import say
from unpooling.errors import UserError, one_line

__all__ = [
    "find_pictures",
    "keys",
    "readable_pictures",
    "split_of",
    "split_pictures",
    "training_batches",
    "usable_splits",
    "validation_batches",
]

# Folders that programs keep beside photographs, and files that tell what made a folder: a training
# run, an artifact.
_FOLDERS = ("@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX")
_MADE = ("run.json", "encoder.manifest.json", "decoder.manifest.json")

_SHOWN = 3  # names of what is passed over, of each kind
_PROGRESS = 10_000  # photographs between two lines: about a minute

# Where a hash, taken as a fraction of its range, begins to belong to validation and to test.
_VALIDATION, _TEST = 0.90, 0.99


def find_pictures(folder: str) -> list[str]:
    """Returns the paths of all pictures in a folder and the folders in it, sorted.

    Links are followed, and each folder is visited once. Hidden files and folders, folders of
    thumbnails, training runs and artifacts are passed over, as is what is not a picture: a line
    counts and names them by kind.

    Raises:
      UserError: if there is no such folder, or no picture in it.
    """
    if not os.path.isdir(folder):
        raise UserError(f"--photos must be a folder with pictures. Received: {folder}.")
    paths, passed_over, visited = [], collections.defaultdict(list), set()
    for directory, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(directory)
        identity = status.st_dev, status.st_ino
        if identity in visited:
            folders.clear()
            continue
        visited.add(identity)
        if directory != folder and _is_left_out(os.path.basename(directory), names):
            folders.clear()
            passed_over["folders"].append(directory)
            continue
        folders.sort()
        for name in names:
            extension = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                passed_over["hidden"].append(os.path.join(directory, name))
            elif extension in pictures.EXTENSIONS:
                paths.append(os.path.join(directory, name))
            else:
                passed_over[extension or "without extension"].append(os.path.join(directory, name))
    if passed_over:
        kinds = (_count(kind, passed_over[kind], folder) for kind in sorted(passed_over))
        say(f"passed over: {'; '.join(kinds)}")
    if not paths:
        raise UserError(
            f"--photos must hold pictures ({', '.join(pictures.EXTENSIONS)}). Received: {folder}, "
            "which holds none."
        )
    return sorted(paths)


def keys(paths: Sequence[str], folder: str) -> list[str]:
    """Returns what the split of each picture depends on.

    It is the file's name, so that it stays when a picture is moved; for names that occur more than
    once, the path within the folder.
    """
    names = [os.path.basename(path) for path in paths]
    counts = collections.Counter(names)
    return [
        name if counts[name] == 1 else os.path.relpath(path, folder)
        for name, path in zip(names, paths, strict=True)
    ]


def split_of(key: str) -> str:
    """Returns the split of a picture with such a key, one of `config.SPLITS`.

    It depends on the key's SHA-256 alone, so it stays when pictures are added or removed: 90 % are
    for training, 9 % for validation, 1 % for the test.
    """
    fraction = int.from_bytes(hashlib.sha256(os.fsencode(key)).digest()[:8], "big") / 2**64
    if fraction < _VALIDATION:
        return "train"
    return "validation" if fraction < _TEST else "test"


def split_pictures(paths: Sequence[str], folder: str) -> dict[str, list[str]]:
    """Returns the paths of each split, in the order in which they came."""
    splits = {split: [] for split in config.SPLITS}
    for path, key in zip(paths, keys(paths, folder), strict=True):
        splits[split_of(key)].append(path)
    return splits


def readable_pictures(folder: str) -> list[str]:
    """Returns the pictures of a folder that can be read, having read each; names the others.

    Raises:
      UserError: as `find_pictures`, or if none can be read.
    """
    paths, good = find_pictures(folder), []
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for fine in pool.map(_is_readable, paths):
            good.append(fine)
            if len(good) % _PROGRESS == 0:
                say(f"read once: {len(good)} of {len(paths)} photographs")
    bad = [path for path, fine in zip(paths, good, strict=True) if not fine]
    if bad:
        names = ", ".join(one_line(os.path.relpath(path, folder)) for path in bad)
        say(f"skipped {len(bad)} unreadable: {names}")
    if len(bad) == len(paths):
        raise UserError(
            f"--photos must hold pictures that can be read. Received: {folder} with {len(bad)} "
            "that cannot."
        )
    return [path for path, fine in zip(paths, good, strict=True) if fine]


def usable_splits(folder: str) -> dict[str, list[str]]:
    """Returns the `readable_pictures` of a folder by split.

    Raises:
      UserError: as that; and if there is no picture for training or for validation.
    """
    splits = split_pictures(readable_pictures(folder), folder)
    counts = ", ".join(f"{len(paths)} {split}" for split, paths in splits.items())
    say(f"photographs: {counts}")
    for split in ("train", "validation"):
        if not splits[split]:
            raise UserError(
                f"--photos must hold more pictures: none falls to {split}, by the hash of its "
                f"name. Received: {folder} with {counts}."
            )
    return splits


def training_batches(
    paths: Sequence[str], crop: int, batch_size: int, seed: int, first_step: int = 0
) -> tf.data.Dataset:
    """Returns batches without end: every picture once, shuffled, then all again in another order.

    Each picture gives a random crop, flipped left to right or not. All of it depends on the seed
    alone, so a training that starts at `first_step` sees what it would have seen.

    Args:
      paths: the pictures, at least one.
      crop: side of the crop, in pixels. Smaller pictures are continued by reflection.
      batch_size: the number of pictures in a batch.
      seed: of the order, the crops and the flips.
      first_step: the number of batches left out at the start.

    Returns:
      Elements (batch_size, crop, crop, 3), float32, RGB, values in [0, 255].
    """

    def load(index, number):
        random = np.random.default_rng([seed, number])
        picture = _at_least(pictures.read_picture(paths[index]), crop)
        top, left = (random.integers(side - crop + 1) for side in picture.shape[:2])
        part = picture[top : top + crop, left : left + crop]
        return part[:, ::-1] if random.integers(2) else part

    order = tf.data.Dataset.range(len(paths))
    order = order.shuffle(len(paths), seed=seed, reshuffle_each_iteration=True).repeat()
    order = tf.data.Dataset.zip(order, tf.data.Dataset.counter()).skip(first_step * batch_size)
    return _distributable(_batches(order, load, crop, batch_size))


def validation_batches(paths: Sequence[str], crop: int, batch_size: int) -> tf.data.Dataset:
    """Returns the middle of each picture, once.

    Args:
      paths: the pictures, at least one.
      crop: side of the crop, in pixels, as for `training_batches`.
      batch_size: the number of pictures in a batch.

    Returns:
      Elements (images, counts): (batch_size, crop, crop, 3), float32, RGB, values in [0, 255],
      and (batch_size,), float32: 1 for each picture, 0 for what fills the last batch.
    """

    def load(index):
        picture = _at_least(pictures.read_picture(paths[index % len(paths)]), crop)
        top, left = ((side - crop) // 2 for side in picture.shape[:2])
        return picture[top : top + crop, left : left + crop]

    indices = np.arange(-(-len(paths) // batch_size) * batch_size)
    images = _batches(tf.data.Dataset.from_tensor_slices((indices,)), load, crop, batch_size)
    counts = tf.data.Dataset.from_tensor_slices(np.float32(indices < len(paths)))
    return _distributable(tf.data.Dataset.zip(images, counts.batch(batch_size)))


def _is_left_out(name, files):
    return name.startswith(".") or name in _FOLDERS or not set(files).isdisjoint(_MADE)


def _count(kind, paths, folder):
    """Such as "12 .heic (a.heic, b.heic, c.heic, ...)"."""
    names = [one_line(os.path.relpath(path, folder)) for path in sorted(paths)]
    more = ["..."] if len(names) > _SHOWN else []
    return f"{len(names)} {kind} ({', '.join(names[:_SHOWN] + more)})"


def _is_readable(path):
    try:
        return pictures.read_picture(path).size > 0
    except UserError:
        return False


def _at_least(picture, side):
    """Continues (H, W, 3) by reflection where a side is smaller than that."""
    height, width = (max(0, side - length) for length in picture.shape[:2])
    return np.pad(picture, ((0, height), (0, width), (0, 0)), mode="reflect")


def _batches(
    elements: tf.data.Dataset, load: Callable[..., np.ndarray], crop: int, batch_size: int
) -> tf.data.Dataset:
    """What `load` makes of the whole numbers in each element, in float32."""

    def crop_of(*numbers):
        part = tf.numpy_function(lambda *n: np.ascontiguousarray(load(*n)), numbers, tf.uint8)
        return tf.ensure_shape(part, (crop, crop, 3))

    crops = elements.map(crop_of, num_parallel_calls=tf.data.AUTOTUNE)
    return crops.batch(batch_size, drop_remainder=True).map(lambda x: tf.cast(x, tf.float32))


def _distributable(batches):
    """Several workers share the batches out among them, not the files, which are one source."""
    sharing = tf.data.Options()
    sharing.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.prefetch(tf.data.AUTOTUNE).with_options(sharing)
