"""Picture files: right values for every kind, written by hand and read back."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests import photographs
from unpooling import pictures
from unpooling.errors import UserError
from unpooling.pictures import read_picture

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
    assert sorted(pictures.read_size(tmp_path / name)) == sorted(PIXELS.shape[:2])


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bit_grey_keeps_its_upper_8_bits(tmp_path, name):
    grey = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    grey[0, 1:4] = [0x00FF, 0x0100, 0xFFFE]
    Image.fromarray(grey).save(tmp_path / name)
    found = read_picture(tmp_path / name)
    assert found.shape == (16, 16, 3)
    np.testing.assert_array_equal(found, (grey >> 8)[..., np.newaxis].repeat(3, axis=-1))


def tiff(path, bits, data, format=1, order="big", black=1):
    """A TIFF of two grey pixels in one row: its header, and after it the pixels."""
    tags = [(256, 2), (257, 1), (258, bits), (262, black), (273, 134), (277, 1), (278, 1)]
    tags += [(279, len(data)), (339, format)]
    header = (b"MM\0*" if order == "big" else b"II*\0") + (8).to_bytes(4, order)
    header += len(tags).to_bytes(2, order)
    for tag, value in tags:
        header += tag.to_bytes(2, order) + (4).to_bytes(2, order) + (1).to_bytes(4, order)
        header += value.to_bytes(4, order)
    path.write_bytes(header.ljust(134, b"\0") + data)
    return path


def test_big_endian_and_12_bits_keep_their_upper_8_bits_too(tmp_path):
    found = read_picture(tiff(tmp_path / "16.tif", 16, b"\x12\x34\xfe\xdc"))
    assert found[0, :, 0].tolist() == [0x12, 0xFE]
    found = read_picture(tiff(tmp_path / "12.tif", 12, b"\x12\x3f\xed", order="little"))
    assert found[0, :, 0].tolist() == [0x12, 0xFE]
    (tmp_path / "12.pgm").write_bytes(b"P5 2 1 4095 \x01\x23\x0f\xed")
    assert read_picture(tmp_path / "12.pgm")[0, :, 0].tolist() == [0x12, 0xFE]


@pytest.mark.parametrize("bits, data", [(8, b"\x12\xfe"), (16, b"\x34\x12\xdc\xfe")])
def test_a_tiff_in_which_0_is_white_is_no_negative(tmp_path, bits, data):
    path = tiff(tmp_path / "a.tif", bits, data, order="little", black=0)
    assert read_picture(path)[0].tolist() == [[0xED] * 3, [0x01] * 3]


@pytest.mark.parametrize("bits, format", [(32, 1), (32, 2), (16, 2)])
def test_integers_of_unknown_range_are_refused(tmp_path, bits, format):
    path = tiff(tmp_path / "a.tif", bits, bytes(bits // 4), format, "little")
    with pytest.raises(UserError, match=r"a.tif: .* \(it holds 32-bit or signed integers, whose"):
        read_picture(path)


@pytest.mark.filterwarnings("error")
def test_a_large_picture_is_read_without_a_warning_and_a_larger_one_refused(tmp_path, monkeypatch):
    assert pictures.MOST_PIXELS == Image.MAX_IMAGE_PIXELS == 10**9
    Image.new("1", (20_000, 10_000)).save(tmp_path / "large.png")
    with Image.open(tmp_path / "large.png") as image:  # Pillow's own limit would stop this.
        assert image.size == (20_000, 10_000)
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "MOST_PIXELS", PIXELS.size // 3)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), PIXELS)
    monkeypatch.setattr(pictures, "MOST_PIXELS", PIXELS.size // 3 - 1)
    with pytest.raises(UserError, match=r"a.png: it cannot be read \(it has more than 619 pixels"):
        read_picture(tmp_path / "a.png")


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


@pytest.mark.parametrize(
    ("mode", "options", "expected"),
    [
        ("RGB", {}, None),
        ("RGBA", {}, [50, 50]),
        ("LA", {}, [50, 50]),
        ("P", {"transparency": b"\x0a\x14"}, [10, 20]),
        ("RGB", {"transparency": (1, 1, 1)}, [255, 0]),
        ("L", {"transparency": 1}, [255, 0]),
    ],
)
def test_a_photographs_transparency_is_read_from_every_kind(tmp_path, mode, options, expected):
    image = Image.new(mode, (2, 1))
    if mode == "P":
        image.putpalette([7, 7, 7] * 10)
    image.putpixel((1, 0), 1 if mode in "LP" else (1,) * len(mode))
    if mode.endswith("A"):
        image.putalpha(50)
    image.save(tmp_path / "a.png", **options)
    found = pictures.read_photograph(tmp_path / "a.png")
    assert found.pixels.shape == (1, 2, 3)
    assert (None if found.alpha is None else found.alpha[0].tolist()) == expected


@pytest.mark.parametrize(
    ("bits", "kind", "key", "row", "pixels", "expected"),
    [
        (1, 0, [1], "40", [0, 255], [255, 0]),
        (2, 0, [2], "60", [85, 170], [255, 0]),
        (4, 0, [3], "03", [0, 51], [255, 0]),
        (8, 0, [3], "0203", [2, 3], [255, 0]),
        (16, 0, [0x1234], "12341235", [0x12, 0x12], [0, 255]),
        (16, 2, [0x1234] * 3, "1234" * 3 + "3412" * 3, [0x12, 0x34], [0, 255]),
    ],
)
def test_the_transparent_colour_of_a_png_has_the_bits_of_its_file(
    tmp_path, bits, kind, key, row, pixels, expected
):
    """Pillow writes neither few bits nor 16 of RGB, so the file is made by hand."""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 2, 1, bits, kind, 0, 0, 0),
        b"tRNS": struct.pack(f">{len(key)}H", *key),
        b"IDAT": zlib.compress(b"\0" + bytes.fromhex(row)),
        b"IEND": b"",
    }
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in chunks.items():
        checksum = zlib.crc32(name + content)
        data += struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
    (tmp_path / "a.png").write_bytes(data)
    found = pictures.read_photograph(tmp_path / "a.png")
    assert found.pixels[0, :, 0].tolist() == pixels
    assert found.alpha.dtype == np.uint8 and found.alpha[0].tolist() == expected


def test_only_a_profile_of_rgb_is_kept(tmp_path):
    profile = bytes(16) + b"RGB " + bytes(12)
    for mode, kept in (("RGB", profile), ("CMYK", None)):
        given = profile if kept else profile.replace(b"RGB ", b"CMYK")
        Image.new(mode, (8, 8)).save(tmp_path / "a.jpg", icc_profile=given)
        assert pictures.read_photograph(tmp_path / "a.jpg").profile == kept


@pytest.mark.parametrize(
    ("mode", "colours", "expected"),
    [("L", [0, 200], [0, 200]), ("P", [0, 9], [0, 9]), ("1", [0, 1], [0, 255])],
)
def test_a_mask_gives_its_labels(tmp_path, mode, colours, expected):
    mask = Image.new(mode, (2, 1))
    if mode == "P":
        mask.putpalette([7, 8, 9] * 10)
    mask.putdata(colours)
    mask.save(tmp_path / "mask.png")
    assert pictures.read_mask(tmp_path / "mask.png").tolist() == [expected]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp", "a.tif"])
@pytest.mark.parametrize("shades", [(255, 0), (0, 128, 255), (200, 100)])
def test_a_mask_with_a_palette_of_greys_gives_its_shades(tmp_path, name, shades):
    labels = np.repeat(np.uint8([shades]), 4, axis=1)
    grey = Image.fromarray(labels)
    numbered = Image.fromarray(np.repeat(np.uint8([range(len(shades))]), 4, axis=1)).convert("P")
    numbered.putpalette(np.repeat(shades, 3).tolist())
    adaptive = grey.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=len(shades))
    for mask in (numbered, grey.quantize(len(shades)), adaptive):
        assert mask.mode == "P"
        for options in ({}, {"transparency": b"\0\x80"}) if name == "a.png" else ({},):
            mask.save(tmp_path / name, **options)
            np.testing.assert_array_equal(pictures.read_mask(tmp_path / name), labels)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0, 3], [255, 0]),  # White and black: the colours are not used.
        ([1, 1], [1, 1]),
        ([0, 2], [0, 2]),  # Grey is one of the colours.
        ([3, 1], [3, 1]),
    ],
)
def test_a_mask_with_a_palette_of_colours_gives_its_numbers(tmp_path, numbers, expected):
    mask = Image.new("P", (2, 1))
    mask.putpalette([255, 255, 255, 200, 0, 0, 128, 128, 128, 0, 0, 0])
    mask.putdata(numbers)
    mask.save(tmp_path / "a.png")
    assert pictures.read_mask(tmp_path / "a.png").tolist() == [expected]


@pytest.mark.parametrize(
    ("name", "width", "words"),
    [
        ("a.webp", 16_384, r"WEBP holds at most 16383 pixels along a side, .* has 16384x3"),
        ("a.JPG", 65_501, "JPEG holds at most 65500 pixels"),
        ("a.gif", 3, r"must end in \.png, \.jpg, \.jpeg, \.webp. Received: a.gif"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(name, width, words):
    with pytest.raises(UserError, match=words):
        pictures.check_size(name, 3, width)


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
    os.mkfifo(tmp_path / "pipe.jpg")  # Whoever opens one waits for its other end.
    names = "text.jpg empty.png folder.png cut.png float.tif missing.png pipe.jpg".split()
    for name in names:
        with pytest.raises(UserError, match=f"picture .*{name}: it cannot be read"):
            read_picture(tmp_path / name)


def test_every_extension_is_of_a_format_that_pillow_reads():
    Image.init()
    known = Image.registered_extensions()
    assert all(known[e] in (*Image.OPEN, "MPO") for e in pictures.EXTENSIONS)
