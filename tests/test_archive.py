"""Archives of small stand-ins for a SavedModel: the same bytes every time, and safe to read.

test_hostile.py damages whole archives at random.
"""

import gzip
import hashlib
import io
import os
import pathlib
import random
import struct
import tarfile
import zlib

import pytest

from export import archive as archives
from export.checksums import digest
from tests.forging import in_gzip
from unpooling import archive, vgg19
from unpooling.errors import UserError

FILES = ("saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index")
MEMBERS = (FILES[0], "variables", *FILES[1:])

# Of a length that is no multiple of tar's blocks, longer than any buffer, and empty.
DATA = bytes(200_000) + random.Random(1).randbytes(200_000)
CONTENT = dict(zip(FILES, (b"graph" * 100, DATA, b""), strict=True))

# SHA-256 of the tar within the archive of `CONTENT`. Published archives are rebuilt byte for byte,
# so it may not change with the machine or with Python.
GOLDEN_TAR = "048b49ef330779d83e6e6e0b789a10e2b3d783b84397cb7006e85e95746d92f6"


def write_folder(directory, content=CONTENT):
    (directory / "variables").mkdir(parents=True)
    for name, data in content.items():
        (directory / name).write_bytes(data)
    return directory


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "model")


@pytest.fixture
def good(folder, tmp_path):
    archives.pack(str(folder), str(tmp_path / "good.tar.gz"))
    return (tmp_path / "good.tar.gz").read_bytes()


# Packing.


def test_what_was_packed_is_read_described_and_unpacked(good, tmp_path):
    read = archive.read(str(tmp_path / "good.tar.gz"))
    assert read.members == CONTENT
    assert (read.size, read.sha256) == tuple(digest(good).values())
    assert (read.tar, read.time) == (gzip.decompress(good), 0)
    assert good[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"  # No name, no time.
    assert hashlib.sha256(read.tar).hexdigest() == GOLDEN_TAR
    archives.check_form(read)
    described = archives.describe(read)
    assert described == {
        "archive": {**digest(good), "source_date_epoch": 0},
        "tar": digest(gzip.decompress(good)),
        "members": {name: digest(content) for name, content in CONTENT.items()},
    }
    assert list(described["members"]) == list(FILES)

    (tmp_path / "into").mkdir()
    read.unpack(str(tmp_path / "into"))
    found = {str(p.relative_to(tmp_path / "into")): p for p in (tmp_path / "into").rglob("*")}
    assert set(found) == set(MEMBERS)
    assert {name: found[name].read_bytes() for name in FILES} == CONTENT
    with pytest.raises(FileExistsError):
        read.unpack(str(tmp_path / "into"))


def test_nothing_but_the_content_shows(good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "")
    umask = os.umask(0o077)
    try:
        other = write_folder(tmp_path / "else where", dict(reversed(CONTENT.items())))
    finally:
        os.umask(umask)
    (other / "saved_model.pb").chmod(0o755)
    (other / "saved_model.pb").rename("elsewhere.pb")
    (other / "saved_model.pb").symlink_to("../elsewhere.pb")
    (other / "fingerprint.pb").write_bytes(b"a random number")
    for name in MEMBERS:
        os.utime(other / name, (1_000_000_000, 1_600_000_000))
    archives.pack("./else where/", "another name.tgz")
    assert pathlib.Path("another name.tgz").read_bytes() == good


@pytest.mark.parametrize("time", [1, 2**32 - 1])
def test_source_date_epoch_is_every_time_in_the_archive(folder, tmp_path, monkeypatch, time):
    path = tmp_path / "dated.tar.gz"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(time))
    archives.pack(str(folder), str(path))
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert path.read_bytes()[4:8] == struct.pack("<I", time)
    with tarfile.open(path) as tar:
        assert [member.mtime for member in tar] == [time] * len(MEMBERS)
    read = archive.read(str(path))
    archives.check_form(read)
    assert archives.describe(read)["archive"]["source_date_epoch"] == read.time == time


@pytest.mark.parametrize("value", ["x", "-1", "4294967296", "1.5", "1_000", "\u0661", "1\n2"])
def test_a_wrong_source_date_epoch_is_refused_by_name(folder, tmp_path, monkeypatch, value):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    with pytest.raises(UserError, match="SOURCE_DATE_EPOCH must be a whole number of seconds"):
        archives.pack(str(folder), str(tmp_path / "new.tar.gz"))
    assert not (tmp_path / "new.tar.gz").exists()


# Comparing with the form.


def member(name, data=b"", **fields):
    """A header of this name with `fields` set, and its data."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    if name == "variables":
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def entries(changes=()):
    """What a good archive consists of, with changes by the names of members; None takes one out."""
    good = {name: member(name, CONTENT.get(name, b"")) for name in MEMBERS}
    return [entry for entry in {**good, **dict(changes)}.values() if entry]


def tar_of(members, format=tarfile.USTAR_FORMAT):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def read(content, tmp_path):
    (tmp_path / "other.tar.gz").write_bytes(content)
    return archive.read(str(tmp_path / "other.tar.gz"))


def misform(content, tmp_path):
    """What `check_form` says against these bytes, which `read` takes all the same."""
    found = read(content, tmp_path)
    assert found.members == CONTENT
    with pytest.raises(UserError, match=r"^archive .*other\.tar\.gz: its ") as caught:
        archives.check_form(found)
    return str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda tar: tar_of(entries({"variables": member("variables", uid=1000)})),
        lambda tar: tar_of(entries({"variables": member("variables", mode=0o4755)})),
        lambda tar: tar_of(entries({"variables": member("variables", mtime=2**32)})),
        lambda tar: tar + tar,
        lambda tar: tar[: -tarfile.BLOCKSIZE],
        lambda tar: tar.replace(b"graphgraph\0", b"graphgraph!", 1),
        lambda tar: tar_of(entries(), tarfile.GNU_FORMAT),
        lambda tar: tar_of(reversed(entries())),
        lambda tar: tar_of([member("fingerprint.pb", b"1"), *entries()]),
    ],
    ids="user|mode|time|second tar|block less|padding|GNU|order|fingerprint".split("|"),
)
def test_another_tar_of_the_same_files_is_out_of_form(tmp_path, change):
    tar = change(tar_of(entries()))
    assert "its tar is not in the form" in misform(in_gzip(tar), tmp_path)


@pytest.mark.parametrize(
    "fields", [{"flags": 8, "extra": b"a name\0"}, {"time": 1}, {"end": b"\x02\x03"}], ids=str
)
def test_a_gzip_header_that_pack_does_not_write_is_out_of_form(tmp_path, fields):
    content = in_gzip(tar_of(entries()), **fields)
    assert "its gzip header is not in the form" in misform(content, tmp_path)


# Reading what `pack` did not make.


def refusal(content, tmp_path):
    """The message with which these bytes are refused, on one line."""
    with pytest.raises(UserError) as caught:
        read(content, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"archive {tmp_path / 'other.tar.gz'}: ")
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    "name",
    [
        *("/outside", "../outside", "variables/../../outside", "..", "/", "variables/more"),
        *("assets", "./saved_model.pb", "SAVED_MODEL.PB", "two\nlines", "\x1b[2J", "\udcff"),
    ],
    ids=ascii,
)
def test_another_name_is_refused_beside_the_members_and_in_place_of_one(tmp_path, name):
    evil = member(name, b"evil")
    for members in ([*entries(), evil], entries({"saved_model.pb": evil})):
        message = refusal(in_gzip(tar_of(members, tarfile.GNU_FORMAT)), tmp_path)
        assert f"the members must be {', '.join(MEMBERS)}. Received: " in message


@pytest.mark.parametrize("name", [*MEMBERS, "fingerprint.pb"])
def test_a_member_that_is_missing_or_there_twice_is_refused(tmp_path, name):
    twice = [member("fingerprint.pb"), *entries(), member(name)]
    assert f"variables.index, {name}." in refusal(in_gzip(tar_of(twice)), tmp_path)
    if name in MEMBERS:
        rest = ", ".join(each for each in MEMBERS if each != name)
        message = refusal(in_gzip(tar_of(entries({name: None}))), tmp_path)
        assert message.endswith(f"Received: {rest}.")


@pytest.mark.parametrize("name", ["saved_model.pb", "variables", "fingerprint.pb"])
def test_a_member_of_another_kind_is_refused(tmp_path, name):
    kind = "folder" if name == "variables" else "file"
    for fields in (
        {"type": tarfile.SYMTYPE, "linkname": "../outside"},
        {"type": tarfile.LNKTYPE, "linkname": "variables/variables.index"},
        {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.REGTYPE if kind == "folder" else tarfile.DIRTYPE},
    ):
        tar = tar_of(entries({name: member(name, **fields)}))
        words = f"member {name} must be a plain {kind}, not a link"
        assert words in refusal(in_gzip(tar), tmp_path)


# Twenty bytes in the archive, a terabyte on the disk.
SPARSE = {"GNU.sparse.size": "9" * 12, "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,4"}


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (SPARSE, "member saved_model.pb must be a plain file"),
        # tarfile raises errors of other kinds than its own.
        ({"GNU.sparse.map": "a,b"}, "not a complete"),
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, "not a complete"),
        ({"size": "9" * 30}, ""),
        ({"mtime": "inf"}, "not a complete"),
        ({"mtime": "nan"}, "not a complete"),
        ({"path": "/outside"}, "Received: /outside, variables"),
    ],
)
def test_extended_headers_do_not_get_round_the_checks(tmp_path, headers, words):
    changes = {"saved_model.pb": member("saved_model.pb", b"4444", pax_headers=headers)}
    tar = tar_of(entries(changes), tarfile.PAX_FORMAT)
    assert words in refusal(in_gzip(tar), tmp_path)


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_a_graph_or_index_that_is_too_large_is_refused(tmp_path, name):
    # Parsing a graph takes many times its size in memory.
    tar = tar_of(entries({name: member(name, bytes((4 << 20) + 1))}))
    message = refusal(in_gzip(tar, level=1), tmp_path)
    assert f"member {name} has 4,194,305 bytes, more than 4,194,304" in message


@pytest.mark.parametrize(
    "change",
    [
        *(lambda good, kept=kept: good[:kept] for kept in (0, 2, 10, 500, -8, -4, -1)),
        lambda good: good + b"more",
        lambda good: good + good,
        lambda good: gzip.decompress(good),
        lambda good: zlib.compress(gzip.decompress(good)),
        lambda good: gzip.compress(gzip.decompress(good)[:100_000]),
        lambda good: gzip.compress(b"an archive\n" * 1000),
    ],
)
def test_what_is_not_a_complete_archive_is_refused(good, tmp_path, change):
    assert "not a complete gzip-compressed tar archive (" in refusal(change(good), tmp_path)


# What would take for ever, or all memory: read in a process with half a gigabyte.

BOUNDED = """
import resource, sys
from unpooling import archive, errors

resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
for path in sys.argv[1:]:
    try:
        archive.read(path)
    except errors.UserError as error:
        print(error)
"""


def test_hostile_archives_are_refused_at_once_and_with_little_memory(run_command, tmp_path):
    negative = b"".join(
        info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)
        for info, data in entries({"saved_model.pb": member("saved_model.pb", size=-512)})
    )
    long = member("header", type=tarfile.XHDTYPE, size=1 << 20)[0].tobuf() + b"1" * (1 << 20)
    zeros = bytes(1 << 27)  # Some hundred kilobytes in gzip.
    large = member("saved_model.pb", size=1 << 27)[0].tobuf()
    tower = member("header", type=tarfile.GNUTYPE_LONGNAME, size=5)[0].tobuf() + bytes(512)
    too_large = f"more than {8 * vgg19.count_parameters(vgg19.LAYERS[-1]):,} bytes, as no module"
    cases = {
        "zeros": (gzip.compress(zeros), too_large),
        "member": (gzip.compress(large + zeros), too_large),
        # CVE-2025-8194: the same header again and again.
        "negative size": (in_gzip(negative), "a header states -512 bytes"),
        # CVE-2024-6232: hours of looking for a character set.
        "long header": (in_gzip(long + tar_of(entries())), "a header states 1048576 bytes"),
        "headers upon headers": (in_gzip(tower * 5000 + tar_of(entries())), "not a complete"),
    }
    for name, (content, _) in cases.items():
        (tmp_path / name).write_bytes(content)
    with open(tmp_path / "a terabyte", "wb") as file:
        file.truncate(1 << 40)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    cases |= dict.fromkeys(["pipe", "link", "."], (None, "it is not a file"))
    cases |= {"a terabyte": (None, "not a complete"), "gone": (None, "No such file")}

    result = run_command("-c", BOUNDED, *(f"{tmp_path}/{name}" for name in cases), timeout=60)
    assert result.returncode == 0, result.stderr
    for (name, (_, words)), line in zip(cases.items(), result.stdout.splitlines(), strict=True):
        assert line.startswith(f"archive {tmp_path}/{name}: ")
        assert words in line
