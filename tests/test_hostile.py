"""Hundreds of damaged and forged archives: refused on one line, with nothing loaded or written."""

import contextlib
import gzip
import io
import pathlib
import random
import tarfile
import tempfile
import zlib
from unittest import mock

import hypothesis
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from export.verify.checks import verify
from tests import forging
from tests.forging import in_gzip
from unpooling import archive

BLOCK = tarfile.BLOCKSIZE


@pytest.fixture(scope="module")
def folder(build):
    return build("block1_conv2")


@pytest.fixture(scope="module")
def good(folder):
    """The bytes of a good archive."""
    return (folder / "encoder.tar.gz").read_bytes()


def tree(directory):
    paths = pathlib.Path(directory).rglob("*")
    return {str(path): None if path.is_dir() else path.read_bytes() for path in paths}


def refusal(archived, **beside):
    """The check that refuses an archive of these bytes, which is not loaded and changes nothing.

    An archive whose files are in order up to there fails when it would be loaded.
    """
    with tempfile.TemporaryDirectory() as around:
        artifact, temporary = pathlib.Path(around, "artifact"), pathlib.Path(around, "temporary")
        artifact.mkdir()
        temporary.mkdir()
        for name, data in {"encoder.tar.gz": archived, **beside}.items():
            (artifact / name).write_bytes(data)
        before = tree(around)
        with (
            mock.patch.object(tempfile, "tempdir", str(temporary)),
            mock.patch.object(tf.saved_model, "load", side_effect=ValueError("stopped here")),
        ):
            *others, last = verify(str(artifact / "encoder.tar.gz"))
        assert tree(around) == before
    assert {check.outcome for check in others} <= {"passed", "skipped"}
    assert last.outcome == "failed"
    assert str(last).isprintable()  # One line, and nothing that a terminal obeys.
    return last


# How bytes are damaged.


def corruptions(count):
    """The same ones in every run."""
    return hypothesis.settings(derandomize=True, deadline=None, max_examples=count)


def positions(length):
    """Anywhere, but often near the ends, where the headers and the checksums are."""
    ends = st.integers(0, min(length, 16) - 1) | st.integers(max(length - 16, 0), length - 1)
    return st.integers(0, length - 1) | ends


def flipped(data):
    """Some bits of up to four bytes are flipped."""

    def flip(masks):
        changed = bytearray(data)
        for position, mask in masks.items():
            changed[position] ^= mask
        return bytes(changed)

    masks = st.dictionaries(positions(len(data)), st.integers(1, 255), min_size=1, max_size=4)
    return masks.map(flip)


def cut_or_grown(data):
    """Bytes are missing at the end, or added at the end or anywhere."""
    more = st.binary(min_size=1, max_size=64) | st.integers(1, 5000).map(bytes)
    place = st.just(len(data)) | positions(len(data))
    grown = st.builds(lambda p, more: data[:p] + more + data[p:], place, more)
    return positions(len(data)).map(lambda kept: data[:kept]) | grown


def rearranged(data):
    """Blocks of a tar are zeroed, doubled or left out."""
    blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]

    def arrange(instead, place):
        block = [bytes(BLOCK)] if instead < 0 else blocks[place : place + 1] * instead
        return b"".join([*blocks[:place], *block, *blocks[place + 1 :]])

    return st.builds(arrange, st.sampled_from([-1, 0, 2]), positions(len(blocks)))


def header_changed(data):
    """Bytes of one header of a tar are changed, and its checksum is put right."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        starts = [member.offset for member in tar]

    def change(start, changes):
        header = bytearray(data[start : start + BLOCK])
        for position, value in changes.items():
            header[position] = value
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return data[:start] + header + data[start + BLOCK :]

    # Where a header says something; the rest is a name that is filled up with zeros.
    fields = st.integers(0, 32) | st.integers(100, 158) | st.integers(257, 265)
    values = st.integers(0, 255) | st.sampled_from(b"01234567LKSx./\0 ")
    changes = st.dictionaries(fields, values, min_size=1, max_size=3)
    return st.builds(change, st.sampled_from(starts), changes)


# The tests. A good archive first, so that the others are refused for their damage.


def test_the_archive_that_is_damaged_below_is_good(good, tmp_path):
    for archived in (good, in_gzip(gzip.decompress(good))):
        last = refusal(archived)
        assert (last.name, last.detail) == ("loads", "stopped here")


@corruptions(60)
@hypothesis.given(data=st.data())
def test_a_damaged_archive_is_refused(good, data):
    twice = st.sampled_from([good + good, good + gzip.compress(b""), gzip.compress(b"") + good])
    archived = data.draw(flipped(good) | cut_or_grown(good) | twice)
    with contextlib.suppress(zlib.error):
        # A spare bit of gzip's can be another way to say the same.
        stream = zlib.decompressobj(wbits=31)
        same = stream.decompress(archived) == gzip.decompress(good)
        hypothesis.assume(not (same and stream.eof and not stream.unused_data))
    assert refusal(archived).name == "members"


@corruptions(60)
@hypothesis.given(data=st.data())
def test_a_damaged_tar_in_sound_gzip_puts_no_file_anywhere_else(good, data):
    tar = gzip.decompress(good)
    kinds = [header_changed, header_changed, rearranged, flipped, cut_or_grown]
    archived = in_gzip(data.draw(st.one_of(*(kind(tar) for kind in kinds))))
    # What is in order but for the content of a file is stopped by the graph, or has to be loaded.
    if refusal(archived).name != "members":
        with tempfile.TemporaryDirectory() as around:
            path, target = pathlib.Path(around, "x.tar.gz"), pathlib.Path(around, "target")
            path.write_bytes(archived)
            target.mkdir()
            archive.read(str(path)).unpack(str(target))
            found = {str(p.relative_to(target)) for p in target.rglob("*")}
            assert found == {*archive.MEMBERS}


def test_archives_with_a_damaged_file_break_nothing(folder, tmp_path):
    files = forging.files_of(folder)
    choices = random.Random(0)
    names = [*files, *[forging.GRAPH] * 3]
    seen = set()
    for number in range(12):
        name = choices.choice(names)
        data = bytearray(files[name])
        for _ in range(choices.randint(1, 2)):
            data[choices.randrange(len(data))] ^= 1 << choices.randrange(8)
        if number % 5 == 0:
            del data[choices.randrange(len(data)) :]
        changed = {**files, name: bytes(data)}
        *_, last = verify(forging.packed(changed, tmp_path / f"{number}.tar.gz"))
        assert str(last).isprintable()
        seen.add(last.name)
    # Some were stopped before they were loaded, some by the loading.
    assert {"graph", "loads"} <= seen
