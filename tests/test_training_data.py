"""The pipelines: which photographs fall where, which are skipped, what the batches hold."""

import itertools
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests import photographs
from training import data

# Of 0.jpg to 199.jpg: the first three that are held out, and how many are.
HELD_OUT = ("13.jpg", "15.jpg", "51.jpg", 17)


def test_the_split_is_90_9_1():
    splits = data.split_pictures([f"{number:012d}.jpg" for number in range(20_000)])
    shares = [len(splits[split]) / 20_000 for split in ("train", "validation", "test")]
    np.testing.assert_allclose(shares, [0.90, 0.09, 0.01], atol=0.005)


def test_the_split_is_that_of_the_name_whatever_the_folder_and_for_good():
    names = [f"{number}.jpg" for number in range(200)]
    assert [data.split_of(n) for n in names] == [data.split_of(f"/a/{n}") for n in names]
    held_out = {n: data.split_of(n) for n in names if data.split_of(n) != "train"}
    assert tuple(held_out)[:3] == HELD_OUT[:3]
    assert len(held_out) == HELD_OUT[3]


def test_pictures_are_found_in_all_folders_and_nothing_else(tmp_path):
    for name in ("b.PNG", "deep/er/a.jpg", "deep/c.jpeg", "notes.txt", "d.h5"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [os.path.relpath(path, tmp_path) for path in data.find_pictures(str(tmp_path))]
    assert found == ["b.PNG", "deep/c.jpeg", "deep/er/a.jpg"]


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_folder_without_pictures_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="`photos` must"):
        data.find_pictures(str(tmp_path / name))


def test_unreadable_files_are_counted_named_and_skipped(tmp_path, capsys):
    paths = photographs.write(tmp_path, train=3, validation=1)
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    Image.fromarray(photographs.picture(0, 64, 64)).save(tmp_path / "whole.jpg", quality=95)
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    shutil.copy(tmp_path / "whole.jpg", os.fsencode(tmp_path) + b"/caf\xe9.jpg")  # not UTF-8
    splits = data.usable_splits(str(tmp_path))
    assert sorted(itertools.chain(*splits.values())) == sorted(
        [*paths["train"], *paths["validation"], str(tmp_path / "whole.jpg")]
    )
    assert (
        "skipped 4 unreadable: caf\\udce9.jpg, cut.jpg, empty.png, text.jpg\n"
        in capsys.readouterr().out
    )


def test_too_few_pictures_are_refused(tmp_path):
    photographs.write(tmp_path, train=2)
    with pytest.raises(ValueError, match=r"none falls to validation.*2 train, 0 validation"):
        data.usable_splits(str(tmp_path))
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match="pictures that can be read"):
        data.usable_splits(str(tmp_path))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_pictures_of_any_kind_become_rgb(tmp_path, mode):
    path = str(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"))
    Image.fromarray(photographs.picture(0, 20, 30)).convert(mode).save(path)
    batch = next(iter(data.training_batches([path], 16, 2, 0)))
    assert batch.shape == (2, 16, 16, 3)
    assert batch.dtype == tf.float32


def take(batches, count):
    return [np.array(batch) for batch in itertools.islice(batches, count)]


def test_training_batches_are_parts_of_the_pictures_some_of_them_flipped(tmp_path):
    (path,) = photographs.write(tmp_path, train=1)["train"]
    whole = np.array(Image.open(path), np.float32)
    parts = np.concatenate(take(data.training_batches([path], 24, 4, 0), 5))
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
    assert order(0) == first != order(1)
    assert order(0, 4) == first[8:]


def test_what_starts_later_sees_what_it_would_have_seen(tmp_path):
    paths = photographs.write(tmp_path, train=5)["train"]
    whole = take(data.training_batches(paths, 16, 2, 7), 6)
    late = take(data.training_batches(paths, 16, 2, 7, first_step=4), 2)
    np.testing.assert_array_equal(whole[4:], late)


def test_small_pictures_are_continued_by_reflection(tmp_path):
    (path,) = photographs.write(tmp_path, 10, 40, train=1)["train"]
    whole = np.array(Image.open(path), np.float32)
    images, _ = next(iter(data.validation_batches([path], 16, 1)))
    expected = np.pad(whole, ((0, 6), (0, 0), (0, 0)), mode="reflect")[:, 12:28]
    np.testing.assert_array_equal(images[0], expected)
    assert next(iter(data.training_batches([path], 16, 1, 0))).shape == (1, 16, 16, 3)


def test_validation_is_the_middle_of_each_picture_counted_once(tmp_path):
    paths = photographs.write(tmp_path, validation=5)["validation"]
    batches = list(data.validation_batches(paths, 16, 2))
    images = np.concatenate([images for images, _ in batches])
    counts = np.concatenate([counts for _, counts in batches])
    assert counts.tolist() == [1, 1, 1, 1, 1, 0]
    for image, path in zip(images, paths, strict=False):
        np.testing.assert_array_equal(image, np.array(Image.open(path))[12:28, 20:36])
