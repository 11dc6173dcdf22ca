"""SHA256SUMS: what `sha256sum` reads, and what no list of a stranger makes us read."""

import hashlib
import os
import shutil
import subprocess
import threading

import pytest

from export import checksums, verify

CONTENT = {
    "encoder.tar.gz": b"archive" * 1000,
    "encoder.md": "# Module \u2013 card\n".encode(),
    "encoder.png": b"",
}


def line(name, content):
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n"


@pytest.fixture
def folder(tmp_path):
    """Three files and their checksums."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    checksums.write(str(folder), tuple(CONTENT))
    return folder


def refusal(folder, needed="encoder.tar.gz"):
    with pytest.raises(ValueError) as caught:
        checksums.check(str(folder), needed)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    return str(caught.value)


def sha256sum(folder):
    return subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )


needs_sha256sum = pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum here")


def test_the_list_has_the_hash_of_each_file_by_name(folder):
    expected = "".join(line(name, CONTENT[name]) for name in sorted(CONTENT))

    assert (folder / "SHA256SUMS").read_bytes() == expected.encode("ascii")
    assert sorted(os.listdir(folder)) == sorted([*CONTENT, "SHA256SUMS"])


def test_the_order_in_which_files_are_named_does_not_show(folder):
    before = (folder / "SHA256SUMS").read_bytes()
    checksums.write(str(folder), tuple(reversed(CONTENT)))

    assert (folder / "SHA256SUMS").read_bytes() == before


@needs_sha256sum
def test_sha256sum_accepts_what_was_built(build):
    folder = build("block1_conv2")
    result = sha256sum(folder)

    assert result.returncode == 0, result.stdout + result.stderr
    assert sorted(result.stdout.split()[::2]) == sorted(
        f"{name}:" for name in os.listdir(folder) if name != "SHA256SUMS"
    )


@needs_sha256sum
@pytest.mark.parametrize("name", CONTENT)
def test_sha256sum_finds_what_the_check_finds(folder, name):
    assert sha256sum(folder).returncode == 0
    assert checksums.check(str(folder), name) == sorted(CONTENT)
    (folder / name).write_bytes(CONTENT[name] + b"\n")

    assert f"{name}: FAILED" in sha256sum(folder).stdout
    assert refusal(folder).startswith(f"{name} has the SHA-256 ")


@pytest.mark.parametrize("name", CONTENT)
def test_a_changed_file_is_named_with_both_hashes(folder, name):
    changed = CONTENT[name] + b"!"
    (folder / name).write_bytes(changed)

    expected, found = (hashlib.sha256(c).hexdigest() for c in (CONTENT[name], changed))
    assert refusal(folder) == f"{name} has the SHA-256 {found}, not the listed {expected}"


def test_files_that_are_not_there_are_passed_over(folder):
    (folder / "encoder.md").unlink()
    (folder / "encoder.png").unlink()

    assert checksums.check(str(folder), "encoder.tar.gz") == ["encoder.tar.gz"]


def test_files_that_are_not_listed_are_passed_over(folder):
    (folder / "notes.txt").write_text("mine")

    assert checksums.check(str(folder), "encoder.tar.gz") == sorted(CONTENT)


def test_a_list_without_the_archive_is_refused(folder):
    (folder / "SHA256SUMS").write_text(line("encoder.md", CONTENT["encoder.md"]))

    assert refusal(folder) == ("SHA256SUMS must list encoder.tar.gz. Received: encoder.md")


def test_an_empty_list_is_refused(folder):
    (folder / "SHA256SUMS").write_bytes(b"")

    assert refusal(folder).startswith("SHA256SUMS must list encoder.tar.gz.")


@pytest.mark.parametrize("content", [CONTENT["encoder.tar.gz"], b"other"], ids=["same", "other"])
def test_a_file_that_is_listed_twice_is_refused(folder, content):
    # Of two hashes one is always right.
    with open(folder / "SHA256SUMS", "a") as file:
        file.write(line("encoder.tar.gz", content))

    assert refusal(folder).endswith(
        "each file once. Received: encoder.md, encoder.png, encoder.tar.gz, encoder.tar.gz"
    )


HASH = hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize(
    "bad",
    [
        f"{HASH} *encoder.md",
        f"{HASH} encoder.md",
        f"{HASH}  encoder.md ",
        f" {HASH}  encoder.md",
        f"{HASH[:-1]}  encoder.md",
        f"{HASH}0  encoder.md",
        f"{HASH.upper()}  encoder.md",
        f"{'x' * 64}  encoder.md",
        f"\\{HASH}  encoder.md",
        f"SHA256 (encoder.md) = {HASH}",
        f"{HASH}  ",
        HASH,
        "# a comment",
        "",
        f"{HASH}  a file with spaces",
        f"{HASH}  .hidden",
        f"{HASH}  {'x' * 5000} ",
        f"{HASH}  encoder\x1b[2J.md",
        f"{HASH}  encoder\0.md",
    ],
    ids=lambda bad: repr(bad.replace(HASH, "HASH"))[:40],
)
def test_a_line_of_another_form_is_refused_and_shown(folder, bad):
    good = (folder / "SHA256SUMS").read_text()
    (folder / "SHA256SUMS").write_text(f"{good}{bad}\n{good}")

    assert refusal(folder).startswith("SHA256SUMS must hold lines of `SHA-256  NAME`. Received: ")
    assert repr(bad)[:99] in refusal(folder)


@pytest.mark.parametrize(
    "name",
    ["../secret", "..", ".", "/etc/passwd", "inside/secret", "./encoder.md", "~", "a\\b", "-/x"],
)
def test_nothing_outside_the_folder_is_ever_read(folder, name, monkeypatch):
    (folder.parent / "secret").write_bytes(b"secret")
    (folder / "inside").mkdir()
    (folder / "inside" / "secret").write_bytes(b"secret")
    with open(folder / "SHA256SUMS", "a") as file:
        file.write(line(name, b"secret"))
    monkeypatch.setattr(checksums, "file_digest", lambda path: pytest.fail(f"{path} was read"))

    assert refusal(folder).startswith("SHA256SUMS must hold lines of `SHA-256  NAME`. Received: ")


@pytest.mark.parametrize("content", ["\u2013", "\xff", "encoder.md\u2028"], ids=ascii)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_list_that_is_not_ascii_is_refused(folder, content, encoding):
    (folder / "SHA256SUMS").write_bytes(f"{HASH}  {content}\n".encode(encoding))

    assert refusal(folder).startswith("SHA256SUMS is not text in ASCII (")


def test_a_folder_of_a_listed_name_is_passed_over(folder):
    (folder / "encoder.md").unlink()
    (folder / "encoder.md").mkdir()

    assert checksums.check(str(folder), "encoder.tar.gz") == ["encoder.png", "encoder.tar.gz"]


def test_a_device_of_a_listed_name_is_not_waited_for(folder):
    (folder / "encoder.md").unlink()
    os.mkfifo(folder / "encoder.md")

    assert checksums.check(str(folder), "encoder.tar.gz") == ["encoder.png", "encoder.tar.gz"]


# Through the verifier.


def first_failure(path):
    return next(check for check in verify.verify(str(path)) if not check.passed)


def test_an_archive_that_is_not_the_listed_one_stops_the_verifier(build, tmp_path):
    shutil.copy(build("block1_conv2") / "SHA256SUMS", tmp_path)
    content = (build("block1_conv2") / "encoder.tar.gz").read_bytes()
    (tmp_path / "encoder.tar.gz").write_bytes(content[:-1])

    check = first_failure(tmp_path / "encoder.tar.gz")
    assert check.name == "checksums"
    assert check.detail.startswith("encoder.tar.gz has the SHA-256 ")


def test_an_archive_of_another_name_than_the_listed_one_stops_the_verifier(build, tmp_path):
    shutil.copy(build("block1_conv2") / "SHA256SUMS", tmp_path)
    shutil.copy(build("block1_conv2") / "encoder.tar.gz", tmp_path / "renamed.tar.gz")

    check = first_failure(tmp_path / "renamed.tar.gz")
    assert check.name == "checksums"
    assert check.detail.startswith("SHA256SUMS must list renamed.tar.gz.")


def test_the_files_beside_the_archive_are_held_against_the_list_too(build, tmp_path):
    folder = tmp_path / "artifact"
    shutil.copytree(build("block1_conv2"), folder)
    with open(folder / "encoder.png", "ab") as file:
        file.write(b"\0")

    check = first_failure(folder / "encoder.tar.gz")
    assert (check.name, check.detail[:11]) == ("checksums", "encoder.png")


def test_a_list_that_is_a_pipe_is_not_waited_for(folder):
    (folder / "SHA256SUMS").unlink()
    os.mkfifo(folder / "SHA256SUMS")
    found = []

    def check():
        try:
            checksums.check(str(folder), "encoder.tar.gz")
        except ValueError as error:
            found.append(error)

    thread = threading.Thread(target=check)
    thread.start()
    thread.join(timeout=2)
    waiting = thread.is_alive()
    if waiting:
        (folder / "SHA256SUMS").write_bytes(b"")  # Whoever reads it comes to the end.
        thread.join()
    assert not waiting
    assert len(found) == 1


def test_a_list_without_end_is_read_only_in_part(folder):
    with open(folder / "SHA256SUMS", "a") as file:
        file.truncate(1 << 40)  # A terabyte of nothing.
    with pytest.raises(ValueError, match="must hold lines of"):
        checksums.check(str(folder), "encoder.tar.gz")
