"""Hundreds of damaged and forged archives: refused in a line, with nothing loaded or written.

The archive has to defend itself: but for one test, neither a manifest nor checksums lie beside it.
"""

import contextlib
import gzip
import hashlib
import io
import pathlib
import random
import signal
import struct
import tarfile
import tempfile
import zlib
from unittest import mock

import hypothesis
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError
from hypothesis import strategies as st
from tensorflow.core.protobuf import fingerprint_pb2, saved_model_pb2

from export import verify
from unpooling import archive

LAYER = "block1_conv2"
FILES = (
    "fingerprint.pb",
    "saved_model.pb",
    "variables/variables.data-00000-of-00001",
    "variables/variables.index",
)
MEMBERS = {*FILES, "variables"}
BLOCK = tarfile.BLOCKSIZE

# The checks that come before anything is loaded; checksums and manifest are not there to help.
BEFORE_LOADING = ("members", "fingerprint", "graph")


def corruptions(count):
    """The same ones in every run."""
    return hypothesis.settings(derandomize=True, deadline=None, max_examples=count)


@pytest.fixture(scope="module")
def good(build):
    """The bytes of a good archive."""
    return (build(LAYER) / "encoder.tar.gz").read_bytes()


@pytest.fixture(scope="module")
def plain(good):
    """The bytes of the tar in it."""
    return gzip.decompress(good)


@pytest.fixture(scope="module")
def content(plain):
    """The content of each file in that: {name: bytes}."""
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        return {name: tar.extractfile(name).read() for name in FILES}


class StillAtWork(BaseException):
    """No Exception, which the verifier would take for a check that failed."""


@contextlib.contextmanager
def time_limit(seconds):
    """Ends what hangs."""

    def stop(number, frame):
        raise StillAtWork

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tree(directory):
    return {
        str(path.relative_to(directory)): None if path.is_dir() else path.read_bytes()
        for path in pathlib.Path(directory).rglob("*")
    }


def checks_of(archived, **beside):
    """Verifies an archive of these bytes; nothing may be loaded, or change around it."""
    with tempfile.TemporaryDirectory() as around:
        folder = pathlib.Path(around, "artifact")
        temporary = pathlib.Path(around, "temporary")
        for path in (folder, temporary, pathlib.Path(around, "neighbour")):
            path.mkdir()
        (folder / "encoder.tar.gz").write_bytes(archived)
        for name, data in beside.items():
            (folder / name).write_bytes(data)
        before = tree(around)
        with (
            time_limit(30),
            mock.patch.object(tempfile, "tempdir", str(temporary)),
            mock.patch.object(tf.saved_model, "load") as load,
        ):
            checks = list(verify.verify(str(folder / "encoder.tar.gz")))
        load.assert_not_called()
        assert tree(around) == before
    return checks


def refused(archived, **beside):
    """Holds that an archive of these bytes is refused for one good reason; returns the check."""
    checks = checks_of(archived, **beside)
    *passed, last = checks
    assert all(check.passed for check in passed)
    assert not last.passed, "a corrupted archive passed"
    assert last.detail
    assert str(last).isprintable()  # One line, and nothing that a terminal obeys.
    return last


def unpacked(archived):
    """What `archive.unpack` makes of these bytes, or None if it refuses them."""
    with tempfile.TemporaryDirectory() as around:
        target = pathlib.Path(around, "target")
        target.mkdir()
        path = pathlib.Path(around, "encoder.tar.gz")
        path.write_bytes(archived)
        try:
            with time_limit(30):
                archive.unpack(str(path), str(target))
        except ValueError as error:
            assert tree(around) == {"target": None, "encoder.tar.gz": archived}
            assert str(error).startswith(f"archive {path}: ")
            return None
        found = tree(target)
        assert tree(around).keys() == {
            "target",
            "encoder.tar.gz",
            *(f"target/{name}" for name in found),
        }
        return found


# How bytes are damaged.


def positions(length):
    """Anywhere, but often near the ends, where the headers and the checksums are."""
    return st.one_of(
        st.integers(0, length - 1),
        st.integers(0, min(length, 16) - 1),
        st.integers(max(length - 16, 0), length - 1),
    )


def flipped(data):
    """A strategy: the same bytes with some bits of up to four bytes flipped."""

    def flip(masks):
        changed = bytearray(data)
        for position, mask in masks.items():
            changed[position] ^= mask
        return bytes(changed)

    masks = st.dictionaries(positions(len(data)), st.integers(1, 255), min_size=1, max_size=4)
    single = st.builds(
        lambda position, bit: {position: 1 << bit}, positions(len(data)), st.integers(0, 7)
    )
    return st.one_of(single, masks).map(flip)


def cut(data):
    return positions(len(data)).map(lambda kept: data[:kept])


def grown(data):
    """A strategy: more bytes at the end, or anywhere."""
    return st.builds(
        lambda position, more: data[:position] + more + data[position:],
        st.one_of(st.just(len(data)), positions(len(data))),
        st.one_of(st.binary(min_size=1, max_size=64), st.integers(1, 5000).map(bytes)),
    )


def rearranged(data):
    """A strategy: blocks of a tar zeroed, changed for one another, doubled or left out."""
    blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]

    def arrange(how, one, other):
        changed = list(blocks)
        if how == "zero":
            changed[one] = bytes(BLOCK)
        elif how == "swap":
            changed[one], changed[other] = changed[other], changed[one]
        elif how == "double":
            changed.insert(other, changed[one])
        else:
            del changed[one]
        return b"".join(changed)

    place = positions(len(blocks))
    return st.builds(arrange, st.sampled_from(["zero", "swap", "double", "drop"]), place, place)


def header_changed(data):
    """A strategy: bytes of one header of a tar changed, its checksum put right."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        starts = [member.offset for member in tar]

    def change(start, changes):
        header = bytearray(data[start : start + BLOCK])
        for position, value in changes.items():
            header[position] = value
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return data[:start] + header + data[start + BLOCK :]

    # Where in a header something stands; the rest is a name that fills up with zeros.
    fields = st.one_of(
        st.integers(0, BLOCK - 1), st.integers(0, 32), st.integers(100, 158), st.integers(257, 265)
    )
    values = st.one_of(st.integers(0, 255), st.sampled_from(b"01234567LKSx./\0 "))
    changes = st.dictionaries(fields, values, min_size=1, max_size=3)
    return st.builds(change, st.sampled_from(starts), changes)


def in_gzip(tar):
    """These bytes in gzip, in the form that archives have."""
    deflate = zlib.compressobj(6, wbits=-zlib.MAX_WBITS)
    return b"".join(
        [
            b"\x1f\x8b\x08\0\0\0\0\0\x02\xff",
            deflate.compress(tar) + deflate.flush(),
            struct.pack("<II", zlib.crc32(tar), len(tar)),
        ]
    )


def packed(files):
    """The bytes of an archive of these files, made as a good one is."""
    with tempfile.TemporaryDirectory() as directory:
        pathlib.Path(directory, "model", "variables").mkdir(parents=True)
        for name, data in files.items():
            pathlib.Path(directory, "model", name).write_bytes(data)
        archive.pack(f"{directory}/model", f"{directory}/encoder.tar.gz")
        return pathlib.Path(directory, "encoder.tar.gz").read_bytes()


def says_the_same(archived, good):
    """Whether bytes of gzip are but another way to compress the same, as a spare bit can be."""
    stream = zlib.decompressobj(wbits=31)
    try:
        same = stream.decompress(archived) == gzip.decompress(good)
    except zlib.error:
        return False
    return same and stream.eof and not stream.unused_data and archived[:10] == good[:10]


# The tests. A good archive first, so that the others are refused for their damage.


def test_the_archive_that_is_damaged_below_is_good(good, plain, content):
    for archived in (good, in_gzip(plain), packed(content)):
        assert unpacked(archived) == {**content, "variables": None}
        *checks, last = checks_of_loadable(archived)
        assert all(check.passed for check in checks)
        assert (last.name, last.detail) == ("loads", "stopped here")


def checks_of_loadable(archived):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "encoder.tar.gz")
        path.write_bytes(archived)
        with mock.patch.object(tf.saved_model, "load", side_effect=ValueError("stopped here")):
            return list(verify.verify(str(path)))


@corruptions(120)
@hypothesis.given(data=st.data())
def test_flipped_bits_are_refused(good, content, data):
    archived = data.draw(flipped(good))
    hypothesis.assume(not says_the_same(archived, good))

    assert refused(archived).name == "members"
    assert unpacked(archived) in (None, {**content, "variables": None})


@corruptions(60)
@hypothesis.given(data=st.data())
def test_missing_and_additional_bytes_are_refused(good, content, data):
    archived = data.draw(
        st.one_of(
            cut(good),
            grown(good),
            st.sampled_from([good + gzip.compress(b""), good + good, gzip.compress(b"") + good]),
        )
    )
    hypothesis.assume(not says_the_same(archived, good))

    assert refused(archived).name == "members"
    assert unpacked(archived) in (None, {**content, "variables": None})


@corruptions(120)
@hypothesis.given(data=st.data())
def test_a_damaged_tar_in_sound_gzip_is_refused(plain, data):
    tar = data.draw(
        st.one_of(
            header_changed(plain),
            header_changed(plain),
            rearranged(plain),
            flipped(plain),
            cut(plain),
            grown(plain),
        )
    )
    hypothesis.assume(tar != plain)

    assert refused(in_gzip(tar)).name in ("members", "fingerprint")
    assert (unpacked(in_gzip(tar)) or {}).keys() in (set(), MEMBERS)


@corruptions(100)
@hypothesis.given(data=st.data())
def test_a_damaged_file_in_a_perfect_archive_is_refused(content, data):
    name = data.draw(st.sampled_from(FILES))
    damaged = data.draw(
        st.one_of(
            flipped(content[name]),
            cut(content[name]),
            grown(content[name]),
            st.sampled_from([content[other] for other in FILES if other != name]),
        )
    )

    assert refused(packed({**content, name: damaged})).name == "fingerprint"


@corruptions(30)
@hypothesis.given(data=st.data())
def test_with_a_manifest_or_checksums_damage_is_named_by_them(build, good, plain, content, data):
    archived = data.draw(
        st.one_of(
            flipped(good),
            cut(good),
            grown(good),
            header_changed(plain).map(in_gzip),
            flipped(content["saved_model.pb"]).map(
                lambda damaged: packed({**content, "saved_model.pb": damaged})
            ),
        )
    )
    for name, check in (("encoder.manifest.json", "manifest"), ("SHA256SUMS", "checksums")):
        beside = {name: (build(LAYER) / name).read_bytes()}
        assert refused(archived, **beside).name == check


@pytest.mark.parametrize(
    "archived",
    [b"", b"\0", b"\x1f\x8b", bytes(10_240), b"an archive\n" * 1000, b"PK\x03\x04" + bytes(100)],
    ids=["empty", "a byte", "two bytes", "zeros", "text", "zip"],
)
def test_what_is_no_archive_at_all_is_refused(archived):
    assert refused(archived).name == "members"
    assert refused(gzip.compress(archived, mtime=0)).name == "members"
    assert unpacked(archived) is unpacked(gzip.compress(archived)) is None


def test_another_compression_is_the_manifests_to_find(build, good, plain, content):
    # Another zlib finds other ways to say the same, and an archive may have them.
    beside = {"encoder.manifest.json": (build(LAYER) / "encoder.manifest.json").read_bytes()}
    archived = in_gzip(plain)

    assert archived != good
    assert says_the_same(archived, good)
    assert unpacked(archived) == {**content, "variables": None}
    assert "compressed in another way" in refused(archived, **beside).detail


# A stranger who knows the form: the fingerprint is made to fit what was damaged.

FORGERIES = 40


def sealed(files):
    """The same files with the UUID that fits them; TensorFlow would break on some of them."""
    message = fingerprint_pb2.FingerprintDef.FromString(files["fingerprint.pb"])
    message.ClearField("uuid")
    content = message.SerializeToString(deterministic=True)
    content += b"".join(hashlib.sha256(files[name]).digest() for name in FILES[1:])
    message.uuid = str(int(hashlib.sha256(content).hexdigest()[:32], 16))
    return {**files, "fingerprint.pb": message.SerializeToString(deterministic=True)}


def is_a_graph(data):
    try:
        saved_model_pb2.SavedModel.FromString(data)
    except DecodeError:
        return False
    return True


def forge(files, target):
    """Writes archives with one damaged file each; most of the graph, which has the most to say."""
    choices = random.Random(0)
    count = 0
    while count < FORGERIES:
        name = choices.choice([*FILES[1:], "saved_model.pb", "saved_model.pb", "saved_model.pb"])
        data = bytearray(files[name])
        how = choices.choice(["flip", "flip", "flip", "flip", "cut", "grow", "swap"])
        if how == "flip":
            for _ in range(choices.randint(1, 2)):
                data[choices.randrange(len(data))] ^= 1 << choices.randrange(8)
        elif how == "cut":
            del data[choices.randrange(len(data)) :]
        elif how == "grow":
            data += choices.randbytes(choices.randint(1, 100))
        else:
            one, other, size = (choices.randrange(len(data)) // 2 for _ in range(3))
            data[one : one + size], data[other : other + size] = (
                data[other : other + size],
                data[one : one + size],
            )
        # What cannot even be parsed says little; a few of those will do.
        if name != "saved_model.pb" or is_a_graph(bytes(data)) or choices.random() < 0.1:
            forged = packed(sealed({**files, name: bytes(data)}))
            pathlib.Path(target, f"{count}.tar.gz").write_bytes(forged)
            count += 1


def verify_forgeries(target):
    """Prints a line before and after each: if the process dies, the last one names the archive."""
    for number in range(FORGERIES):
        print(number, end=" ", flush=True)
        *_, last = verify.verify(f"{target}/{number}.tar.gz")
        print(last, flush=True)


def test_forged_archives_break_nothing(content, run_command, tmp_path):
    # In a process of its own, which TensorFlow might abort.
    assert sealed(content) == content
    forge(content, tmp_path)
    result = run_command(
        "-c",
        "import sys\nfrom tests import test_hostile\ntest_hostile.verify_forgeries(sys.argv[1])",
        tmp_path,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr[-3000:]}"
    lines = result.stdout.splitlines()
    assert [line.split(maxsplit=1)[0] for line in lines] == [str(n) for n in range(FORGERIES)]
    # Some were stopped before they were loaded, some by the loading, and none by the fingerprint.
    stopped = {line.split(maxsplit=2)[2].split(":")[0] for line in lines}
    assert {"graph", "loads"} <= stopped
    assert stopped.isdisjoint({"members", "fingerprint"})
