"""A folder that is put in place whole or not at all, whatever happens on the way."""

import errno
import fcntl
import itertools
import os
import signal
import subprocess
import sys

import pytest

from export.staging import staged
from tests.conftest import ROOT
from unpooling.errors import UserError

NAMES = ("model.bin", "model.md")
OLD = {name: f"old {name}".encode() for name in NAMES}
NEW = {name: f"new {name}".encode() for name in NAMES}


def write(directory, content):
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (directory / name).write_bytes(data)


def tree(directory):
    """Everything below a folder: name -> content, None for a folder."""
    return {
        str(path.relative_to(directory)): None if path.is_dir() else path.read_bytes()
        for path in directory.rglob("*")
    }


def below(folder, content):
    return {folder: None, **{f"{folder}/{name}": data for name, data in content.items()}}


def export(target, content=NEW, overwrite=False):
    with staged(str(target), NAMES, overwrite) as folder:
        for name, data in content.items():
            with open(os.path.join(folder, name), "wb") as file:
                file.write(data)
    return folder


def refusal(target, overwrite=False):
    """The message with which a folder is refused before anything is done."""
    before = tree(target.parent)
    with pytest.raises(UserError) as caught, staged(str(target), NAMES, overwrite):
        pytest.fail("the body ran")
    assert tree(target.parent) == before
    return str(caught.value)


# Whole.


def test_the_files_become_the_folder_and_nothing_else_remains(tmp_path):
    temporary = export(tmp_path / "dist" / "deep" / "model", {**NEW, "scratch": b"left behind"})
    assert tree(tmp_path / "dist" / "deep") == below("model", NEW)
    assert not os.path.exists(temporary)


@pytest.mark.parametrize("name", ["[2024] models", ".hidden"])
def test_a_folder_may_have_any_name_and_others_may_read_it(tmp_path, monkeypatch, name):
    umask = os.umask(0o027)
    try:
        export(tmp_path / name / name)
        monkeypatch.chdir(tmp_path)
        export(f"./{name}/{name}/", OLD, overwrite=True)
    finally:
        os.umask(umask)
    assert tree(tmp_path / name) == below(name, OLD)
    assert (tmp_path / name / name).stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("old", [{}, {"model.bin": b"old"}], ids=str)
def test_overwrite_replaces_all_files(tmp_path, old):
    write(tmp_path / "model", old)
    export(tmp_path / "model", overwrite=bool(old))  # An empty folder needs none.
    assert tree(tmp_path) == below("model", NEW)


def test_the_folder_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
    write(tmp_path / "there" / "real", OLD)
    (tmp_path / "model").symlink_to("there/real")
    export(tmp_path / "model", overwrite=True)
    assert os.readlink(tmp_path / "model") == "there/real"
    assert tree(tmp_path / "there") == below("real", NEW)


# Refused.


def test_existing_files_are_refused_by_name_without_overwrite(tmp_path):
    write(tmp_path / "model", OLD)
    assert refusal(tmp_path / "model") == (
        f"{tmp_path / 'model'} already holds model.bin, model.md: pass --overwrite to replace "
        "them, or choose another --output_dir."
    )


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "sub/file", "link"])
def test_a_folder_that_holds_anything_else_is_refused_and_never_emptied(tmp_path, name):
    write(tmp_path / "model", OLD)
    other = tmp_path / "model" / name
    other.parent.mkdir(exist_ok=True)
    if name == "link":
        other.symlink_to("model.bin")
    else:
        other.write_text("mine")
    assert refusal(tmp_path / "model", overwrite=True) == (
        f"{tmp_path / 'model'} holds {name.split('/')[0]}, which is not part of an artifact: "
        "move it away, or choose another --output_dir."
    )


def test_a_file_that_comes_up_while_the_body_runs_is_never_removed(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(UserError, match="holds notes"), staged(str(target), NAMES, True) as folder:
        write(tmp_path / folder, NEW)
        write(target, {"notes.txt": b"mine"})
    assert tree(tmp_path) == below("model", {"notes.txt": b"mine"})


def test_what_can_be_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path, words in (
        (tmp_path / "file", "is not a folder, or is a mount point: choose another"),
        (tmp_path / "file" / "dist" / "model", r"cannot be made \(Not a directory\): choose"),
        ("/", "is a mount point: choose another"),
    ):
        with pytest.raises(UserError, match=words):
            export(path, overwrite=True)
    assert tree(tmp_path) == {"file": b"mine"}


# Not at all.


@pytest.mark.parametrize("error", [RuntimeError(), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("old", [None, {}, OLD], ids=["fresh", "empty", "old"])
def test_a_body_that_raises_changes_nothing(tmp_path, old, error):
    target = tmp_path / "dist" / "deep" / "model"
    if old is not None:
        write(target, old)
    before = tree(tmp_path)
    with pytest.raises(type(error)), staged(str(target), NAMES, True) as folder:
        write(tmp_path / folder, NEW)
        raise error
    assert tree(tmp_path) == before


def test_a_body_that_made_only_some_of_the_files_changes_nothing(tmp_path):
    write(tmp_path / "model", OLD)
    with pytest.raises(FileNotFoundError, match=r"model\.md"):
        export(tmp_path / "model", {"model.bin": b"new"}, overwrite=True)
    assert tree(tmp_path) == below("model", OLD)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=repr)
def test_a_failure_between_the_two_renames_puts_the_old_folder_back(tmp_path, monkeypatch, error):
    write(tmp_path / "model", OLD)
    rename = os.rename

    def fail(source, target):
        if os.path.basename(source) == "complete":
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(type(error)):
        export(tmp_path / "model", overwrite=True)
    assert tree(tmp_path) == below("model", OLD)


def test_what_a_killed_process_left_is_removed_later_and_nothing_else(tmp_path):
    names = [f".model.partial-{name}" for name in ("abandoned", "locked", "young")]
    kept = [".model.partially", ".other.partial-x", *names[1:]]
    for name in [*kept, names[0]]:
        write(tmp_path / name, OLD)
        os.utime(tmp_path / name, (0, 0) if name != names[2] else None)
    lock = os.open(tmp_path / names[1], os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    export(tmp_path / "model")
    os.close(lock)
    assert {path.name for path in tmp_path.iterdir()} == {"model", *kept}
    export(tmp_path / "model", overwrite=True)
    assert not (tmp_path / names[1]).exists()


# For every line (step, folder) on stdin: exports there in a child that kills itself before its
# step-th event of the file system. Answers with that event ("-" for none).
KILLED = """
import os, signal, sys
from export import staging

def export(step, directory):
    count = 0

    def watch(event, _):
        nonlocal count
        if event.split(".")[0] in ("open", "os", "shutil", "tempfile"):
            count += 1
            if count == step:
                os.write(1, event.encode())
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    os.fsync = lambda descriptor: sys.audit("os.fsync", descriptor)
    with staging.staged(directory, sys.argv[1:], True) as folder:
        for name in sys.argv[1:]:
            with open(os.path.join(folder, name), "wb") as file:
                file.write(f"new {name}".encode())
    os.write(1, b"-")

for line in sys.stdin:
    step, directory = line.split()
    child = os.fork()
    if child == 0:
        export(int(step), directory)
        os._exit(0)
    print("", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.parametrize("old", [{}, OLD], ids=["fresh", "overwriting"])
def test_a_process_killed_at_any_step_leaves_the_old_folder_or_the_new(tmp_path, monkeypatch, old):
    # A kill is no power cut: to wait for the disk would show nothing.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    later = dict.fromkeys(NAMES, b"later")
    states = []
    command = [sys.executable, "-c", KILLED, *NAMES]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        for step in itertools.count(1):
            target = tmp_path / str(step) / "model"
            write(target, old) if old else target.parent.mkdir()
            print(step, target, file=process.stdin, flush=True)
            event, status = process.stdout.readline().split()
            if event == "-":
                break
            assert int(status) == -signal.SIGKILL, event
            found = tree(target)
            hidden = tree(target.with_name(".model.old"))
            if old and not found:  # Between the two renames; the next call puts it back.
                assert hidden == OLD, event
                with pytest.raises(RuntimeError), staged(str(target), NAMES, True):
                    assert tree(target) == OLD
                    raise RuntimeError
                found = tree(target)
            assert found in (old, NEW), event
            states.append(found)

            export(target, later, overwrite=True)
            assert tree(target) == later, event
            assert not target.with_name(".model.old").exists(), event
        process.stdin.close()
    assert tree(target.parent) == below("model", NEW)
    # There is one moment at which the new one comes, and from then on it is there.
    moment = states.count(old)
    assert 10 < moment < len(states)
    assert states[moment:] == [NEW] * (len(states) - moment)
