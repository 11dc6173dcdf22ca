"""Small pictures for tests of training: smooth, coloured, with names that fall to given splits."""

import itertools
import pathlib

import numpy as np
from PIL import Image

from training import data

__all__ = ["picture", "write"]


def picture(number: int, height: int, width: int) -> np.ndarray:
    """Returns waves of colour, (H, W, 3), uint8."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[:height, :width][..., np.newaxis]
    phase, fy, fx = random.uniform(0, 6, (3, 3)) * [[1], [0.06], [0.06]]
    return np.uint8(127.5 + 120 * np.sin(phase + fy * y + fx * x))


def write(
    folder: pathlib.Path, height: int = 40, width: int = 56, **counts: int
) -> dict[str, list[str]]:
    """Writes so many pictures of each split as PNG files, and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for split, count in counts.items():
        names = (f"{number}.png" for number in itertools.count())
        names = itertools.islice((n for n in names if data.split_of(n) == split), count)
        paths[split] = [str(folder / name) for name in names]
        for path in paths[split]:
            Image.fromarray(picture(int(pathlib.Path(path).stem), height, width)).save(path)
    return paths
