"""Two names change places in one step, or nothing happens at all."""

import ctypes
import os
import pathlib
import sys
import tempfile

import pytest

from export.exchange import exchange


def folder(path, content):
    path.mkdir()
    (path / "content.txt").write_text(content)
    return path


def content(path):
    return (path / "content.txt").read_text()


def test_two_folders_change_names(tmp_path):
    left, right = folder(tmp_path / "left", "of left"), folder(tmp_path / "right", "of right")
    before = left.stat().st_ino, right.stat().st_ino

    exchange(str(left), str(right))
    assert (content(left), content(right)) == ("of right", "of left")
    assert (right.stat().st_ino, left.stat().st_ino) == before
    assert sorted(os.listdir(tmp_path)) == ["left", "right"]


def test_twice_is_as_if_nothing_had_happened(tmp_path):
    left, right = folder(tmp_path / "left", "of left"), folder(tmp_path / "right", "of right")

    exchange(str(left), str(right))
    exchange(str(left), str(right))
    assert (content(left), content(right)) == ("of left", "of right")


def test_a_folder_moves_into_another_parent(tmp_path):
    left = folder(tmp_path / "left", "of left")
    inner = folder(left / "inner", "of inner")
    right = folder(tmp_path / "right", "of right")

    exchange(str(inner), str(right))
    assert (content(inner), content(right)) == ("of right", "of inner")
    assert content(left) == "of left"


def test_two_files_change_names(tmp_path):
    (tmp_path / "left").write_text("of left")
    (tmp_path / "right").write_text("of right")

    exchange(str(tmp_path / "left"), str(tmp_path / "right"))
    assert (tmp_path / "left").read_text() == "of right"
    assert (tmp_path / "right").read_text() == "of left"


def test_a_file_and_a_folder_change_names(tmp_path):
    (tmp_path / "file").write_text("of file")
    folder(tmp_path / "folder", "of folder")

    exchange(str(tmp_path / "file"), str(tmp_path / "folder"))
    assert content(tmp_path / "file") == "of folder"
    assert (tmp_path / "folder").read_text() == "of file"


def test_a_link_changes_its_name_and_not_what_it_leads_to(tmp_path):
    real = folder(tmp_path / "real", "of real")
    other = folder(tmp_path / "other", "of other")
    (tmp_path / "link").symlink_to("real")

    exchange(str(tmp_path / "link"), str(other))
    assert content(tmp_path / "link") == "of other"
    assert os.readlink(other) == "real"
    assert content(real) == "of real"


@pytest.mark.parametrize("names", [("left", "right"), ("ä ö", "it's\n")], ids=["plain", "odd"])
def test_paths_may_be_relative_and_odd(tmp_path, monkeypatch, names):
    monkeypatch.chdir(tmp_path)
    left, right = (folder(pathlib.Path(name), f"of {name!a}") for name in names)

    exchange(*names)
    assert (content(left), content(right)) == (f"of {names[1]!a}", f"of {names[0]!a}")


@pytest.mark.parametrize("present", [["left"], ["right"], []], ids=["left", "right", "neither"])
def test_a_missing_one_is_an_error_that_names_both(tmp_path, present):
    for name in present:
        folder(tmp_path / name, f"of {name}")
    left, right = str(tmp_path / "left"), str(tmp_path / "right")

    with pytest.raises(FileNotFoundError) as caught:
        exchange(left, right)
    assert (caught.value.filename, caught.value.filename2) == (left, right)
    assert left in str(caught.value) and right in str(caught.value)
    assert os.listdir(tmp_path) == present
    assert all(content(tmp_path / name) == f"of {name}" for name in present)


def test_a_folder_and_one_inside_it_is_an_error(tmp_path):
    outer = folder(tmp_path / "outer", "of outer")
    inner = folder(outer / "inner", "of inner")

    with pytest.raises(OSError, match="inner"):
        exchange(str(outer), str(inner))
    assert (content(outer), content(inner)) == ("of outer", "of inner")


def test_two_file_systems_are_an_error(tmp_path):
    memory = pathlib.Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    left = folder(tmp_path / "left", "of left")

    with tempfile.TemporaryDirectory(dir=memory) as parent:
        right = folder(pathlib.Path(parent) / "right", "of right")
        with pytest.raises(OSError) as caught:
            exchange(str(left), str(right))
        assert str(left) in str(caught.value) and str(right) in str(caught.value)
        assert (content(left), content(right)) == ("of left", "of right")


class Library:
    """A C library with one function at most, which notes how it is called and fails."""

    def __init__(self, name=None):
        self.calls = []
        if name:
            setattr(self, name, self.call)

    def call(self, *arguments):
        self.calls.append([getattr(argument, "value", argument) for argument in arguments])
        return -1


def test_a_system_that_has_no_such_function_is_an_error(tmp_path, monkeypatch):
    left, right = folder(tmp_path / "left", "of left"), folder(tmp_path / "right", "of right")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library())

    with pytest.raises(OSError, match=r"system cannot exchange .*left and .*right in one step"):
        exchange(str(left), str(right))
    assert (content(left), content(right)) == ("of left", "of right")


@pytest.mark.parametrize(
    "platform, name, call",
    [
        ("darwin", "renamex_np", [b"left", b"right", 2]),
        ("linux", "renameat2", [-100, b"left", -100, b"right", 2]),
    ],
)
def test_each_system_is_asked_in_its_own_way(monkeypatch, platform, name, call):
    library = Library(name)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library)

    with pytest.raises(OSError):
        exchange("left", "right")
    assert library.calls == [call]
