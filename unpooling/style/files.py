"""The transfer from files to files: one photograph, several, or a folder."""

import contextlib
import datetime
import functools
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from unpooling import pictures
from unpooling.errors import UserError, one_line
from unpooling.options import METHODS, SMOOTHINGS
from unpooling.style import reduction
from unpooling.style.pairs import load_modules, load_pairs
from unpooling.style.style import Style, check_weights
from unpooling.style.transfer import check_options, transfer

__all__ = ["match_labels", "stylize"]

Paths = str | os.PathLike | Sequence[str | os.PathLike]

_SAVED = ".npz"  # what a saved style's name ends in
_REFUSED = (UserError, MemoryError, tf.errors.ResourceExhaustedError)


def stylize(
    content: Paths,
    style: Paths,
    output: str | os.PathLike | None = None,
    *,
    style_weights: Sequence[float] | None = None,
    save_style: str | os.PathLike | None = None,
    content_mask: Paths | None = None,
    style_mask: Paths | None = None,
    strength: float | Sequence[float] = 1.0,
    method: str = METHODS[0],
    smoothing: str = SMOOTHINGS[0],
    depth: int = 3,
    fast: bool = False,
    weights: str = "imagenet",
    decoders: str | os.PathLike = "pretrained",
    modules: str | os.PathLike | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
    remark: Callable[[str], None] = warnings.warn,
    progress: Callable[[float], None] = lambda part: None,
) -> list[str]:
    """Gives photographs the colours and the light of others, from files to files.

    What is written has the size of the content and its transparency. The numbers of the pixels are
    used as they are, whatever the profiles of content and style; the content's profile is written.

    Args:
      content: the photographs to change: files, or folders of them. None: the style is saved.
      style: the photographs to learn from; or what `save_style` wrote, .npz.
      output: for one file, the file to write, .png, .jpg or .webp, or a folder; for several, a
        folder. In a folder, a picture has the name of its content.
      style_weights: of several styles, one for each, at least 0.
      save_style: the .npz to keep the style in.
      content_mask: for each content a picture of labels, see `pictures.read_mask`, or "" for none;
        or a folder with NAME.png for each. What has label 0 is left as it is.
      style_mask: for each style picture likewise. If there is none, the whole style is for all
        labels of the contents.
      strength: from 0 to 1; or one for each level, block1 first.
      method: one of `METHODS`.
      smoothing: one of `SMOOTHINGS`.
      depth: how many levels there are, 1 to 5.
      fast: whether to work at about one megapixel and carry the result to the full size.
      weights: see `load_pairs`.
      decoders: see `load_pairs`.
      modules: take the pairs from here instead, see `load_modules`.
      overwrite: whether to replace what is there.
      say: is called with a line for each picture that is written.
      remark: is called with a line for each picture that is not, and for what is to be noted.
      progress: is called with what part of all the work is done, up to 1. It may raise to stop.

    Returns:
      The contents that failed. Each of them has been remarked upon.

    Raises:
      UserError: if nothing can be done at all: the arguments do not fit together, a style cannot
        be read, or the pairs are not to be had.
    """
    contents, styles = _listed(content), _listed(style)
    output = None if output is None else os.fspath(output)
    if not styles:
        raise UserError("there is no style: pass a picture, or a style that was saved.")
    if bool(contents) != (output is not None) or not (contents or save_style):
        raise UserError("pass a content and where to write it, or where to save the style.")
    style_masks = _masks(style_mask, styles, "style")
    for path, mask in zip(styles, style_masks, strict=True):
        if _is_saved(path) and mask:
            raise UserError(f"{one_line(path)} knows its labels: a style mask is for a picture.")
    if len(styles) > 1 or style_weights:
        check_weights(style_weights, len(styles))
    check_options(depth, strength, method, smoothing)
    failed = []

    def note_on(path, line):
        remark(_naming(path, line))

    def fail(path, reason):
        reason = reason if isinstance(reason, UserError) else "out of memory"
        note_on(path, reason)
        failed.append(path)

    inputs = [*contents, *styles, *filter(None, style_masks)]
    found = _expanded(contents, output, remark)
    content_masks = _masks(content_mask, found, "content")
    inputs += [*found, *filter(None, content_masks)]
    if save_style is not None:
        if not _is_saved(os.fspath(save_style)):
            raise UserError(f"a style is saved as {_SAVED}. Received: {one_line(save_style)}.")
        _check_target(save_style, inputs, overwrite)
    jobs = []
    outputs = _outputs(found, output, found != contents or len(found) > 1, inputs) if found else []
    for path, target, mask in zip(found, outputs, content_masks, strict=True):
        try:
            size = pictures.read_size(path)
            _check_target(target, inputs, overwrite)
            pictures.check_size(target, *size)
        except UserError as error:
            fail(path, error)
        else:
            jobs.append((path, target, mask, _cost(size, fast)))
    if not jobs and save_style is None:
        return failed

    sizes = [(0, 0) if _is_saved(path) else pictures.read_size(path) for path in styles]
    costs = [_cost(size, fast) / 3 for size in sizes]  # It is encoded alone.
    total = sum(costs) + sum(cost for *_, cost in jobs)
    clock = _Clock(progress, total)
    if modules is None:
        pairs = load_pairs(depth, weights, decoders)
    else:
        pairs = load_modules(modules, depth)

    learnt = []
    for path, mask, cost in zip(styles, style_masks, costs, strict=True):
        if _is_saved(path):
            learnt.append(Style.load(path))
            continue
        picture = pictures.read_picture(path)
        labels = _labels(mask, remark)
        with clock.share(cost) as part:
            learnt.append(Style.learn(picture, pairs, labels, fast=fast, progress=part))
    known = Style.mix(learnt, style_weights) if len(learnt) > 1 or style_weights else learnt[0]
    known.check_pairs(pairs)  # It may have been saved; here it fails once, not for each picture.
    if save_style is not None:
        _make_folder(save_style)
        known.save(save_style)
        say(f"{one_line(save_style)}: the style is saved.")

    options = {"strength": strength, "method": method, "smoothing": smoothing, "fast": fast}
    for number, (path, target, mask, cost) in enumerate(jobs, 1):
        started = time.monotonic()
        try:
            with clock.share(cost) as part:
                note = functools.partial(note_on, path)
                _change(path, target, mask, known, pairs, remark=note, progress=part, **options)
        except _REFUSED as error:
            fail(path, error)
            continue
        state = f"{number} of {len(jobs)}, {time.monotonic() - started:.0f} s"
        state += f", {clock.left()} left" if number < len(jobs) else ""
        say(f"{one_line(path)} -> {one_line(target)} ({state})")
    return failed


def _change(path, target, mask, style, pairs, remark, **options):
    """The transfer from one file to another."""
    photograph = pictures.read_photograph(path)
    pictures.check_photograph(target, photograph)
    labels = match_labels(_labels(mask, remark), photograph.pixels.shape[:2], style)
    pixels = transfer(
        photograph.pixels, style, pairs, content_mask=labels, remark=remark, **options
    )
    _make_folder(target)
    changed = pictures.Photograph(pixels, photograph.alpha, photograph.profile)
    pictures.write_photograph(target, changed)


def match_labels(
    labels: np.ndarray | None, shape: tuple[int, int], style: Style
) -> np.ndarray | None:
    """Returns the labels of a content as they go with a style.

    A style without a mask is for all labels but 0. A content without a mask takes the label of a
    style whose mask has only one.

    Args:
      labels: (H, W), uint8, or None.
      shape: (H, W) of the content.
      style: the style.
    """
    if labels is None:
        return np.full(shape, style.labels[0], np.uint8) if len(style.labels) == 1 else None
    return labels if style.has_mask else np.minimum(labels, 1)


def _listed(paths):
    if paths is None:
        return []
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    return [os.fspath(path) for path in paths]


def _is_saved(path):
    return path.lower().endswith(_SAVED)


def _expanded(contents, output, remark):
    """The pictures among files and folders."""
    found = []
    for path in contents:
        if not os.path.isdir(path):
            found.append(path)
            continue
        if os.path.isdir(output) and os.path.samefile(path, output):
            raise UserError(f"{one_line(path)} is the folder of the contents: write into another.")
        names = sorted(name for name in os.listdir(path) if not name.startswith("."))
        files = [name for name in names if os.path.isfile(os.path.join(path, name))]
        known = [f for f in files if os.path.splitext(f)[1].lower() in pictures.EXTENSIONS]
        if not known:
            raise UserError(f"{one_line(path)} holds no pictures.")
        if others := sorted(set(files) - set(known)):
            shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            remark(f"{one_line(path)}: passed over {len(others)} other files ({one_line(shown)}).")
        found += [os.path.join(path, name) for name in known]
    return found


def _masks(given, paths, name):
    """The mask of each picture, "" for none."""
    given = _listed(given)
    if not given:
        return [""] * len(paths)
    if len(given) == 1 and os.path.isdir(given[0]):
        stems = (os.path.splitext(os.path.basename(path))[0] for path in paths)
        return [os.path.join(given[0], f"{stem}.png") for stem in stems]
    if len(given) != len(paths):
        raise UserError(
            f"pass one {name} mask for each of {len(paths)} pictures, or a folder of them. "
            f"Received: {len(given)}."
        )
    return given


def _labels(path, remark):
    if not path:
        return None
    if os.path.splitext(path)[1].lower() in (".jpg", ".jpeg", ".jpe", ".jfif"):
        remark(f"mask {path}: JPEG changes labels along their edges; keep masks as PNG.")
    return pictures.read_mask(path)


def _naming(path, reason):
    """A line about a picture, which names it once."""
    line, name = one_line(reason), one_line(path)
    return line if name in line else f"{name}: {line}"


def _outputs(paths, output, several, inputs):
    """The file to write for each path: no two are the same, and in a folder none is an input."""
    folder = os.path.isdir(output) or output.endswith("/")
    if not (several or folder):
        pictures.check_format(output)
        return [output]
    is_file = os.path.exists(output) or os.path.splitext(output)[1].lower() in pictures.FORMATS
    if is_file and not folder:
        raise UserError(f"several pictures need a folder to write to. Received: {output}.")
    taken = {_identity(path) for path in inputs}
    outputs = []
    for path in paths:
        stem, extension = os.path.splitext(os.path.basename(path))
        extension = extension if extension.lower() in pictures.FORMATS else ".png"
        number, target = 1, os.path.join(output, stem + extension)
        while _identity(target) in taken:
            number += 1
            target = os.path.join(output, f"{stem}-{number}{extension}")
        taken.add(_identity(target))
        outputs.append(target)
    return outputs


def _identity(path):
    """The same for two spellings of a path, also where capitals make no difference."""
    return os.path.realpath(path).casefold()


def _check_target(path, inputs, overwrite):
    if not os.path.lexists(path):
        folder = os.path.dirname(os.path.abspath(path))
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        if not os.path.isdir(folder):
            raise UserError(f"{one_line(folder)} is not a folder: choose another output.")
        if not os.access(folder, os.W_OK):
            raise UserError(f"{one_line(folder)} may not be written to: choose another output.")
        return
    if os.path.isdir(path):
        raise UserError(f"{one_line(path)} is a folder: choose another name.")
    for source in inputs:
        if os.path.exists(source) and os.path.exists(path) and os.path.samefile(source, path):
            raise UserError(f"{one_line(path)} is an input: choose another name.")
    if not overwrite:
        raise UserError(f"{one_line(path)} is there already: pass --overwrite to replace it.")


def _make_folder(path):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)


def _cost(size, fast):
    return math.prod(size) / (reduction.factor(size) ** 2 if fast else 1)


class _Clock:
    """Tells what part of all the work is done, and how long the rest will take."""

    def __init__(self, progress, total):
        self._progress, self._total = progress, total
        self._done, self._started = 0.0, time.monotonic()

    @contextlib.contextmanager
    def share(self, cost):
        """Yields what to call with the part that is done of work that costs so much."""
        try:
            yield lambda part: self._progress((self._done + part * cost) / self._total)
        finally:
            self._done += cost

    def left(self):
        seconds = (time.monotonic() - self._started) * (self._total / self._done - 1)
        return datetime.timedelta(seconds=round(seconds))
