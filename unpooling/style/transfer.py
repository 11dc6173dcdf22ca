"""The transfer: a picture in the colours and light of another, at any size.

From the deepest pair to that of block1, each level encodes the picture of the level before, gives
its features the style's mean and covariance by an affine map, and decodes them (Y. Li et al., "A
closed-form solution to photorealistic image stylization", arXiv 1802.06474).
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from unpooling import tiling
from unpooling.errors import UserError
from unpooling.options import SMOOTHINGS
from unpooling.style import passes, reduction, statistics, transforms
from unpooling.style import smoothing as filters
from unpooling.style.checks import check_choice, check_picture
from unpooling.style.masks import Mask, blended
from unpooling.style.progress import Progress
from unpooling.style.style import Style
from unpooling.style.tiles import cut

__all__ = ["SMOOTHINGS", "check_options", "transfer"]

_PASSES = 3  # over the content: it is encoded twice and decoded once


def transfer(
    content: np.ndarray,
    style: Style | np.ndarray,
    pairs: Sequence[tuple[object, object]],
    *,
    strength: float | Sequence[float] = 1.0,
    method: str = transforms.METHODS[0],
    smoothing: str = SMOOTHINGS[0],
    content_mask: np.ndarray | None = None,
    style_mask: np.ndarray | None = None,
    fast: bool = False,
    remark: Callable[[str], None] = warnings.warn,
    progress: Callable[[float], None] | None = None,
    side: int = 512,
) -> np.ndarray:
    """Returns the content in the colours and light of the style.

    Peak memory hardly depends on the size: pictures are encoded and decoded tile by tile, and
    between two levels a picture is kept in float16. The same arguments give the same bits.

    A picture without a mask has label 1 throughout. Each label of the content takes the statistics
    of the same label in the style. Label 0, and labels that the style does not have, stay exactly
    as they are. Labels pass softly into each other.

    Args:
      content: (H, W, 3), uint8, RGB, of any size.
      style: what `Style` has learnt, or a picture, (H', W', 3), uint8, RGB.
      pairs: an encoder and its decoder for each level, block1 first; see `load_pairs` and
        `load_modules`. Their number is the depth.
      strength: from 0, which gives the plain reconstruction, to 1; one for all levels, or one for
        each, block1 first.
      method: how features are mapped, one of `METHODS`; see `transforms.affine`.
      smoothing: "guided" for details from the content and colours from the stylised picture, see
        `smoothing`; "none" for what is decoded.
      content_mask: (H, W), labels from 0 to 255.
      style_mask: (H', W'), likewise; only with a picture as style.
      fast: whether to make the transfer on pictures reduced to about one megapixel, and to carry
        it to the content's size by the local affine maps of smoothing.
      remark: takes one line about labels other than 0 that stay as they are.
      progress: takes the part that is done, up to 1; what it raises ends the transfer.
      side: of a tile, in pixels.

    Returns:
      (H, W, 3), uint8, RGB.

    Raises:
      UserError: if an argument is none of those, or the style was learnt with other encoders.
    """
    check_picture(content, "content")
    strengths = check_options(len(pairs), strength, method, smoothing)
    mask = Mask(content_mask, content)
    if isinstance(style, Style) and style_mask is not None:
        raise UserError("`style_mask` belongs to a picture: a learnt style has its labels.")
    factor = reduction.factor(content.shape) if fast else 1
    start = 0.0
    progress = progress or (lambda part: None)
    if isinstance(style, Style):
        style.check_pairs(pairs)
    else:
        check_picture(style, "style")
        size = style.size / (reduction.factor(style.shape) ** 2 if fast else 1)
        start = size / (size + _PASSES * content.size / factor**2)
        style = Style.learn(
            style, pairs, style_mask, fast=fast, progress=lambda part: progress(start * part)
        )
    layers = [tiling.layer_of(encoder) for encoder, _ in pairs]
    _name_labels(mask, style, remark)
    mask = mask.only(style.labels)
    plain = smoothing == "none" and factor == 1
    picture = content if factor == 1 else reduction.reduced(content, factor)
    small, pixels = mask.reduced(factor), picture.size // 3
    done = Progress(lambda part: progress(start + (1 - start) * part), layers, _PASSES)
    for pair, layer, level in reversed(list(zip(pairs, layers, strengths, strict=True))):
        maps = {}
        if level:
            wanted = style.statistics[layer]
            found = statistics.measure(pair[0], picture, small, step=done.step(layer, pixels))
            maps = {
                label: transforms.affine(found[label], wanted[label], method, level)
                for label in found
            }
        step = done.step(layer, pixels, passes=2 if level else _PASSES)
        last = layer == layers[0]
        picture = passes.apply(
            pair, picture, small, maps, np.uint8 if last and plain else np.float16, side, step
        )
    if not plain:
        return filters.smoothed(content, picture, mask, factor)
    return blended(content, mask, lambda label, box, pixels: cut(picture, box))


def check_options(
    depth: int, strength: float | Sequence[float], method: str, smoothing: str
) -> list[float]:
    """Returns one strength for each level, once the options of `transfer` have been checked.

    Raises:
      UserError: if one of them does not fit.
    """
    check_choice("method", method, transforms.METHODS)
    check_choice("smoothing", smoothing, SMOOTHINGS)
    strengths = [strength] * depth if np.ndim(strength) == 0 else list(strength)
    if len(strengths) != depth or not all(0 <= level <= 1 for level in strengths):
        raise UserError(
            f"`strength` must be from 0 to 1, one for all or one for each of the {depth} levels, "
            f"block1 first. Received: {strength}."
        )
    return strengths


def _name_labels(mask, style, remark):
    alone = [label for label in mask.labels if label not in (0, *style.labels)]
    if alone:
        names = ", ".join(map(str, alone))
        remark(
            f"the content's label{'s' * (len(alone) > 1)} {names} stay{'s' * (len(alone) == 1)} as "
            f"in the content: the style has {', '.join(map(str, style.labels))}."
        )
