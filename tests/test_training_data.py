"""Photographs: which are found, where each falls, which are skipped, what the batches hold."""

import errno
import io
import itertools
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests import photographs
from training import console, data
from unpooling.errors import UserError

# Of 0.jpg to 199.jpg: the first three that are held out, and how many are.
HELD_OUT = ("13.jpg", "15.jpg", "51.jpg", 17)


def test_the_split_is_90_9_1():
    splits = [data.split_of(f"{number:012d}.jpg") for number in range(20_000)]
    shares = [splits.count(split) / 20_000 for split in ("train", "validation", "test")]
    np.testing.assert_allclose(shares, [0.90, 0.09, 0.01], atol=0.005)


def test_the_split_is_that_of_the_name_whatever_the_folder_and_for_good():
    names = [f"{number}.jpg" for number in range(200)]
    here, there = ([f"{folder}/{name}" for name in names] for folder in ("p", "p/deep/er"))
    splits = [data.split_pictures(paths, "p") for paths in (here, there)]
    here, there = ([[os.path.basename(p) for p in s[k]] for k in s] for s in splits)
    assert here == there
    held_out = [name for name in names if name not in here[0]]
    assert (*held_out[:3], len(held_out)) == HELD_OUT


def test_of_several_with_one_name_all_but_the_first_are_told_apart_by_their_folders():
    scenes = [f"p/scene_{number}/rgb.jpg" for number in range(200)]
    splits = data.split_pictures([*scenes, "p/deep/13.jpg"], "p")
    assert len(splits["train"]) > 150 and len(splits["validation"]) > 5
    assert "p/deep/13.jpg" in splits[data.split_of("13.jpg")]
    # From elsewhere, and in another order.
    elsewhere = [f"q/{path}" for path in reversed([*scenes, "p/deep/13.jpg"])]
    found = data.split_pictures(elsewhere, "q/p")
    assert {k: [p.removeprefix("q/") for p in paths] for k, paths in found.items()} == splits


@pytest.mark.parametrize("late", ["p/13.jpg", "p/zoo/13.jpg", "p/a/b/13.jpg"])
def test_a_second_file_of_the_same_name_leaves_the_first_where_it_is(late):
    first = "p/13.jpg" if late != "p/13.jpg" else "p/deep/13.jpg"
    alone, both = (data.split_pictures(paths, "p") for paths in ([first], [late, first]))
    split = next(name for name, paths in alone.items() if paths)
    assert split == data.split_of("13.jpg") == "validation"
    if late != "p/13.jpg":  # Which comes before any other.
        assert first in both[split]


def find(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [os.path.relpath(path, folder) for path in data.find_pictures(str(folder))]


def test_pictures_are_found_in_all_folders_and_the_rest_is_counted_and_named(tmp_path, capsys):
    pictures = ["b.PNG", "deep/c.jpeg", "deep/d.webp", "deep/er/a.jpg", "e.JFIF", "f.tif"]
    others = ["1.heic", "2.HEIC", "3.heic", "4.heic", "notes.txt", "README", ".DS_Store", "._b.png"]
    left_out = [".thumbnails/b.png", "@eaDir/b.png/x.jpg", "run/run.json", "run/samples/1.png"]
    left_out += ["dist/x/encoder.manifest.json", "dist/x/encoder.png", "Thumbnails/b.png"]
    assert find(tmp_path, *pictures, *others, *left_out) == pictures
    assert capsys.readouterr().out == (
        "passed over: 4 .heic (1.heic, 2.HEIC, 3.heic, ...); 1 .txt (notes.txt); "
        "5 folders (.thumbnails, @eaDir, Thumbnails, ...); "
        "2 hidden (.DS_Store, ._b.png); 1 without extension (README)\n"
    )


def test_links_to_folders_are_followed_and_a_loop_ends(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").touch()
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    (photos / "deep" / "loop").symlink_to(photos)
    (photos / "deep" / "itself").symlink_to(photos / "deep")
    (photos / "link").symlink_to(tmp_path / "elsewhere")
    (photos / "link again").symlink_to(tmp_path / "elsewhere")
    assert find(photos, "deep/b.jpg") == ["deep/b.jpg", "link/a.jpg"]
    (tmp_path / "linked").symlink_to(photos)
    assert len(data.find_pictures(str(tmp_path / "linked"))) == 2


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_folder_without_pictures_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="--photos must"):
        data.find_pictures(str(tmp_path / name))


def test_unreadable_files_are_counted_named_and_skipped(tmp_path, capsys):
    paths = photographs.write(tmp_path, train=3, validation=1)
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")  # not UTF-8, and fine
    Image.fromarray(photographs.picture(0, 64, 64)).save(odd)
    splits = data.usable_splits(str(tmp_path))
    found = list(itertools.chain(*splits.values()))
    assert sorted(found) == sorted([*paths["train"], *paths["validation"], odd])
    assert "skipped 2 unreadable: empty.png, text.jpg\n" in capsys.readouterr().out
    assert next(iter(data.training_batches([odd], 64, 1, 0))).shape == (1, 64, 64, 3)


def test_too_few_pictures_are_refused(tmp_path):
    photographs.write(tmp_path, train=2)
    with pytest.raises(UserError, match=r"none falls to validation.*2 train, 0 validation"):
        data.usable_splits(str(tmp_path))
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(UserError, match=r"that can be read: none falls to train.*0 train"):
        data.usable_splits(str(tmp_path))


def take(batches, count):
    return [np.array(batch) for batch in itertools.islice(batches, count)]


def test_training_batches_are_parts_of_the_pictures_some_of_them_flipped(tmp_path):
    (path,) = photographs.write(tmp_path, train=1)["train"]
    whole = np.array(Image.open(path), np.float32)
    parts = np.concatenate(take(data.training_batches([path], 24, 4, 0), 5))
    assert parts.dtype == np.float32
    windows = np.lib.stride_tricks.sliding_window_view(whole, (24, 24, 3)).reshape(-1, 24, 24, 3)

    def is_part(part):
        return (np.abs(windows - part).max(axis=(1, 2, 3)) == 0).any()

    plain = [is_part(part) for part in parts]
    assert all(fits or is_part(part[:, ::-1]) for fits, part in zip(plain, parts, strict=True))
    assert 0 < sum(plain) < 20
    assert len({part.tobytes() for part in parts}) > 15


def test_each_picture_comes_once_in_each_pass_in_an_order_of_the_seed(tmp_path):
    paths = photographs.write(tmp_path, 8, 8, train=6)["train"]
    for number, path in enumerate(paths):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path)

    def order(seed, first_step=0):
        batches = take(data.training_batches(paths, 8, 2, seed, first_step), 9 - first_step)
        return [int(picture[0, 0, 0]) for batch in batches for picture in batch]

    first = order(0)
    assert all(sorted(first[i : i + 6]) == list(range(6)) for i in (0, 6, 12))
    assert first[:6] != first[6:12]
    assert order(0) == first != order(2**63 - 1)


@pytest.mark.parametrize("ahead", [1, 3])
def test_what_starts_later_sees_what_it_would_have_seen(tmp_path, monkeypatch, ahead):
    paths, read = photographs.write(tmp_path, train=5)["train"], []

    def read_picture(path, read_picture=data.pictures.read_picture):
        read.append(path)
        return read_picture(path)

    monkeypatch.setattr(data.pictures, "read_picture", read_picture)
    whole = take(data.training_batches(paths, 16, 5, 7), 9)
    monkeypatch.setattr(data, "MOST_AHEAD", ahead)
    read.clear()
    late = take(data.training_batches(paths, 16, 5, 7, first_step=4), 5)
    np.testing.assert_array_equal(whole[4:], late)
    assert (len(read) >= 25) == (ahead == 1)  # Some are prefetched.


def test_small_pictures_are_continued_by_reflection(tmp_path):
    (path,) = photographs.write(tmp_path, 10, 40, train=1)["train"]
    whole = np.array(Image.open(path), np.float32)
    images, _ = next(iter(data.validation_batches([path], 16, 1)))
    expected = np.pad(whole, ((0, 6), (0, 0), (0, 0)), mode="reflect")[:, 12:28]
    np.testing.assert_array_equal(images[0], expected)
    (path,) = photographs.write(tmp_path / "tiny", 1, 3, train=1)["train"]
    assert next(iter(data.training_batches([path], 16, 1, 0))).shape == (1, 16, 16, 3)


def test_validation_is_the_middle_of_each_picture_counted_once(tmp_path):
    paths = photographs.write(tmp_path, validation=5)["validation"]
    batches = list(data.validation_batches(paths, 16, 2))
    images = np.concatenate([images for images, _ in batches])
    counts = np.concatenate([counts for _, counts in batches])
    assert images.dtype == np.float32 and counts.tolist() == [1, 1, 1, 1, 1, 0]
    for image, path in zip(images, paths, strict=False):
        np.testing.assert_array_equal(image, np.array(Image.open(path))[12:28, 20:36])


def test_a_picture_that_vanishes_is_named(tmp_path):
    with pytest.raises(tf.errors.OpError, match=r"UserError: picture .*gone.png: it cannot be"):
        next(iter(data.training_batches([str(tmp_path / "gone.png")], 16, 1, 0)))


class Full(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_line_never_fails(monkeypatch, tmp_path):
    with monkeypatch.context() as context, open(tmp_path / "log", "w", encoding="ascii") as log:
        context.setattr("sys.stdout", log)
        console.say("照片 caf\udce9.jpg")
    with monkeypatch.context() as context:
        context.setattr("sys.stdout", log)  # closed by now
        console.say("nowhere")
        context.setattr("sys.stdout", Full())
        console.say("nowhere")
    assert (tmp_path / "log").read_text() == "\\u7167\\u7247 caf\\udce9.jpg\n"
