"""Pictures of any size in bounded memory: encoded and decoded tile by tile, with the same result.

A tile is computed with a margin around it, so that the cut does not reach what is kept. At the
border of the picture there is no margin: convolutions pad with zeros there, as without tiles. Tiles
start at multiples of 2^(K-1) pixels, where the windows of all poolings start.

The results equal those of the whole picture bit for bit where the convolution library computes both
shapes in the same order. Elsewhere float32 rounds differently, by about 1e-6 of the largest value,
and in a near-tie another of the four values in a window may win.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from unpooling import vgg19
from unpooling.decoder import Decoder
from unpooling.errors import UserError
from unpooling.padding import reflected

__all__ = ["Tile", "decode", "encode", "layer_of", "margin", "reconstruct", "tiles"]

_SIDE = 512  # pixels


@dataclasses.dataclass(frozen=True)
class Tile:
    """A part of a picture, as (top, bottom, left, right) in pixels.

    Attributes:
      inner: the part itself.
      outer: the part with its margin.
    """

    inner: tuple[int, int, int, int]
    outer: tuple[int, int, int, int]

    def cut(self, maps: np.ndarray, scale: int = 1) -> np.ndarray:
        """Returns the outer part of maps (B, H/scale, W/scale, C)."""
        top, bottom, left, right = (side // scale for side in self.outer)
        return maps[:, top:bottom, left:right]

    def inside(self, maps: np.ndarray, scale: int = 1) -> np.ndarray:
        """Returns the inner part of maps that cover the outer part."""
        top, bottom, left, right = (
            (side - start) // scale
            for side, start in zip(
                self.inner, (self.outer[0],) * 2 + (self.outer[2],) * 2, strict=True
            )
        )
        return maps[:, top:bottom, left:right]

    def place(self, scale: int = 1) -> tuple[slice, slice, slice]:
        """Returns where the inner part lies in maps (B, H/scale, W/scale, C)."""
        top, bottom, left, right = (side // scale for side in self.inner)
        return slice(None), slice(top, bottom), slice(left, right)


def margin(layer: str, encoded: bool = True, decoded: bool = True) -> int:
    """Returns how many pixels around a tile have to be computed with it.

    A convolution carries the effect of a cut one position further; a pooling halves its reach, an
    unpooling doubles it.

    Args:
      layer: one of `LAYERS`.
      encoded: whether the tile is encoded.
      decoded: whether it is decoded.

    Returns:
      A multiple of 2^(K-1).
    """
    reach = 0  # In positions of the current map.
    if encoded:
        for block in vgg19.blocks_up_to(layer):
            reach += len(block.convolutions)
            if block.pooled:
                reach = -(-reach // 2)
    if decoded:
        for block in vgg19.mirror(layer):
            reach = reach * (2 if block.unpooled else 1) + len(block.convolutions)
    else:
        reach *= vgg19.downsampling(layer)
    multiple = vgg19.downsampling(layer)
    return -(-reach // multiple) * multiple


def tiles(height: int, width: int, multiple: int, margin: int, side: int = _SIDE) -> Iterator[Tile]:
    """Yields the tiles of a picture, row by row.

    Args:
      height, width: of the picture, in pixels.
      multiple: what tiles start at multiples of: 2^(K-1).
      margin: see `margin`; a multiple of `multiple`.
      side: of a tile without its margin, in pixels; rounded up to a multiple. The last tile of a
        row or column may be smaller.

    Raises:
      ValueError: if `side` is less than 1.
    """
    if side < 1:
        raise ValueError(f"`side` must be at least 1. Received: {side}.")
    side = -(-side // multiple) * multiple
    for top, bottom in _spans(height, side, multiple):
        for left, right in _spans(width, side, multiple):
            outer = (
                max(top - margin, 0),
                min(bottom + margin, height),
                max(left - margin, 0),
                min(right + margin, width),
            )
            yield Tile((top, bottom, left, right), outer)


def _spans(length, side, multiple):
    """Cuts a length into parts; a last one that is too short for the poolings is not cut off."""
    starts = [start for start in range(0, length, side) if start == 0 or length - start >= multiple]
    return list(zip(starts, [*starts[1:], length], strict=True))


def encode(encoder: object, images: np.ndarray, side: int = _SIDE) -> list[np.ndarray]:
    """Encodes pictures tile by tile.

    Args:
      encoder: an `Encoder` or a loaded one.
      images: (B, H, W, 3), uint8 or float32, RGB, values in [0, 255].
      side: of a tile, in pixels.

    Returns:
      The list [features, block1_switches, ...], as `encoder.compact` returns it for the whole
      pictures; for block1 of the features alone.
    """
    layer = layer_of(encoder)
    blocks, multiple = vgg19.blocks_up_to(layer), vgg19.downsampling(layer)
    batch, height, width, _ = images.shape
    scales = [multiple, *(2**block.number for block in blocks[:-1])]
    channels = [blocks[-1].channels, *(block.channels for block in blocks[:-1])]
    dtypes = [np.float32, *[np.uint8] * (len(blocks) - 1)]
    outputs = [
        np.empty((batch, height // scale, width // scale, count), dtype)
        for scale, count, dtype in zip(scales, channels, dtypes, strict=True)
    ]
    for tile in tiles(height, width, multiple, margin(layer, decoded=False), side):
        parts = tf.nest.flatten(encoder.compact(_pixels(tile.cut(images))))
        for output, part, scale in zip(outputs, parts, scales, strict=True):
            output[tile.place(scale)] = tile.inside(part, scale)
    return outputs


def decode(decoder: object, inputs: Sequence[np.ndarray], side: int = _SIDE) -> np.ndarray:
    """Decodes features and switches tile by tile.

    Args:
      decoder: a `Decoder` or a loaded one.
      inputs: the list [features, block1_switches, ...], for block1 of the features alone.
      side: of a tile, in pixels.

    Returns:
      (B, H, W, 3), float32, RGB, as the decoder returns it for the whole.

    Raises:
      ValueError: if the inputs are too many or too few, or indices instead of switches.
    """
    layer = layer_of(decoder)
    multiple = vgg19.downsampling(layer)
    scales = [multiple, *(2**block.number for block in vgg19.pooled_blocks(layer))]
    if len(inputs) != len(scales) or any(array.ndim != 4 for array in inputs):
        raise UserError(
            "`inputs` must be features and switches, as `tiling.encode` or `encoder.compact` "
            f"returns them for {layer}. Received: shapes {[tuple(a.shape) for a in inputs]}."
        )
    batch, height, width = (
        n * f for n, f in zip(inputs[0].shape, (1, multiple, multiple), strict=False)
    )
    images = np.empty((batch, height, width, 3), np.float32)
    for tile in tiles(height, width, multiple, margin(layer, encoded=False), side):
        parts = [tile.cut(array, scale) for array, scale in zip(inputs, scales, strict=True)]
        images[tile.place()] = tile.inside(decoder(parts if len(parts) > 1 else parts[0]))
    return images


def reconstruct(
    encoder: object,
    decoder: object,
    images: np.ndarray,
    side: int = _SIDE,
    change: Callable[[tf.Tensor, Tile], tf.Tensor] | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Encodes pictures of any size and decodes them again, tile by tile.

    Only one tile's features and switches are in memory at a time. Pictures whose sides are not
    multiples of 2^(K-1) are padded by reflection and cropped.

    Args:
      encoder, decoder: a pair, as Python objects or loaded.
      images: (B, H, W, 3), uint8 or float32, RGB, values in [0, 255].
      side: of a tile, in pixels.
      change: takes the features of a tile's outer part, (B, h, w, C), and the tile, and returns
        those to decode, of the same shape; None to decode them as they are.
      out: (B, H, W, 3), where to write the result, not over `images`; uint8 rounds it and clips it
        to [0, 255].

    Returns:
      `out`, or a new array, float32.

    Raises:
      ValueError: if the decoder was trained for another encoder, or `out` is of another shape than
        `images` or shares its memory.
    """
    if out is not None and out.shape != images.shape:
        raise UserError(f"`out` must have the shape {images.shape}. Received: {out.shape}.")
    if out is not None and np.may_share_memory(out, images):
        raise UserError("`out` must not share memory with `images`, which tiles overlap.")
    layer = layer_of(encoder)
    if isinstance(decoder, Decoder):
        decoder.check_encoder(encoder)
    multiple = vgg19.downsampling(layer)
    batch, height, width, _ = images.shape
    out = np.empty((batch, height, width, 3), np.float32) if out is None else out
    rows, columns = (reflected(length, multiple) for length in (height, width))
    for tile in tiles(len(rows), len(columns), multiple, margin(layer), side):
        top, bottom, left, right = tile.outer
        pixels = images[:, rows[top:bottom]][:, :, columns[left:right]]
        features, *switches = tf.nest.flatten(encoder.compact(_pixels(pixels)))
        if change is not None:
            features = change(features, tile)
        decoded = tile.inside(decoder([features, *switches] if switches else features))
        target = out[tile.place()]  # Shorter than the tile at the lower and right border.
        decoded = decoded[:, : target.shape[1], : target.shape[2]]
        if out.dtype == np.uint8:
            decoded = tf.saturate_cast(tf.round(decoded), tf.uint8)
        target[...] = decoded
    return out


def layer_of(module: object) -> str:
    """Returns the layer of an `Encoder` or a `Decoder`, or of a loaded one."""
    if isinstance(getattr(module, "layer", None), str):
        return module.layer
    compact = module.signatures["compact"]
    names = {*compact.structured_outputs, *compact.structured_input_signature[1]}
    return vgg19.LAYERS[sum(name.endswith("_switches") for name in names)]


def _pixels(images):
    return tf.cast(images, tf.float32)
