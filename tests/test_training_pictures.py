"""The reader of pictures: right values for every kind, written by hand and read back."""

import numpy as np
import pytest
from PIL import Image

from tests import photographs
from training import pictures
from training.pictures import read_picture
from unpooling.errors import UserError

PIXELS = photographs.picture(0, 20, 31)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.webp"])
def test_a_format_without_loss_gives_the_pixels_that_were_written(tmp_path, name):
    Image.fromarray(PIXELS).save(tmp_path / name, lossless=True)
    found = read_picture(tmp_path / name)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, PIXELS)


@pytest.mark.parametrize("name", ["a.jpg", "a.jfif", "a.mpo", "a.avif", "a.jp2"])
def test_a_format_with_loss_gives_nearly_those(tmp_path, name):
    y, x = np.mgrid[100:140, 60:108]
    smooth = np.stack([y, x, 250 - y], axis=-1).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / name, quality=95)
    np.testing.assert_allclose(read_picture(tmp_path / name), smooth, atol=6)


# Where the corner of the upright picture is in the stored one, as EXIF numbers it.
STORED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_the_orientation_of_exif_is_applied(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](PIXELS))
    Image.fromarray(stored).save(tmp_path / name, lossless=True, exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / name), PIXELS)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bit_grey_keeps_its_upper_8_bits(tmp_path, name):
    grey = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    grey[0, 1:4] = [0x00FF, 0x0100, 0xFFFE]
    Image.fromarray(grey).save(tmp_path / name)
    found = read_picture(tmp_path / name)
    assert found.shape == (16, 16, 3)
    np.testing.assert_array_equal(found, (grey >> 8)[..., np.newaxis].repeat(3, axis=-1))


def test_big_endian_too(tmp_path):
    # The header of a TIFF of one row, 2 pixels, 16 bits, and after it the pixels.
    tags = [(256, 2), (257, 1), (258, 16), (262, 1), (273, 122), (277, 1), (278, 1), (279, 4)]
    header = b"MM\0*\0\0\0\x08" + len(tags).to_bytes(2)
    for tag, value in tags:
        header += tag.to_bytes(2) + b"\0\x04\0\0\0\x01" + value.to_bytes(4)
    (tmp_path / "a.tif").write_bytes(header.ljust(122, b"\0") + b"\x12\x34\xfe\xdc")
    assert read_picture(tmp_path / "a.tif")[0, :, 0].tolist() == [0x12, 0xFE]


@pytest.mark.parametrize("name", ["a.bmp", "a.png", "a.gif", "a.tif"])
def test_a_palette_gives_its_colours(tmp_path, name):
    image = Image.new("P", (3, 1))
    image.putpalette([250, 10, 20, 30, 240, 50, 60, 70, 230])
    image.putdata([2, 0, 1])
    image.save(tmp_path / name, **({"transparency": b"\0\x80\xff"} if name == "a.png" else {}))
    assert read_picture(tmp_path / name)[0].tolist() == [
        [60, 70, 230],
        [250, 10, 20],
        [30, 240, 50],
    ]


def test_transparency_is_dropped_without_blending(tmp_path):
    alpha = np.arange(20 * 31, dtype=np.uint8).reshape(20, 31, 1)
    for name in ("a.png", "a.tif", "a.webp"):
        image = Image.fromarray(np.concatenate([PIXELS, alpha], axis=-1))
        image.save(tmp_path / name, lossless=True, exact=True)
        np.testing.assert_array_equal(read_picture(tmp_path / name), PIXELS)
    grey = PIXELS[..., :1]
    Image.fromarray(np.concatenate([grey, alpha], axis=-1)).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "grey.png"), grey.repeat(3, axis=-1))
    Image.fromarray(PIXELS).save(tmp_path / "key.png", transparency=tuple(map(int, PIXELS[0, 0])))
    np.testing.assert_array_equal(read_picture(tmp_path / "key.png"), PIXELS)


def test_a_cmyk_jpeg_has_the_colours_of_the_picture(tmp_path):
    smooth = np.zeros((32, 32, 3), np.uint8) + np.uint8([200, 120, 40])
    Image.fromarray(smooth).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.mode == "CMYK"
    np.testing.assert_allclose(read_picture(tmp_path / "a.jpg"), smooth, atol=3)


def test_of_an_animation_it_is_the_first_frame(tmp_path):
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 200)]
    for name in ("a.gif", "a.png", "a.webp", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert np.unique(read_picture(tmp_path / name)).tolist() == [10], name


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    Image.fromarray(PIXELS).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    for name in ("text.jpg", "empty.png", "folder.png", "cut.png", "float.tif", "missing.png"):
        with pytest.raises(UserError, match=f"picture .*{name}: it cannot be read"):
            read_picture(tmp_path / name)


def test_every_extension_is_of_a_format_that_pillow_reads():
    Image.init()
    known = Image.registered_extensions()
    assert all(known[e] in (*Image.OPEN, "MPO") for e in pictures.EXTENSIONS)
