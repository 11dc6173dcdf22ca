"""The transfer from files to files: what comes out can be used, and nothing is written over."""

import io
import os
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms

import unpooling.style
from tests.photographs import picture
from training import console
from unpooling.errors import UserError
from unpooling.style import Style, files, load_pairs

CONTENT, STYLE = picture(1, 40, 56), picture(2, 48, 36)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def pairs():
    return load_pairs(2, "random", "random")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory: a content, a style, and an empty folder."""
    Image.fromarray(CONTENT).save(tmp_path / "content.png")
    Image.fromarray(STYLE).save(tmp_path / "style.png")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stylize(pairs, folder, monkeypatch):
    """`stylize` with ready pairs; `stylize.said` and `stylize.remarks` are its lines."""
    monkeypatch.setattr(files, "load_pairs", lambda depth, *others: pairs[:depth])

    def run(content="content.png", style="style.png", output="out/made.png", **options):
        lines = {"say": run.said.append, "remark": run.remarks.append}
        return unpooling.style.stylize(content, style, output, **{"depth": 1} | lines | options)

    run.said, run.remarks = [], []
    return run


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


# What is written.


def test_the_result_is_the_transfer_at_the_size_of_the_content(stylize, pairs):
    assert stylize(depth=2, strength=[0.5, 1], smoothing="none", method="wct") == []
    options = {"strength": [0.5, 1], "smoothing": "none", "method": "wct"}
    expected = unpooling.style.transfer(CONTENT, STYLE, pairs, **options)
    np.testing.assert_array_equal(pixels("out/made.png"), expected)
    assert stylize.said[0].startswith("content.png -> out/made.png (1 of 1, ")
    assert not stylize.remarks


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.JPEG", "a.webp"])
@pytest.mark.parametrize("transparent", [False, True])
def test_it_is_upright_and_keeps_profile_and_transparency(stylize, name, transparent):
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = np.arange(40 * 56, dtype=np.uint8).reshape(40, 56, 1) | (0 if transparent else 255)
    stored = np.rot90(np.concatenate([CONTENT, alpha], axis=-1), 1)
    Image.fromarray(stored).save("content.png", exif=exif, icc_profile=PROFILE)
    if transparent and "j" in name.lower():
        assert stylize(output=name) == ["content.png"] and not os.path.exists(name)
        assert "JPEG holds no transparency" in stylize.remarks[0]
        return
    assert stylize(output=name) == []
    with Image.open(name) as image:
        assert image.size == (56, 40) and not image.getexif()
        assert image.info["icc_profile"] == PROFILE
        if image.format == "JPEG":
            assert {layer[1:3] for layer in image.layer} == {(1, 1)}  # 4:4:4
        else:
            found = np.asarray(image.convert("RGBA"))
            np.testing.assert_array_equal(found[..., 3:], alpha)


def test_in_a_folder_pictures_keep_their_names_and_share_none(stylize, folder):
    (folder / "photos" / ".hidden").mkdir(parents=True)
    for name in ("a.jpg", "a.tif", "b.PNG", "b.bmp", ".c.png"):
        Image.fromarray(CONTENT).save(folder / "photos" / name)
    (folder / "photos" / "raw.cr2").touch()
    assert stylize(["photos", "content.png"], output="new") == []
    assert sorted(os.listdir("new")) == ["a.jpg", "a.png", "b-2.png", "b.PNG", "content.png"]
    assert stylize.said[-1].startswith("content.png -> new/content.png (5 of 5, ")
    assert stylize.said[0].endswith(" left)")
    assert stylize.remarks == ["photos: passed over 1 other files (raw.cr2)."]


# What is not written over.


def link(name, kind):
    os.link("content.png", name) if kind == "hard" else os.symlink("content.png", name)
    return name


@pytest.mark.parametrize(
    "output",
    [
        lambda: "content.png",
        lambda: "./out/../content.png",
        lambda: os.path.abspath("style.png"),
        lambda: "mask.png",
        lambda: link("linked.png", "hard"),
        lambda: link("linked.png", "symbolic"),
    ],
)
def test_no_input_is_written_over(stylize, output):
    Image.fromarray(CONTENT[..., 0]).save("mask.png")
    inputs = ("content.png", "style.png", "mask.png")
    before = [pixels(name) for name in inputs]
    target = output()
    assert stylize(output=target, overwrite=True, content_mask="mask.png") == ["content.png"]
    assert stylize.remarks[0].endswith(f"{target} is an input: choose another name.")
    for name, expected in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(pixels(name), expected)


def test_into_the_contents_own_folder_another_name_is_taken(stylize):
    assert stylize(output=".") == [] and os.path.exists("content-2.png")
    with pytest.raises(UserError, match="is the folder of the contents: write into another"):
        stylize(".", output="out/..")


def test_what_is_there_is_replaced_only_if_asked(stylize, folder):
    (folder / "out" / "made.png").write_text("dear")
    assert stylize() == ["content.png"]
    assert "made.png is there already: pass --overwrite" in stylize.remarks[0]
    assert (folder / "out" / "made.png").read_text() == "dear"
    stylize(None, "style.png", None, save_style="look.npz")
    with pytest.raises(UserError, match=r"look.npz is an input"):
        stylize(style="look.npz", save_style="look.npz", overwrite=True)
    assert stylize(overwrite=True) == [] and pixels("out/made.png").shape == CONTENT.shape


def test_interrupted_it_leaves_nothing_half_written(stylize, monkeypatch):
    def stop(part):
        if part > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stylize(progress=stop)
    monkeypatch.setattr(os, "replace", lambda *paths: stop(1))
    with pytest.raises(KeyboardInterrupt):
        stylize()
    assert os.listdir("out") == []


def test_progress_grows_to_the_whole(stylize):
    parts = []
    stylize(["content.png", "content.png"], output="out", progress=parts.append)
    assert parts == sorted(parts) and parts[-1] == pytest.approx(1) and len(set(parts)) >= 5


# Several contents, several styles.


def test_one_bad_file_does_not_stop_the_rest(stylize, folder):
    (folder / "text.png").write_text("no picture")
    whole = (folder / "content.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    given = ["text.png", "cut.png", "missing.png", "content.png"]
    assert sorted(stylize(given, output="out")) == sorted(given[:3])
    assert os.listdir("out") == ["content.png"]
    assert all(line.count("cannot be read") == 1 for line in stylize.remarks)
    assert [any(name in line for line in stylize.remarks) for name in given] == [True] * 3 + [False]


def test_a_saved_style_gives_the_same_bits(stylize):
    assert stylize(None, "style.png", None, save_style="new/look.npz", depth=2) == []
    assert stylize.said == ["new/look.npz: the style is saved."]
    for style, name in (("style.png", "a.png"), ("new/look.npz", "b.png")):
        assert stylize(style=style, output=name) == []
    np.testing.assert_array_equal(pixels("a.png"), pixels("b.png"))
    with pytest.raises(UserError, match="knows its labels: a style mask is for a picture"):
        stylize(style="new/look.npz", style_mask="mask.png")


def test_styles_are_mixed_by_their_weights(stylize):
    Image.fromarray(picture(3, 30, 30)).save("other.png")
    made = {}
    for weights in ([1, 0], [0, 2], [1, 1]):
        styles = ["style.png", "other.png"]
        stylize(style=styles, output="mixed.png", style_weights=weights, overwrite=True)
        made[tuple(weights)] = pixels("mixed.png")
    for style, weights in (("style.png", (1, 0)), ("other.png", (0, 2))):
        stylize(style=style, output="alone.png", overwrite=True)
        np.testing.assert_array_equal(made[weights], pixels("alone.png"))
        assert np.any(made[weights] != made[1, 1])


# Masks.


def test_label_0_stays_and_a_palette_counts_as_labels(stylize):
    labels = np.zeros((40, 56), np.uint8)
    labels[:, 28:] = 3
    mask = Image.fromarray(labels).convert("P")
    mask.putpalette([7, 8, 9] * 256)
    mask.save("mask.png")
    options = {"smoothing": "none", "overwrite": True}
    stylize(output="whole.png", **options)
    stylize(output="masked.png", content_mask="mask.png", **options)
    whole, masked = (pixels(f"{name}.png") for name in ("whole", "masked"))
    np.testing.assert_array_equal(masked[:, :20], CONTENT[:, :20])
    assert np.any(masked[:, 36:] != CONTENT[:, 36:]) and np.any(masked != whole)
    assert not stylize.remarks
    os.mkdir("masks")
    os.rename("mask.png", "masks/content.png")
    stylize(output="again.png", content_mask="masks", **options)
    np.testing.assert_array_equal(pixels("again.png"), masked)


@pytest.mark.parametrize(
    ("name", "mask", "fails", "words"),
    [
        (
            "mask.jpg",
            CONTENT[..., 0],
            False,
            "mask mask.jpg: JPEG changes labels along their edges",
        ),
        ("mask.png", CONTENT, True, "mask.png: it cannot be read (a mask must be grey, with one"),
        ("mask.png", CONTENT[:-1, :, 0], True, "must have the size of its picture"),
    ],
)
def test_a_mask_that_does_not_fit_is_named(stylize, name, mask, fails, words):
    Image.fromarray(mask).save(name)
    assert stylize(content_mask=name) == ["content.png"] * fails
    assert any(words in line and "content.png" in line for line in stylize.remarks)


@pytest.mark.parametrize(
    ("labels", "known", "has_mask", "expected"),
    [
        (None, (1,), False, [1, 1, 1]),
        (None, (7,), True, [7, 7, 7]),
        (None, (1, 7), True, None),
        ([0, 7, 255], (1,), False, [0, 1, 1]),
        ([0, 7, 255], (7,), True, [0, 7, 255]),
        ([0, 1, 2], (1,), True, [0, 1, 2]),
    ],
)
def test_masks_of_one_side_alone_are_enough(labels, known, has_mask, expected):
    style = Style({"block1_conv2": dict.fromkeys(known)}, {}, has_mask)
    labels = None if labels is None else np.uint8([labels])
    found = files.match_labels(labels, (1, 3), style)
    assert (None if found is None else found.tolist()) == (expected and [expected])


# Wrong arguments, and the command.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"style": []}, "there is no style"),
        ({"content": None}, "pass a content and where to write it"),
        ({"output": "made.tif"}, r"must end in .png, .jpg, .jpeg, .webp.*Received: made.tif"),
        ({"content": ["a.png", "b.png"]}, "several pictures need a folder to write to"),
        ({"content": "out"}, "out holds no pictures"),
        ({"style": "missing.png"}, "missing.png: it cannot be read"),
        ({"style_mask": ["a.png", "b.png"]}, "one style mask for each of 1 pictures"),
        ({"style_weights": [1, 2]}, "1 styles need as many weights. Received: 2"),
        ({"strength": 1.5}, "`strength` must be from 0 to 1"),
        ({"style": ["style.png"] * 2, "style_weights": [0, 0]}, "weights of styles must be at"),
        ({"save_style": "out.npz"}, "out.npz is a folder"),
        ({"save_style": "look"}, "a style is saved as .npz. Received: look"),
        ({"save_style": "content.png/look.npz"}, "is not a folder: choose another output"),
        ({"save_style": "look.npz", "strength": 2}, "`strength` must be from 0 to 1"),
        ({"content": ["content.png"] * 2, "output": "file"}, "several pictures need a folder"),
        ({"output": "content.png/made.png"}, "is not a folder: choose another output"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_at_once(
    stylize, folder, monkeypatch, arguments, words
):
    monkeypatch.setattr(files, "load_pairs", lambda *arguments: pytest.fail("too late"))
    (folder / "file").touch()
    (folder / "out.npz").mkdir()
    before = sorted(os.listdir())
    if arguments.get("output") == "content.png/made.png":
        assert stylize(**arguments) == ["content.png"]
        assert words in stylize.remarks[0]
        return
    with pytest.raises(UserError, match=words):
        stylize(**arguments)
    assert sorted(os.listdir()) == before and os.listdir("out") == []


def test_a_folder_that_may_not_be_written_to_is_refused_before_the_work(stylize, monkeypatch):
    monkeypatch.setattr(files, "load_pairs", lambda *arguments: pytest.fail("too late"))
    monkeypatch.setattr(os, "access", lambda path, mode: not path.endswith("out"))
    assert stylize(output="out/new/made.png") == ["content.png"]
    assert "out may not be written to: choose another output" in stylize.remarks[0]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "shown"), [(Terminal, True), (io.StringIO, False)])
def test_a_bar_is_shown_on_a_terminal_alone(monkeypatch, stream, shown):
    monkeypatch.setattr(sys, "stderr", stream())
    bar = console.Bar()
    bar(0.25)
    bar.clear()
    written = sys.stderr.getvalue()
    assert ("[##########..............................]  25%, 0:00:00 left" in written) is shown
    assert written.endswith("\r\033[K") is shown


def test_the_command_passes_its_flags_on_and_its_status_tells(run_command, folder):
    (folder / "text.png").write_text("no picture")
    given = "--content=text.png,content.png", "--style=style.png", "--output=out", "--fast"
    pair = "--weights=random", "--decoders=random", "--depth=2", "--strength=0.5,1"
    script = os.path.join(os.path.dirname(os.path.dirname(__file__)), "stylize.py")
    result = run_command(script, *given, *pair, "--smoothing=none", "--method=wct", cwd=folder)
    assert result.returncode == 1
    assert result.stdout.startswith("content.png -> out/content.png (1 of 1, ")
    lines = [line for line in result.stderr.splitlines() if line.startswith("stylize: ")]
    assert "Traceback" not in result.stderr
    assert len(lines) == 1 and "text.png: it cannot be read" in lines[0]
    assert pixels("out/content.png").shape == CONTENT.shape
