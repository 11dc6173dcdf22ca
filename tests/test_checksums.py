"""SHA256SUMS: what `sha256sum` reads, and which lists of strangers are refused."""

import hashlib
import os
import shutil
import subprocess

import pytest

from export import checksums
from unpooling.errors import UserError

CONTENT = {
    "encoder.tar.gz": b"archive" * 1000,
    "encoder.md": "# Module \u2013 card\n".encode(),
    "encoder.png": b"",
}
HASH = hashlib.sha256(b"").hexdigest()


def line(name, content):
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n"


@pytest.fixture
def folder(tmp_path):
    """Three files and their checksums."""
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    checksums.write(str(tmp_path), tuple(CONTENT))
    return tmp_path


def refusal(folder, needed="encoder.tar.gz"):
    with pytest.raises(UserError) as caught:
        checksums.check(str(folder), needed)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    return str(caught.value)


def test_the_list_has_the_hash_of_each_file_by_name(folder):
    expected = "".join(line(name, CONTENT[name]) for name in sorted(CONTENT))
    assert (folder / "SHA256SUMS").read_bytes() == expected.encode("ascii")
    assert checksums.check(str(folder), "encoder.md") == sorted(CONTENT)
    assert checksums.read(str(folder)) == {
        name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()
    }


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="there is no sha256sum")
def test_sha256sum_agrees(folder):
    command = ["sha256sum", "--check", "--strict", "--status", "SHA256SUMS"]
    assert subprocess.run(command, cwd=folder).returncode == 0
    (folder / "encoder.png").write_bytes(b"\n")
    assert subprocess.run(command, cwd=folder).returncode == 1


def test_a_changed_file_is_named_with_both_hashes(folder):
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content + b"!")
        listed, found = (hashlib.sha256(c).hexdigest() for c in (content, content + b"!"))
        assert refusal(folder) == f"{name} has the SHA-256 {found}, not the listed {listed}"
        (folder / name).write_bytes(content)


def test_what_is_not_listed_or_is_no_file_is_passed_over(folder):
    (folder / "notes.txt").write_text("mine")
    (folder / "encoder.md").unlink()
    (folder / "encoder.md").mkdir()
    (folder / "encoder.png").unlink()
    os.mkfifo(folder / "encoder.png")
    assert checksums.check(str(folder), "encoder.tar.gz") == ["encoder.tar.gz"]


def test_a_list_without_the_archive_or_with_two_of_it_is_refused(folder):
    # Of two hashes one is always right.
    with open(folder / "SHA256SUMS", "a") as file:
        file.write(line("encoder.tar.gz", b"other"))
    assert refusal(folder).endswith(
        "each file once. Received: encoder.md, encoder.png, encoder.tar.gz, encoder.tar.gz"
    )
    (folder / "SHA256SUMS").write_text(line("encoder.md", CONTENT["encoder.md"]))
    assert refusal(folder) == "SHA256SUMS must list encoder.tar.gz. Received: encoder.md"


@pytest.mark.parametrize(
    "bad",
    [
        f"{HASH} *encoder.md",
        f"{HASH}  encoder.md ",
        f"{HASH}0  encoder.md",
        f"{HASH.upper()}  encoder.md",
        f"SHA256 (encoder.md) = {HASH}",
        "",
        f"{HASH}  a file with spaces",
        f"{HASH}  .hidden",
        f"{HASH}  {'x' * 5000} ",
        f"{HASH}  encoder\x1b[2J.md",
        # Nothing outside the folder is ever read.
        *(f"{HASH}  {name}" for name in ("../secret", "..", "/etc/passwd", "a/b", "~", "a\\b")),
    ],
    ids=lambda bad: repr(bad.replace(HASH, "HASH"))[:40],
)
def test_a_line_of_another_form_is_refused_and_shown(folder, bad):
    good = (folder / "SHA256SUMS").read_text()
    (folder / "SHA256SUMS").write_text(f"{good}{bad}\n{good}")
    message = refusal(folder)
    assert message.startswith("SHA256SUMS must hold lines of `SHA-256  NAME`. Received: ")
    assert repr(bad)[:99] in message
