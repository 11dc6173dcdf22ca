"""Reading pictures: the one place that turns a file into pixels."""

import os

import numpy as np
from PIL import Image, ImageOps

from unpooling.errors import UserError, one_line

__all__ = ["EXTENSIONS", "MOST_PIXELS", "read_picture"]

# Of the formats that Pillow reads, those of photographs.
EXTENSIONS = tuple(
    ".avif .bmp .dib .gif .jfif .jp2 .jpe .jpeg .jpg .mpo .pbm .pgm .png .pnm .ppm .tif .tiff "
    ".webp".split()
)

# Pillow's own limit, beyond which it warns and soon refuses, is below what cameras stitch together.
# It is one for the whole process: files are read by several threads, opened and decoded.
MOST_PIXELS = Image.MAX_IMAGE_PIXELS = 10**9


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """Returns the pixels of a picture, as Pillow reads them and as viewers show them.

    The orientation that a camera noted in EXIF is applied. Every other mode is converted to RGB:
    of 12 and 16 bits the upper 8 are kept, transparency is dropped without blending. Of an
    animation it is the first frame.

    Args:
      path: the file, in any format that Pillow reads.

    Returns:
      (H, W, 3), uint8, RGB; not writable.

    Raises:
      UserError: if the file cannot be read, has more than `MOST_PIXELS` pixels, or holds 32-bit
        or signed integers or floating-point values, whose range is unknown.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it has more than {MOST_PIXELS:,} pixels")
            bits = image.tag_v2.get(258, [16])[0] if image.format == "TIFF" else 16
            ImageOps.exif_transpose(image, in_place=True)
            image.info.pop("transparency", None)  # Pillow would warn that it is dropped.
            # Pillow would clip to 8 bits. Of a PPM, it scales what has more to 16.
            if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM"):
                grey = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
                return np.repeat(grey[..., np.newaxis], 3, axis=-1)
            if image.mode in ("I", "F"):
                kind = {"I": "32-bit or signed integers", "F": "floating-point values"}[image.mode]
                raise ValueError(f"it holds {kind}, whose range is unknown")
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except Exception as error:  # Pillow raises nearly everything when a file is damaged.
        reason = one_line(error) or type(error).__name__
        raise UserError(f"picture {one_line(path)}: it cannot be read ({reason}).") from error
