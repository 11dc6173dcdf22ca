"""Photographs: finding them, holding some out, and making batches of them."""

import collections
import concurrent.futures
import contextlib
import hashlib
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from training import config
from training.console import say
from unpooling import pictures
from unpooling.errors import UserError, one_line

__all__ = [
    "HELD_OUT",
    "MOST_AHEAD",
    "SPLITS",
    "find_pictures",
    "of_split",
    "split_of",
    "split_pictures",
    "training_batches",
    "usable_splits",
    "validation_batches",
]

HELD_OUT = "held_out"  # validation and test: what no weight was learned from
SPLITS = ("all", *config.SPLITS, HELD_OUT)  # what can be asked for

MOST_AHEAD = 32  # crops that a training picture gives when it is read

# Folders that programs keep beside photographs, in small letters, and files that tell what made a
# folder: a training run, an artifact.
_FOLDERS = set(
    "@eadir #recycle #snapshot $recycle.bin __macosx lost+found thumbnails thumbs".split()
)
_MADE = {"run.json", "encoder.manifest.json", "decoder.manifest.json"}

_SHOWN = 3  # names of what is passed over, of each kind
_KEPT_BYTES = 2**29  # that the crops kept take, at most
_PROGRESS = 10_000  # photographs between two lines: about a minute


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

    def refuse(error):
        passed_over["unreadable folders"].append(error.filename)

    for directory, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        name, identity = os.path.basename(directory), os.stat(directory)[1:3]
        program_made = name.lower() in _FOLDERS or not _MADE.isdisjoint(names)
        left_out = directory != folder and (program_made or name.startswith("."))
        folders.sort()
        if left_out:
            passed_over["folders"].append(directory)
        if left_out or identity in visited:
            folders[:], names = [], []
        visited.add(identity)
        for name in names:
            extension = os.path.splitext(name)[1].lower()
            kind = "hidden" if name.startswith(".") else extension or "without extension"
            found = paths if kind in pictures.EXTENSIONS else passed_over[kind]
            found.append(os.path.join(directory, name))
    if passed_over:
        kinds = []
        for kind, found in sorted(passed_over.items()):
            names = [one_line(os.path.relpath(path, folder)) for path in sorted(found)]
            names[_SHOWN:] = ["..."] if len(names) > _SHOWN else []
            kinds.append(f"{len(found)} {kind} ({', '.join(names)})")
        say(f"passed over: {'; '.join(kinds)}")
    if not paths:
        known = ", ".join(pictures.EXTENSIONS)
        raise UserError(f"--photos must hold pictures ({known}). Received: {folder} with none.")
    return sorted(paths)


def split_of(key: str) -> str:
    """Returns the split of a picture with such a key, one of `config.SPLITS`.

    It depends on the key's SHA-256 alone: 90 % are for training, 9 % for validation, 1 % for the
    test.
    """
    fraction = int.from_bytes(hashlib.sha256(os.fsencode(key)).digest()[:8], "big") / 2**64
    return "train" if fraction < 0.90 else "validation" if fraction < 0.99 else "test"


def split_pictures(paths: Sequence[str], folder: str) -> dict[str, list[str]]:
    """Returns the paths of each split, sorted.

    A picture's split is that of its file name, wherever the file lies; of several with one name
    that holds for the first, by depth and path, and the others have the split of their path below
    the folder. So a picture that is added can change the split of one other, and only if that has
    the same name and comes after it.
    """
    splits, names = {split: [] for split in config.SPLITS}, set()
    for path in sorted(paths, key=lambda path: (path.count(os.sep), path)):
        name = os.path.basename(path)
        key = os.path.relpath(path, folder) if name in names else name
        names.add(name)
        splits[split_of(key)].append(path)
    return {split: sorted(found) for split, found in splits.items()}


def of_split(paths: Sequence[str], folder: str, split: str) -> list[str]:
    """Returns the paths of one of `SPLITS`, sorted; the rest as for `split_pictures`."""
    splits = {**split_pictures(paths, folder), "all": paths}
    splits[HELD_OUT] = splits["validation"] + splits["test"]
    return sorted(splits[split])


def usable_splits(folder: str) -> dict[str, list[str]]:
    """Returns the pictures of each split that can be read, having read each; names the others.

    Raises:
      UserError: as `find_pictures`, or if none is left for training or for validation.
    """
    paths, good = find_pictures(folder), set()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, found in enumerate(pool.map(_readable, paths), 1):
            good.update(found)
            if number % _PROGRESS == 0:
                say(f"read once: {number} of {len(paths)} photographs")
    if bad := sorted(set(paths) - good):
        names = ", ".join(one_line(os.path.relpath(path, folder)) for path in bad)
        say(f"skipped {len(bad)} unreadable: {names}")
    splits = split_pictures(paths, folder)
    splits = {split: [path for path in splits[split] if path in good] for split in splits}
    counts = ", ".join(f"{len(found)} {split}" for split, found in splits.items())
    say(f"photographs: {counts}")
    for split in ("train", "validation"):
        if not splits[split]:
            raise UserError(
                f"--photos must hold more pictures that can be read: none falls to {split}, by "
                f"the hash of its name. Received: {folder} with {counts}."
            )
    return splits


def training_batches(
    paths: Sequence[str], crop: int, batch_size: int, seed: int, first_step: int = 0
) -> tf.data.Dataset:
    """Returns batches without end: every picture once, shuffled, then all again in another order.

    Each picture gives a random crop, flipped left to right or not. All of it depends on the seed
    alone, so a training that starts at `first_step` sees what it would have seen. A picture that
    is read also gives its crops for some of the next passes, which are kept, since reading takes
    much longer than cropping.

    Args:
      paths: the pictures, at least one.
      crop: side of the crop, in pixels. Smaller pictures are continued by reflection.
      batch_size: the number of pictures in a batch.
      seed: of the order, the crops and the flips.
      first_step: the number of batches left out at the start.

    Returns:
      Elements (batch_size, crop, crop, 3), float32, RGB, values in [0, 255].
    """

    kept = {}  # (index, turn): crop
    ahead = min(MOST_AHEAD, max(1, _KEPT_BYTES // (len(paths) * crop * crop * 3)))

    def load(index, number):
        turn = number // len(paths)
        part = kept.pop((index, turn), None)
        if part is None:
            picture = pictures.read_picture(paths[index])
            # Not all pictures are to be read again in the same pass.
            turns = range(turn, turn + ahead - (turn + index) % ahead)
            randoms = [np.random.default_rng([seed, index, later]) for later in turns]
            part, *others = (_part(picture, crop, random) for random in randoms)
            kept.update(zip(((index, later) for later in turns[1:]), others, strict=True))
        return part

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

    indices = np.arange(-(-len(paths) // batch_size) * batch_size)
    counts = tf.data.Dataset.from_tensor_slices(np.float32(indices < len(paths)))
    indices = tf.data.Dataset.from_tensor_slices((indices % len(paths),))
    images = _batches(
        indices, lambda index: _part(pictures.read_picture(paths[index]), crop), crop, batch_size
    )
    return _distributable(tf.data.Dataset.zip(images, counts.batch(batch_size)))


def _readable(path):
    """The path in a list, or an empty one."""
    with contextlib.suppress(UserError):
        return [path] if pictures.read_picture(path).size else []
    return []


def _part(picture, side, random=None):
    """A copy of a part, (side, side, 3): a random one, perhaps flipped, or the middle."""
    if min(picture.shape[:2]) < side:
        missing = [(0, max(0, side - length)) for length in picture.shape[:2]]
        picture = np.pad(picture, (*missing, (0, 0)), mode="reflect")
    spare = [length - side for length in picture.shape[:2]]
    top, left = (random.integers(n + 1) if random else n // 2 for n in spare)
    part = picture[top : top + side, left : left + side]
    return np.array(part[:, ::-1] if random and random.integers(2) else part, order="C")


def _batches(elements, load, crop, batch_size):
    """What `load` makes of the whole numbers in each element, in float32."""

    def read(*numbers):
        return tf.ensure_shape(tf.numpy_function(load, numbers, tf.uint8), (crop, crop, 3))

    crops = elements.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return crops.batch(batch_size, drop_remainder=True).map(lambda x: tf.cast(x, tf.float32))


def _distributable(batches):
    """Several workers share the batches out among them, not the files, which are one source."""
    sharing = tf.data.Options()
    sharing.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.prefetch(tf.data.AUTOTUNE).with_options(sharing)
