"""Archives of tiny stand-ins for a SavedModel: the same bytes every time, and safe to unpack."""

import gzip
import hashlib
import io
import os
import random
import resource
import stat
import struct
import subprocess
import sys
import tarfile
import zlib

import pytest

from unpooling import archive, vgg19

MEMBERS = (
    "fingerprint.pb",
    "saved_model.pb",
    "variables",
    "variables/variables.data-00000-of-00001",
    "variables/variables.index",
)
FILES = tuple(name for name in MEMBERS if name != "variables")

# Of a length that is no multiple of tar's blocks, empty, and longer than any buffer: half of it
# shrinks under gzip, half of it does not.
CONTENT = {
    "fingerprint.pb": b"",
    "saved_model.pb": b"graph" * 100,
    "variables/variables.data-00000-of-00001": bytes(200_000) + random.Random(1).randbytes(200_000),
    "variables/variables.index": bytes(range(256)) * 2,
}

# SHA-256 of the tar within the archive of `CONTENT`. Published archives are rebuilt byte for byte,
# so it may not change with the machine or with Python. (The bytes of gzip around it are those of
# the zlib that Python was built with.)
GOLDEN_TAR = "11dc9f1e5c7a71ddc4889f542d3a4ff737d7e0a984309db64e342d19ad75837b"


def write_folder(directory, content=CONTENT):
    (directory / "variables").mkdir(parents=True)
    for name, data in content.items():
        (directory / name).write_bytes(data)
    return directory


def packed(directory, path):
    archive.pack(str(directory), str(path))
    return path.read_bytes()


def tree(directory):
    """Returns everything below a folder: name -> content, None for a folder."""
    return {
        str(path.relative_to(directory)): None if path.is_dir() else path.read_bytes()
        for path in directory.rglob("*")
    }


@pytest.fixture(autouse=True)
def _no_source_date_epoch(monkeypatch):
    """Keeps a time that a packager has set out of the archives that are compared here."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "model")


@pytest.fixture
def good(folder, tmp_path):
    """The bytes of a good archive."""
    return packed(folder, tmp_path / "good.tar.gz")


def test_the_members_are_those_a_hub_accepts():
    assert archive.members() == MEMBERS


# Packing.


def test_what_was_packed_comes_back(good, tmp_path):
    target = tmp_path / "into"
    target.mkdir()
    archive.unpack(str(tmp_path / "good.tar.gz"), str(target))

    assert tree(target) == {**CONTENT, "variables": None}


def test_tar_tools_find_the_members_in_order_at_the_top(good):
    with tarfile.open(fileobj=io.BytesIO(good), mode="r:gz") as tar:
        assert tuple(tar.getnames()) == MEMBERS
        for name in FILES:
            assert tar.extractfile(name).read() == CONTENT[name]


def test_headers_hold_nothing_of_the_machine_or_the_user(good):
    with tarfile.open(fileobj=io.BytesIO(good), mode="r:gz") as tar:
        for member in tar:
            assert member.mtime == 0
            assert (member.uid, member.gid) == (0, 0)
            assert (member.uname, member.gname, member.linkname) == ("", "", "")
            assert member.pax_headers == {}
            if member.name == "variables":
                assert (member.type, member.mode, member.size) == (tarfile.DIRTYPE, 0o755, 0)
            else:
                assert (member.type, member.mode) == (tarfile.REGTYPE, 0o644)


def test_names_are_plain_in_the_headers_themselves(good):
    # Python strips a trailing slash; a folder has one, and nothing begins with "./".
    parts = gzip.decompress(good).split(b"ustar\x0000")
    names = [part[-257:].split(b"\0")[0].decode() for part in parts[:-1]]

    assert names == [f"{name}/" if name == "variables" else name for name in MEMBERS]


def test_the_gzip_header_holds_no_name_and_no_time(good):
    magic, method, flags, time = good[:2], good[2], good[3], good[4:8]

    assert (magic, method) == (b"\x1f\x8b", 8)
    assert (flags, time) == (0, bytes(4))


def test_the_tar_has_the_same_bytes_for_ever(good):
    assert hashlib.sha256(gzip.decompress(good)).hexdigest() == GOLDEN_TAR


def test_the_path_of_the_folder_does_not_show(good, tmp_path):
    elsewhere = write_folder(tmp_path / "deep" / "down" / "elsewhere")

    assert packed(elsewhere, tmp_path / "other.tar.gz") == good


def test_the_name_of_the_archive_does_not_show(good, folder, tmp_path):
    assert packed(folder, tmp_path / "another-name.tgz") == good


def test_relative_paths_and_a_trailing_slash_do_not_show(good, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive.pack("./model/", "other.tar.gz")

    assert (tmp_path / "other.tar.gz").read_bytes() == good


def test_times_do_not_show(good, folder, tmp_path):
    for number, name in enumerate(MEMBERS):
        os.utime(folder / name, (1_000_000_000 + number, 1_600_000_000 + number))

    assert packed(folder, tmp_path / "other.tar.gz") == good


def test_modes_do_not_show(good, folder, tmp_path):
    for name in FILES:
        (folder / name).chmod(0o755 if name.endswith(".pb") else 0o600)
    (folder / "variables").chmod(0o700)

    assert packed(folder, tmp_path / "other.tar.gz") == good


def test_the_umask_does_not_show(good, tmp_path):
    before = os.umask(0o077)
    try:
        other = packed(write_folder(tmp_path / "private"), tmp_path / "other.tar.gz")
    finally:
        os.umask(before)

    assert other == good


def test_the_order_in_which_files_were_made_does_not_show(good, tmp_path):
    other = write_folder(tmp_path / "other", dict(reversed(CONTENT.items())))

    assert packed(other, tmp_path / "other.tar.gz") == good


def test_a_link_is_packed_as_the_file_it_leads_to(good, folder, tmp_path):
    (folder / "saved_model.pb").rename(tmp_path / "kept_elsewhere.pb")
    (folder / "saved_model.pb").symlink_to(tmp_path / "kept_elsewhere.pb")

    assert packed(folder, tmp_path / "other.tar.gz") == good


def test_the_content_of_every_member_shows(good, tmp_path):
    for name, data in CONTENT.items():
        changed = data[:-1] + b"!"
        place = tmp_path / name.replace("/", "-")
        other = write_folder(place / "model", {**CONTENT, name: changed})
        assert packed(other, place / "other.tar.gz") != good, name


def test_pack_never_touches_an_existing_file(folder, tmp_path):
    (tmp_path / "old.tar.gz").write_bytes(b"old")

    with pytest.raises(FileExistsError, match=r"old\.tar\.gz"):
        archive.pack(str(folder), str(tmp_path / "old.tar.gz"))
    assert (tmp_path / "old.tar.gz").read_bytes() == b"old"


def test_pack_never_follows_a_link_to_a_file_that_is_not_there(folder, tmp_path):
    (tmp_path / "old.tar.gz").symlink_to(tmp_path / "victim")

    with pytest.raises(FileExistsError):
        archive.pack(str(folder), str(tmp_path / "old.tar.gz"))
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("name", MEMBERS)
def test_pack_names_the_member_that_a_folder_lacks_and_writes_nothing(folder, tmp_path, name):
    # With the folder go its files; any of them may be named first.
    (folder / name).rename(tmp_path / "kept")

    with pytest.raises(FileNotFoundError, match=name):
        archive.pack(str(folder), str(tmp_path / "new.tar.gz"))
    assert not (tmp_path / "new.tar.gz").exists()


@pytest.mark.parametrize("name", MEMBERS)
def test_pack_names_the_member_that_is_of_the_wrong_kind_and_writes_nothing(tmp_path, name):
    content = {each: data for each, data in CONTENT.items() if not each.startswith(name)}
    if name == "variables":
        (tmp_path / "model").mkdir()
        for each, data in {**content, name: b"no folder"}.items():
            (tmp_path / "model" / each).write_bytes(data)
    else:
        (write_folder(tmp_path / "model", content) / name).mkdir()

    with pytest.raises(OSError, match=name):
        archive.pack(str(tmp_path / "model"), str(tmp_path / "new.tar.gz"))
    assert not (tmp_path / "new.tar.gz").exists()


# SOURCE_DATE_EPOCH.


@pytest.mark.parametrize("time", [1, 1_700_000_000, 2**31, 2**32 - 1])
def test_source_date_epoch_is_every_time_in_the_archive(folder, tmp_path, monkeypatch, time):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(time))
    content = packed(folder, tmp_path / "dated.tar.gz")

    assert content[4:8] == struct.pack("<I", time)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        assert [member.mtime for member in tar] == [time] * len(MEMBERS)


def test_nothing_but_the_times_follows_from_source_date_epoch(good, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    content = packed(folder, tmp_path / "dated.tar.gz")

    members = entries()
    for info, _ in members.values():
        info.mtime = 1_700_000_000
    assert content == in_gzip(tar_of(members.values()), time=1_700_000_000)
    assert content != good


def test_an_archive_with_times_is_in_form_and_unpacks_wherever(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    packed(folder, tmp_path / "dated.tar.gz")
    (tmp_path / "into").mkdir()

    for time in (None, "1", "x"):
        if time is None:
            monkeypatch.delenv("SOURCE_DATE_EPOCH")
        else:
            monkeypatch.setenv("SOURCE_DATE_EPOCH", time)
        archive.check_form(str(tmp_path / "dated.tar.gz"))
        described = archive.describe(str(tmp_path / "dated.tar.gz"))
        assert described["archive"]["source_date_epoch"] == 1_700_000_000
    archive.unpack(str(tmp_path / "dated.tar.gz"), str(tmp_path / "into"))
    assert tree(tmp_path / "into") == {**CONTENT, "variables": None}


def test_an_empty_source_date_epoch_counts_as_unset(good, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "")

    assert packed(folder, tmp_path / "other.tar.gz") == good


@pytest.mark.parametrize(
    "value",
    [
        *("x", "-1", "4294967296", "1.5", "99999999999", "0x10", " 1", "1_000", "1e9", "\u0661"),
        "1\n2",
    ],
)
def test_a_wrong_source_date_epoch_is_refused_by_name(folder, tmp_path, monkeypatch, value):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)

    with pytest.raises(ValueError) as caught:
        archive.pack(str(folder), str(tmp_path / "new.tar.gz"))
    message = str(caught.value)
    assert message.startswith("SOURCE_DATE_EPOCH must be a whole number of seconds since 1970")
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "new.tar.gz").exists()


# Describing, and holding against the form.


def test_the_description_is_what_other_tools_find(good, tmp_path):
    plain = gzip.decompress(good)
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        members = {name: tar.extractfile(name).read() for name in FILES}

    def digest(content):
        return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    found = archive.describe(str(tmp_path / "good.tar.gz"))
    assert found == {
        "archive": {**digest(good), "source_date_epoch": 0},
        "tar": digest(plain),
        "members": {name: digest(content) for name, content in members.items()},
    }
    assert list(found["members"]) == list(FILES)
    assert members == CONTENT


def test_what_cannot_be_unpacked_cannot_be_described(good, tmp_path):
    (tmp_path / "short.tar.gz").write_bytes(good[:-1])

    for look in (archive.describe, archive.check_form):
        with pytest.raises(ValueError, match=r"archive .*short\.tar\.gz: not a complete gzip"):
            look(str(tmp_path / "short.tar.gz"))


def misform(content, tmp_path):
    """Returns what `check_form` has against these bytes, which `unpack` takes all the same."""
    path, target = tmp_path / "other.tar.gz", tmp_path / "into"
    path.write_bytes(content)
    target.mkdir()
    archive.unpack(str(path), str(target))
    assert tree(target) == {**CONTENT, "variables": None}
    try:
        archive.check_form(str(path))
    except ValueError as error:
        assert str(error).startswith(f"archive {path}: its ")
        assert str(error).endswith("Make archives with build_encoder.py.")
        assert "\n" not in str(error)
        return str(error)
    return None


def test_the_helpers_make_the_form_of_pack(good, tmp_path):
    # So what is refused below is refused for its one fault.
    assert tar_of(entries().values()) == gzip.decompress(good)
    assert in_gzip(tar_of(entries().values())) == good
    assert misform(good, tmp_path) is None


@pytest.mark.parametrize("level", [0, 1, 6])
def test_another_compression_is_in_form(good, tmp_path, level):
    content = in_gzip(gzip.decompress(good), level=level)

    assert content != good
    assert misform(content, tmp_path) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"uid": 1000},
        {"gid": 1000},
        {"uname": "builder"},
        {"gname": "builders"},
        {"mode": 0o600},
        {"mode": 0o4755},
        {"mtime": 1},
        {"mtime": 2**32},
        {"linkname": "elsewhere"},
        {"devmajor": 1},
    ],
    ids=lambda fields: "-".join(f"{key}-{value}" for key, value in fields.items()),
)
@pytest.mark.parametrize("name", MEMBERS)
def test_a_header_that_pack_does_not_write_is_out_of_form(tmp_path, name, fields):
    members = entries()
    for field, value in fields.items():
        setattr(members[name][0], field, value)
    tar = tar_of(members.values())
    if "devmajor" in fields:  # Python writes it for devices alone.
        tar = with_header_field(tar, name, slice(329, 337), b"0000001\0")

    assert "its tar is not in the form" in misform(in_gzip(tar), tmp_path)


@pytest.mark.parametrize("time", [-1, 2**32, 2**33, 2**40])
def test_times_that_gzip_cannot_tell_are_out_of_form(tmp_path, time):
    members = entries()
    for info, _ in members.values():
        info.mtime = time
    tar = tar_of(members.values(), tarfile.GNU_FORMAT)

    assert "its tar is not in the form" in misform(in_gzip(tar), tmp_path)


@pytest.mark.parametrize("time", [1, 2**32 - 1])
def test_a_time_in_the_tar_alone_or_around_it_alone_is_out_of_form(good, tmp_path, time):
    members = entries()
    for info, _ in members.values():
        info.mtime = time
    tar = tar_of(members.values())
    for number, (content, words) in enumerate(
        [
            (in_gzip(tar), "its gzip header is not"),
            (in_gzip(gzip.decompress(good), time=time), "its gzip header is not"),
            (in_gzip(tar, time=time), None),
        ]
    ):
        place = tmp_path / str(number)
        place.mkdir()
        found = misform(content, place)
        assert found is None if words is None else words in found


def test_formats_that_pack_does_not_write_are_out_of_form(good, tmp_path):
    gnu = tar_of(entries().values(), tarfile.GNU_FORMAT)
    members = entries()
    members["saved_model.pb"][0].pax_headers = {"comment": "by hand"}
    pax = tar_of(members.values(), tarfile.PAX_FORMAT)
    for number, tar in enumerate([gnu, pax]):
        place = tmp_path / str(number)
        place.mkdir()
        assert tar != gzip.decompress(good)
        assert "its tar is not in the form" in misform(in_gzip(tar), place)


def test_another_order_is_out_of_form(tmp_path):
    tar = tar_of(reversed(entries().values()))

    assert "its tar is not in the form" in misform(in_gzip(tar), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tar: tar + bytes(tarfile.RECORDSIZE),
        lambda tar: tar + b"more",
        lambda tar: tar + tar,
        lambda tar: tar[: -tarfile.BLOCKSIZE],
        lambda tar: tar[:-1] + b"!",
        lambda tar: tar.replace(b"graphgraph\0", b"graphgraph!", 1),
    ],
    ids=["zeros", "text", "a second tar", "a block less", "in the last block", "in the padding"],
)
def test_something_beside_the_members_is_out_of_form(good, tmp_path, change):
    tar = change(gzip.decompress(good))

    assert tar != gzip.decompress(good)
    assert "its tar is not in the form" in misform(in_gzip(tar), tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"flags": 8, "extra": b"encoder.tar\0"},
        {"flags": 16, "extra": b"a comment\0"},
        {"flags": 4, "extra": b"\5\0extra"},
        {"flags": 1},
        {"end": b"\x02\x03"},
        {"end": b"\x00\xff"},
        {"end": b"\x04\xff"},
    ],
    ids=["name", "comment", "extra field", "text", "system", "default level", "fastest level"],
)
def test_a_gzip_header_that_pack_does_not_write_is_out_of_form(good, tmp_path, fields):
    content = in_gzip(gzip.decompress(good), **fields)

    assert gzip.decompress(content) == gzip.decompress(good)
    assert "its gzip header is not in the form" in misform(content, tmp_path)


# Unpacking what `pack` did not make.


def entries():
    """Returns what a good archive consists of, to be made worse: name -> (header, data)."""
    good = {}
    for name in MEMBERS:
        info = tarfile.TarInfo(name)
        if name == "variables":
            info.type = tarfile.DIRTYPE
            info.mode = 0o755
        else:
            info.size = len(CONTENT[name])
        good[name] = (info, CONTENT.get(name, b""))
    return good


def member(name, data=b"", **fields):
    """Returns a header of this name with `fields` set, and its data."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_gz(members, format=tarfile.USTAR_FORMAT):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", format=format) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def tar_of(members, format=tarfile.USTAR_FORMAT):
    return gzip.decompress(tar_gz(members, format))


def in_gzip(tar, *, level=9, flags=0, time=0, end=b"\x02\xff", extra=b""):
    """Returns these bytes in gzip, byte by byte as RFC 1952 has it, by default as `pack` does."""
    deflate = zlib.compressobj(level, wbits=-zlib.MAX_WBITS)
    return b"".join(
        [
            b"\x1f\x8b\x08" + bytes([flags]) + struct.pack("<I", time) + end + extra,
            deflate.compress(tar) + deflate.flush(),
            struct.pack("<II", zlib.crc32(tar), len(tar)),
        ]
    )


def with_header_field(tar, name, place, value):
    """Returns a tar in which a field of a member's header is changed, its checksum put right."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as reader:
        start = reader.getmember(name).offset
    header = bytearray(tar[start : start + tarfile.BLOCKSIZE])
    header[place] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return tar[:start] + header + tar[start + tarfile.BLOCKSIZE :]


def refusal(content, tmp_path):
    """Returns the message with which an archive is refused that changes nothing anywhere."""
    path, target = tmp_path / "bad.tar.gz", tmp_path / "into"
    path.write_bytes(content)
    target.mkdir()
    before = tree(tmp_path)
    with pytest.raises(ValueError) as caught:
        archive.unpack(str(path), str(target))
    message = str(caught.value)
    assert tree(tmp_path) == before
    assert message.startswith(f"archive {path}: ")
    assert "\n" not in message
    return message


def test_the_helper_makes_archives_that_are_taken(tmp_path):
    # So what is refused below is refused for its one fault.
    (tmp_path / "fine.tar.gz").write_bytes(tar_gz(entries().values()))
    (tmp_path / "into").mkdir()
    archive.unpack(str(tmp_path / "fine.tar.gz"), str(tmp_path / "into"))

    assert tree(tmp_path / "into") == {**CONTENT, "variables": None}


OUTSIDE = [
    "{}/outside",
    "../outside",
    "variables/../../outside",
    "..",
    "/",
    "./../outside",
    "variables/../../into/saved_model.pb",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_outside_is_refused_beside_the_members(tmp_path, name):
    extra = member(name.format(tmp_path), b"evil")

    message = refusal(tar_gz([*entries().values(), extra]), tmp_path)
    assert f"the members must be {', '.join(MEMBERS)}. Received: " in message


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_outside_is_refused_in_place_of_a_member(tmp_path, name):
    changed = {**entries(), "saved_model.pb": member(name.format(tmp_path), b"evil")}

    message = refusal(tar_gz(changed.values()), tmp_path)
    assert f"the members must be {', '.join(MEMBERS)}. Received: " in message


def test_a_name_that_leads_outside_by_an_extended_header_is_refused(tmp_path):
    long = member("saved_model.pb", b"evil", pax_headers={"path": f"{tmp_path}/outside"})
    changed = {**entries(), "saved_model.pb": long}

    message = refusal(tar_gz(changed.values(), tarfile.PAX_FORMAT), tmp_path)
    assert f"Received: fingerprint.pb, {tmp_path}/outside, variables" in message


@pytest.mark.parametrize(
    "fields",
    [
        {"type": tarfile.SYMTYPE, "linkname": "../outside"},
        {"type": tarfile.SYMTYPE, "linkname": "fingerprint.pb"},
        {"type": tarfile.LNKTYPE, "linkname": "fingerprint.pb"},
        {"type": tarfile.LNKTYPE, "linkname": "../outside"},
        {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
        {"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 0},
        {"type": tarfile.FIFOTYPE},
    ],
    ids=["symlink out", "symlink", "hard link", "hard link out", "device", "block device", "fifo"],
)
@pytest.mark.parametrize("name", ["saved_model.pb", "variables", "variables/variables.index"])
def test_a_link_or_device_in_place_of_a_member_is_refused(tmp_path, name, fields):
    (tmp_path / "outside").mkdir()
    changed = {**entries(), name: member(name, **fields)}

    message = refusal(tar_gz(changed.values()), tmp_path)
    kind = "folder" if name == "variables" else "file"
    assert f"member {name} must be a plain {kind}, not a link" in message


def test_a_link_before_the_folder_of_its_name_is_refused(tmp_path):
    (tmp_path / "outside").mkdir()
    link = member("variables", type=tarfile.SYMTYPE, linkname="../outside")

    assert "Received: variables, " in refusal(tar_gz([link, *entries().values()]), tmp_path)


def test_a_sparse_file_is_refused(tmp_path):
    # Twenty bytes in the archive, a terabyte on the disk.
    sparse = {"GNU.sparse.size": str(10**12), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,4"}
    changed = {**entries(), "saved_model.pb": member("saved_model.pb", b"abcd", pax_headers=sparse)}

    # A file that is written after all stops soon.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 24, limits[1]))
    try:
        message = refusal(tar_gz(changed.values(), tarfile.PAX_FORMAT), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "member saved_model.pb must be a plain file" in message


@pytest.mark.parametrize("size", [-1, -tarfile.BLOCKSIZE])
def test_a_negative_size_is_refused_at_once(tmp_path, size):
    # Up to Python 3.13.5 `tarfile` reads the same header again and again until memory is full
    # (CVE-2025-8194), so this runs in a process of its own that can be ended.
    bad, good = bytearray(), entries()
    for info, data in good.values():
        if info.name == "saved_model.pb":
            info.size, data = size, b""
        bad += info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)
    (tmp_path / "bad.tar.gz").write_bytes(gzip.compress(bad + bytes(tarfile.RECORDSIZE)))
    (tmp_path / "into").mkdir()

    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\nfrom export import archive\narchive.unpack(*sys.argv[1:])",
            tmp_path / "bad.tar.gz",
            tmp_path / "into",
        ],
        cwd=os.path.dirname(os.path.dirname(archive.__file__)),
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert f"ValueError: archive {tmp_path / 'bad.tar.gz'}: " in result.stderr
    assert not list((tmp_path / "into").iterdir())


# Unpacks every file that is named, with half a gigabyte of memory, and says what was refused.
BOUNDED = """
import resource, sys
from export import archive

resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
for path in sys.argv[2:]:
    try:
        archive.unpack(path, sys.argv[1])
    except ValueError as error:
        print(error)
"""


def bounded_refusals(paths, tmp_path, timeout=30):
    """Returns the messages of `BOUNDED`, one for each path; nothing is written."""
    (tmp_path / "into").mkdir()
    result = subprocess.run(
        [sys.executable, "-c", BOUNDED, tmp_path / "into", *paths],
        cwd=os.path.dirname(os.path.dirname(archive.__file__)),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert result.returncode == 0, result.stderr
    assert not list((tmp_path / "into").iterdir())
    messages = result.stdout.splitlines()
    for path, message in zip(paths, messages, strict=True):
        assert message.startswith(f"archive {path}: ")
    return messages


def gigabyte(path, start):
    """Writes gzip of `start` and a gigabyte of zeros: complete, and a megabyte long."""
    part = bytes(1 << 24)
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    first = deflate.compress(start) + deflate.flush(zlib.Z_FULL_FLUSH)
    zeros = deflate.compress(part) + deflate.flush(zlib.Z_FULL_FLUSH)  # Good again and again.
    checksum, size = zlib.crc32(start), len(start) + 64 * len(part)
    for _ in range(64):
        checksum = zlib.crc32(part, checksum)
    end = deflate.flush() + struct.pack("<II", checksum, size)
    path.write_bytes(b"\x1f\x8b\x08\0\0\0\0\0\x02\xff" + first + zeros * 64 + end)
    return path


def test_what_grows_without_end_is_refused_with_little_memory(tmp_path):
    limit = 8 * vgg19.count_parameters(vgg19.LAYERS[-1])
    model, _ = member("saved_model.pb", size=1 << 30)
    start = tar_of([entries()["fingerprint.pb"]])[: tarfile.BLOCKSIZE]
    bombs = [
        gigabyte(tmp_path / "zeros.tar.gz", b""),
        gigabyte(tmp_path / "member.tar.gz", start + model.tobuf(tarfile.USTAR_FORMAT)),
    ]

    assert all(bomb.stat().st_size < 2 << 20 for bomb in bombs)
    for message in bounded_refusals(bombs, tmp_path):
        assert message.endswith(f"holds more than {limit:,} bytes, as no encoder does.")


def test_a_file_larger_than_any_archive_is_not_read(tmp_path):
    with open(tmp_path / "huge.tar.gz", "wb") as file:
        file.truncate(1 << 40)  # A terabyte, of which the disk holds nothing.

    (message,) = bounded_refusals([tmp_path / "huge.tar.gz"], tmp_path)
    assert "holds more than" in message


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "fifo.tar.gz")
    (tmp_path / "folder.tar.gz").mkdir()
    (tmp_path / "link.tar.gz").symlink_to("/dev/zero")
    paths = [tmp_path / f"{name}.tar.gz" for name in ("fifo", "folder", "link")]
    if stat.S_ISCHR(os.stat("/dev/zero").st_mode):
        paths += ["/dev/zero", "/dev/null"]

    for message in bounded_refusals(paths, tmp_path):
        assert message.endswith("tar archive (it is a folder, a device or the like).")


@pytest.mark.parametrize("size", [1 << 20, -600])
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE])
def test_a_long_extended_header_is_refused_at_once(tmp_path, size, kind):
    # CVE-2024-6232: a thousand bytes in the archive, hours of looking for a character set.
    header, _ = member("header", type=kind, size=size)
    tar = header.tobuf(tarfile.GNU_FORMAT) + b"1" * (1 << 20) + tar_of(entries().values())
    (tmp_path / "slow.tar.gz").write_bytes(in_gzip(tar))

    try:
        bounded_refusals([tmp_path / "slow.tar.gz"], tmp_path, timeout=5)
    except subprocess.TimeoutExpired:
        pytest.fail("it is still at work")


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[2Jcleared", "\udcff"])
def test_names_that_are_no_text_are_named_in_one_printable_line(tmp_path, name):
    message = refusal(tar_gz([member(name, b"evil")]), tmp_path)

    assert message.isprintable()


@pytest.mark.parametrize("name", MEMBERS)
def test_a_duplicate_member_is_refused(tmp_path, name):
    message = refusal(tar_gz([*entries().values(), entries()[name]]), tmp_path)

    assert message.endswith(f"Received: {', '.join(MEMBERS)}, {name}.")


def test_a_duplicate_in_place_of_another_member_is_refused(tmp_path):
    changed = {**entries(), "saved_model.pb": member("fingerprint.pb", b"again")}

    assert "Received: fingerprint.pb, fingerprint.pb, " in refusal(
        tar_gz(changed.values()), tmp_path
    )


@pytest.mark.parametrize(
    "extra",
    [
        member("assets/vocabulary.txt", b"words"),
        member("assets", type=tarfile.DIRTYPE),
        member("variables/more", b"more"),
        member("./saved_model.pb", b"again"),
        member("SAVED_MODEL.PB", b"again"),
        member("link", type=tarfile.SYMTYPE, linkname="/"),
    ],
    ids=lambda extra: extra[0].name,
)
def test_an_extra_member_is_refused(tmp_path, extra):
    message = refusal(tar_gz([*entries().values(), extra]), tmp_path)

    assert message.endswith(f"Received: {', '.join(MEMBERS)}, {extra[0].name}.")


@pytest.mark.parametrize("name", MEMBERS)
def test_a_missing_member_is_refused(tmp_path, name):
    changed = entries()
    del changed[name]

    message = refusal(tar_gz(changed.values()), tmp_path)
    rest = ", ".join(each for each in MEMBERS if each != name)
    assert message.endswith(f"the members must be {', '.join(MEMBERS)}. Received: {rest}.")


def test_an_archive_without_members_is_refused(tmp_path):
    assert "Received: none." in refusal(tar_gz([]), tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    changed = {**entries(), "variables": member("variables", b"no folder")}

    assert "member variables must be a plain folder" in refusal(tar_gz(changed.values()), tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_place_of_a_file_is_refused(tmp_path, name):
    changed = {**entries(), name: member(name, type=tarfile.DIRTYPE)}

    assert f"member {name} must be a plain file" in refusal(tar_gz(changed.values()), tmp_path)


# Damage.

INCOMPLETE = "not a complete gzip-compressed tar archive ("


@pytest.mark.parametrize(
    "kept", [0, 1, 2, 9, 10, 11, 100, 500, 0.25, 0.5, 0.75, -2000, -100, -9, -8, -7, -4, -1]
)
def test_an_archive_cut_short_is_refused(good, tmp_path, kept):
    content = good[: round(kept * len(good)) if isinstance(kept, float) else kept]

    assert INCOMPLETE in refusal(content, tmp_path)


@pytest.mark.parametrize("position", [-8, -7, -6, -5, -4, -3, -2, -1])
def test_a_wrong_checksum_or_length_at_the_end_of_gzip_is_refused(good, tmp_path, position):
    content = bytearray(good)
    content[position] ^= 1

    assert INCOMPLETE in refusal(content, tmp_path)


def test_a_flipped_bit_anywhere_in_the_data_is_refused(good, tmp_path):
    # After the ten bytes of the header, whose time and system say nothing of the content.
    for number, position in enumerate(range(10, len(good), 3001)):
        content = bytearray(good)
        content[position] ^= 1 << number % 8
        place = tmp_path / str(position)
        place.mkdir()

        assert INCOMPLETE in refusal(content, place)


@pytest.mark.parametrize("kept", [512, 1000, 5000, 100_000, 400_000])
def test_a_tar_cut_short_inside_good_gzip_is_refused(good, tmp_path, kept):
    refusal(gzip.compress(gzip.decompress(good)[:kept]), tmp_path)


def test_something_after_the_end_is_refused(good, tmp_path):
    assert INCOMPLETE in refusal(good + b"more", tmp_path)


def test_a_plain_tar_is_refused(good, tmp_path):
    assert INCOMPLETE in refusal(gzip.decompress(good), tmp_path)


def test_another_compression_than_gzips_is_refused(good, tmp_path):
    assert INCOMPLETE in refusal(zlib.compress(gzip.decompress(good)), tmp_path)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("content", [b"", b"an archive\n" * 1000], ids=["empty", "text"])
def test_what_is_no_tar_is_refused(tmp_path, content, compress):
    assert INCOMPLETE in refusal(compress(content), tmp_path)


@pytest.mark.parametrize("name", [name for name in FILES if ".data-" not in name])
def test_a_graph_or_index_that_is_too_large_is_refused(tmp_path, name):
    # Reading a graph takes many times its size in memory.
    changed = {**entries(), name: member(name, bytes((4 << 20) + 1))}

    message = refusal(tar_gz(changed.values()), tmp_path)
    assert f"member {name} has 4,194,305 bytes, more than 4,194,304" in message


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.map": "a,b"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
        {"size": "9" * 30},
    ],
    ids=["words for numbers", "sparse without a map", "a size beyond all files"],
)
def test_headers_that_make_no_sense_are_refused(tmp_path, headers):
    # `tarfile` lets out errors that are not its own, and say nothing of the archive.
    changed = {
        **entries(),
        "saved_model.pb": member("saved_model.pb", b"4444", pax_headers=headers),
    }

    refusal(tar_gz(changed.values(), tarfile.PAX_FORMAT), tmp_path)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_upon_headers_are_refused(tmp_path, kind):
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, 5
    tower = (header.tobuf(tarfile.USTAR_FORMAT) + b"5 x=\n".ljust(tarfile.BLOCKSIZE, b"\0")) * 5000

    refusal(gzip.compress(tower + tar_of(entries().values())), tmp_path)


def test_a_missing_archive_is_refused_by_name(tmp_path):
    (tmp_path / "into").mkdir()

    with pytest.raises(ValueError, match=r"archive .*gone\.tar\.gz: .*No such file"):
        archive.unpack(str(tmp_path / "gone.tar.gz"), str(tmp_path / "into"))
    assert not list((tmp_path / "into").iterdir())


def test_a_folder_is_no_archive(folder, tmp_path):
    (tmp_path / "into").mkdir()

    with pytest.raises(ValueError, match=r"archive .*model: .*it is a folder"):
        archive.unpack(str(folder), str(tmp_path / "into"))


@pytest.mark.parametrize("name", MEMBERS)
def test_unpack_never_replaces_a_file(good, tmp_path, name):
    old = tmp_path / "into" / name
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")

    # The archive is good: what is wrong is the folder, and the error says so.
    with pytest.raises(FileExistsError, match=name.split("/")[0]):
        archive.unpack(str(tmp_path / "good.tar.gz"), str(tmp_path / "into"))
    assert old.read_bytes() == b"old"
