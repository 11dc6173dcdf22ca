"""Named sets of photographs, on which decoders are measured apart."""

import functools
import os
from collections.abc import Sequence

from PIL import Image
from skimage import data as scikit_image

from training import data
from unpooling.errors import UserError

__all__ = ["SCIKIT_IMAGE", "find_sets", "write_scikit_image"]

SCIKIT_IMAGE = "scikit-image"

# Those in colour that come with the package and are in the public domain.
_PHOTOGRAPHS = """
    astronaut chelsea coffee hubble_deep_field immunohistochemistry retina rocket
""".split()


def find_sets(texts: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
    """Finds the photographs of sets.

    If the folder of a set lies in that of another, its photographs are not also the other's, and
    their splits are those that they have in the outer folder. So the parts of a folder that was
    trained on can be measured apart.

    Args:
      texts: a set each, NAME=FOLDER or NAME=FOLDER:SPLIT, with one of
        `data.SPLITS`; without, "held_out".

    Returns:
      {name: (folder, its photographs, sorted)}, at least one photograph each.

    Raises:
      UserError: if a text is not of that form, two have a name or a folder in common, or a set
        would be empty.
    """
    asked = {}
    for text in texts:
        name, is_named, rest = text.partition("=")
        folder, has_split, split = rest.rpartition(":")
        if not has_split or split not in data.SPLITS:
            folder, split = rest, data.HELD_OUT
        if not (name and is_named and folder):
            raise UserError(
                f"--set must be NAME=FOLDER or NAME=FOLDER:SPLIT, the split one of "
                f"{', '.join(data.SPLITS)}. Received: {text}."
            )
        folder = os.path.abspath(folder)
        if name in (*asked, SCIKIT_IMAGE) or folder in (other for other, _ in asked.values()):
            raise UserError(f"--set: each needs a name and a folder of its own. Received: {text}.")
        asked[name] = folder, split
    folders = [folder for folder, _ in asked.values()]
    sets, pictures_in = {}, functools.cache(data.find_pictures)
    for name, (folder, split) in asked.items():
        outermost = min((f for f in folders if _is_in(folder, f)), key=len)
        inner = [f for f in folders if f != folder and _is_in(f, folder)]
        paths = data.of_split(pictures_in(outermost), outermost, split)
        paths = [p for p in paths if _is_in(p, folder) and not any(_is_in(p, f) for f in inner)]
        if not paths:
            raise UserError(f"--set={name}={folder}:{split} holds no photograph.")
        sets[name] = folder, paths
    return sets


def write_scikit_image(folder: str) -> list[str]:
    """Writes scikit-image's photographs into a folder, and returns their paths.

    These are a portrait, a cat, a cup, a rocket, galaxies, a tissue and an eye's retina.
    """
    paths = [os.path.join(folder, f"{name}.png") for name in _PHOTOGRAPHS]
    for name, path in zip(_PHOTOGRAPHS, paths, strict=True):
        Image.fromarray(getattr(scikit_image, name)()).save(path)
    return paths


def _is_in(path, folder):
    return os.path.commonpath([path, folder]) == folder
