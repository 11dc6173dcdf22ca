"""Picture files: the one place that turns a file into pixels, and pixels into a file.

It needs Pillow, which `import unpooling` does not.
"""

import contextlib
import dataclasses
import os
import stat

import numpy as np
from PIL import Image, ImageOps

from unpooling.errors import UserError, one_line

__all__ = [
    "EXTENSIONS",
    "FORMATS",
    "MOST_PIXELS",
    "Photograph",
    "check_format",
    "check_photograph",
    "check_size",
    "read_mask",
    "read_photograph",
    "read_picture",
    "read_size",
    "write_photograph",
]

# Of the formats that Pillow reads, those of photographs.
EXTENSIONS = tuple(
    ".avif .bmp .dib .gif .jfif .jp2 .jpe .jpeg .jpg .mpo .pbm .pgm .png .pnm .ppm .tif .tiff "
    ".webp".split()
)

# Those that are written, by extension.
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}

# Pixels along one side: what the format, or its library, can hold.
_LONGEST = {"PNG": 2**31 - 1, "JPEG": 65_500, "WEBP": 16_383}
_OPTIONS = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"lossless": True, "exact": True},  # With loss, it halves the colours' resolution.
}

# Pillow's own limit, beyond which it warns and soon refuses, is below what cameras stitch together.
# It is one for the whole process: files are read by several threads, opened and decoded.
MOST_PIXELS = Image.MAX_IMAGE_PIXELS = 10**9


@dataclasses.dataclass(frozen=True)
class Photograph:
    """What is kept of a picture's file.

    Attributes:
      pixels: (H, W, 3), uint8, RGB, upright.
      alpha: (H, W), uint8, 0 for transparent; None if the file has no transparency.
      profile: the ICC profile that says what colours the pixels mean; None if the file has none
        for RGB.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None


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
    return read_photograph(path).pixels


def read_photograph(path: str | os.PathLike) -> Photograph:
    """Returns the pixels of a picture as `read_picture` does, with transparency and profile.

    Raises:
      UserError: as `read_picture`.
    """
    with _opened(path) as image:
        tags = image.tag_v2 if image.format == "TIFF" else {}
        bits, negative = tags.get(258, [16])[0], tags.get(262) == 0
        key = _transparent_colour(image)
        ImageOps.exif_transpose(image, in_place=True)
        profile = image.info.get("icc_profile") or b""
        profile = profile if profile[16:20] == b"RGB " else None
        # Pillow would clip to 8 bits. Of a PPM, it scales what has more to 16.
        if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM"):
            values = np.asarray(image)
            grey = (values >> (bits - 8)).astype(np.uint8)
            grey = 255 - grey if negative else grey  # As Pillow does with 8 bits.
            alpha = None if key is None else np.where(values == key, 0, 255).astype(np.uint8)
            return Photograph(np.repeat(grey[..., np.newaxis], 3, axis=-1), alpha)
        if image.mode in ("I", "F"):
            kind = {"I": "32-bit or signed integers", "F": "floating-point values"}[image.mode]
            raise ValueError(f"it holds {kind}, whose range is unknown")
        alpha = None
        if image.has_transparency_data:
            if key is not None:
                image.info["transparency"] = key
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        image.info.pop("transparency", None)  # Pillow would warn that it is dropped.
        pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
        return Photograph(pixels, alpha, profile)


def _transparent_colour(image):
    """Returns what a file just opened says of transparent colours, for the values that are read.

    A PNG states its one transparent colour with its own bits, and Pillow leaves it so. Of 16 bits
    of grey all are read.
    """
    key = image.info.get("transparency")
    kind = image.tile[0].args if key is not None and image.format == "PNG" else None
    if kind in ("L;2", "L;4"):
        return key * {"L;2": 85, "L;4": 17}[kind]
    if kind == "RGB;16B":
        return tuple(value >> 8 for value in key)
    return key


def read_size(path: str | os.PathLike) -> tuple[int, int]:
    """Returns (height, width) of a picture from its header alone, before it is put upright.

    Raises:
      UserError: if the file is not a picture, or has more than `MOST_PIXELS` pixels.
    """
    with _opened(path) as image:
        return image.size[::-1]


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """Returns the labels of a mask.

    Args:
      path: a picture with one channel or a palette. Its shades of grey are the labels: black 0,
        white 255, of one bit, too. If the palette has colours, its numbers are the labels, unless
        the mask uses black and white alone.

    Returns:
      (H, W), uint8.

    Raises:
      UserError: if the file cannot be read, or has several channels or more than 8 bits.
    """
    with _opened(path) as image:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode not in ("1", "L", "P"):
            raise ValueError(
                f"a mask must be grey, with one channel of 8 bits, or have a palette, but it is "
                f"{image.mode}"
            )
        if image.mode != "P":
            return np.asarray(image.convert("L"))
        numbers = np.asarray(image)
        palette = np.zeros((256, 3), np.uint8)
        colours = np.reshape(image.getpalette(), (-1, 3))
        palette[: len(colours)] = colours
        used = set(map(tuple, palette[np.flatnonzero(image.histogram())].tolist()))
        # Among the colours of a palette for labels, such as that of Pascal VOC, some are grey.
        if np.all(palette == palette[:, :1]) or used <= {(0, 0, 0), (255, 255, 255)}:
            return palette[numbers, 0]
        return numbers


@contextlib.contextmanager
def _opened(path):
    """Yields a file as Pillow opens it; whatever is raised names the file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # Whoever opens a pipe waits for its other end.
            raise OSError("it is not a file")
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it has more than {MOST_PIXELS:,} pixels")
            yield image
    except Exception as error:  # Pillow raises nearly everything when a file is damaged.
        reason = one_line(error) or type(error).__name__
        raise UserError(f"picture {one_line(path)}: it cannot be read ({reason}).") from error


def check_format(path: str | os.PathLike) -> str:
    """Returns the format in which a picture of such a name is written, a value of `FORMATS`.

    Raises:
      UserError: if the name has another extension.
    """
    extension = os.path.splitext(path)[1].lower()
    if extension not in FORMATS:
        raise UserError(
            f"the name of a picture to write must end in {', '.join(FORMATS)}. "
            f"Received: {one_line(path)}."
        )
    return FORMATS[extension]


def check_size(path: str | os.PathLike, height: int, width: int) -> None:
    """Checks that a picture of such a size can be written under such a name.

    Raises:
      UserError: if it cannot.
    """
    kind = check_format(path)
    if max(height, width) > _LONGEST[kind]:
        raise UserError(
            f"{one_line(path)}: {kind} holds at most {_LONGEST[kind]} pixels along a side, the "
            f"picture has {width}x{height}. Choose a name that ends in .png."
        )


def check_photograph(path: str | os.PathLike, photograph: Photograph) -> None:
    """Checks that a picture can be written under such a name.

    Raises:
      UserError: if the extension is none of `FORMATS`, the format cannot hold a picture of this
        size, or it is JPEG and the picture is transparent somewhere.
    """
    check_size(path, *photograph.pixels.shape[:2])
    transparent = photograph.alpha is not None and photograph.alpha.min() < 255
    if transparent and check_format(path) == "JPEG":
        raise UserError(
            f"{one_line(path)}: JPEG holds no transparency, and the picture is transparent. Choose "
            "a name that ends in .png or .webp."
        )


def write_photograph(path: str | os.PathLike, photograph: Photograph) -> None:
    """Writes a picture, whole or not at all: PNG, JPEG of quality 95 and 4:4:4, or lossless WebP.

    Args:
      path: the file, of whose extension the format follows. One that is there is replaced.
      photograph: the picture. Its profile and its transparency are written, too.

    Raises:
      UserError: as `check_photograph`.
      OSError: if the file cannot be written.
    """
    check_photograph(path, photograph)
    kind, pixels = check_format(path), photograph.pixels
    if photograph.alpha is not None and kind != "JPEG":
        pixels = np.concatenate([pixels, photograph.alpha[..., np.newaxis]], axis=-1)
    partial = f"{os.fspath(path)}.partial"
    try:
        Image.fromarray(pixels).save(
            partial, kind, icc_profile=photograph.profile, **_OPTIONS[kind]
        )
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            os.remove(partial)
