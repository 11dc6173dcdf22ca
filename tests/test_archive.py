"""Archives of tiny stand-ins for a SavedModel: the same bytes every time, and safe to unpack."""

import gzip
import hashlib
import io
import os
import random
import resource
import subprocess
import sys
import tarfile

import pytest

from export import archive

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


# Unpacking what `pack` did not make.


def entries():
    """Returns what a good archive consists of, to be made worse: name -> (header, data)."""
    good = {}
    for name in MEMBERS:
        info = tarfile.TarInfo(name)
        if name == "variables":
            info.type = tarfile.DIRTYPE
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


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("content", [b"", b"an archive\n" * 1000], ids=["empty", "text"])
def test_what_is_no_tar_is_refused(tmp_path, content, compress):
    assert INCOMPLETE in refusal(compress(content), tmp_path)


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
