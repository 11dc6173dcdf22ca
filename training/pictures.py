"""Reading pictures: the one place that turns a file into pixels."""

import os

import numpy as np
from PIL import Image, ImageOps

from unpooling.errors import UserError, one_line

__all__ = ["EXTENSIONS", "read_picture"]

# Of the formats that Pillow reads, those of photographs.
EXTENSIONS = tuple(
    ".avif .bmp .dib .gif .jfif .jp2 .jpe .jpeg .jpg .mpo .pbm .pgm .png .pnm .ppm .tif .tiff "
    ".webp".split()
)


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """Returns the pixels of a picture, as Pillow reads them and as viewers show them.

    The orientation that a camera noted in EXIF is applied. Every other mode is converted to RGB:
    16-bit values keep their upper 8 bits, transparency is dropped without blending. Of an
    animation it is the first frame.

    Args:
      path: the file, in any format that Pillow reads.

    Returns:
      (H, W, 3), uint8, RGB.

    Raises:
      UserError: if the file cannot be read, or holds floating-point values, whose range is unknown.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            image.info.pop("transparency", None)  # Pillow would warn that it is dropped.
            if image.mode == "F":
                raise ValueError("it holds floating-point values")
            if image.mode.startswith("I"):  # Pillow would clip 16 bits to 8.
                pixels = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255)
                image = Image.fromarray(pixels.astype(np.uint8))
            return np.array(image.convert("RGB"))
    except Exception as error:  # Pillow raises nearly everything when a file is damaged.
        reason = one_line(error) or type(error).__name__
        raise UserError(f"picture {one_line(path)}: it cannot be read ({reason}).") from error
