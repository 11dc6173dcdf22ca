"""What an export leaves: all of its files, or nothing new at all, whatever befalls it."""

import contextlib
import errno
import itertools
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent import futures

import pytest

from export import staging as artifact
from tests.conftest import ROOT

NAMES = ("encoder.tar.gz", "encoder.md", "encoder.png", "encoder.manifest.json", "SHA256SUMS")


def version(mark):
    return {name: f"{mark} {name}".encode() for name in NAMES}


NEW, OLD, LATER = version("new"), version("old"), version("later")
STRANGERS = {
    "others.txt": b"theirs",
    "link": "others.txt",
    "link to a folder": "others/deep",
    "link to nowhere": "../nowhere/at all",
    "others": None,
    "others/encoder.md": b"their card",
    "others/deep": None,
    "others/deep/notes.txt": b"their notes",
}


def write(directory, content):
    """Makes what `tree` returns."""
    os.makedirs(directory, exist_ok=True)
    for name, data in content.items():
        path = os.path.join(directory, name)
        if data is None:
            os.mkdir(path)
        elif isinstance(data, str):
            os.symlink(data, path)
        else:
            with open(path, "wb") as file:
                file.write(data)


def tree(directory):
    """Returns everything below a folder: name -> content, None for a folder, str for a link."""

    def content(path):
        if path.is_symlink():
            return os.readlink(path)
        return None if path.is_dir() else path.read_bytes()

    return {str(path.relative_to(directory)): content(path) for path in directory.rglob("*")}


def below(folder, content):
    return {folder: None, **{f"{folder}/{name}": data for name, data in content.items()}}


def export(target, content=NEW, overwrite=False, error=None):
    """Writes `content` as an artifact, in part only if `error` is raised; returns the folder."""
    with artifact.staged(str(target), NAMES, overwrite) as staging:
        write(staging, content)
        if error:
            raise error
    return staging


def test_files_arrive_complete_and_nothing_else_remains(tmp_path):
    export(tmp_path / "model")

    assert tree(tmp_path) == below("model", NEW)


def test_the_folder_is_made_with_its_parents(tmp_path):
    export(tmp_path / "dist" / "deep" / "model")

    assert tree(tmp_path / "dist" / "deep") == below("model", NEW)
    assert os.listdir(tmp_path) == ["dist"]
    assert os.listdir(tmp_path / "dist") == ["deep"]


@pytest.mark.parametrize("spelling", ["dist/model", "./dist/model/", "dist/../dist/model", "model"])
def test_a_relative_path_is_taken_from_the_working_folder(tmp_path, monkeypatch, spelling):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dist").mkdir()
    export(spelling)

    assert tree(tmp_path / spelling) == NEW
    assert set(os.listdir((tmp_path / spelling).parent)) <= {"dist", "model"}


def test_nothing_shows_in_the_target_while_the_body_runs(tmp_path):
    write(tmp_path / "model", OLD)
    with artifact.staged(str(tmp_path / "model"), NAMES, overwrite=True) as staging:
        assert os.listdir(staging) == []
        write(staging, NEW)
        assert tree(tmp_path / "model") == OLD

    assert tree(tmp_path / "model") == NEW


def test_the_body_works_beside_the_target_so_that_files_can_be_renamed(tmp_path):
    with artifact.staged(str(tmp_path / "model"), NAMES, overwrite=False) as staging:
        assert os.path.dirname(staging) == str(tmp_path)
        assert os.path.basename(staging).startswith(".")  # A server or `ls` does not show it.
        write(staging, NEW)


def test_what_the_body_leaves_beside_the_files_is_not_part_of_the_artifact(tmp_path):
    with artifact.staged(str(tmp_path / "model"), NAMES, overwrite=False) as staging:
        write(staging, {**NEW, "notes": b"scratch"})
        write(os.path.join(staging, "saved_model"), {"saved_model.pb": b"graph"})

    assert tree(tmp_path) == below("model", NEW)


def test_others_may_read_the_artifact_as_far_as_the_umask_allows(tmp_path):
    # The temporary folder is for its owner alone; what is published must not be.
    before = os.umask(0o022)
    try:
        export(tmp_path / "model")
    finally:
        os.umask(before)

    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o755
    for name in NAMES:
        assert (tmp_path / "model" / name).stat().st_mode & 0o777 == 0o644


ERRORS = [ValueError("wrong"), KeyboardInterrupt(), SystemExit(1)]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_body_that_raises_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)) as caught:
        export(tmp_path / "model", error=error)

    assert caught.value is error
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("old", [OLD, {"others.txt": b"theirs"}], ids=["artifact", "strangers"])
def test_a_body_that_raises_leaves_what_was_there(tmp_path, old, error):
    write(tmp_path / "model", old)

    with pytest.raises(type(error)):
        export(tmp_path / "model", overwrite=True, error=error)
    assert tree(tmp_path) == below("model", old)


@pytest.mark.parametrize("missing", NAMES)
@pytest.mark.parametrize("old", [{}, OLD], ids=["new", "overwriting"])
def test_a_body_that_made_only_some_of_the_files_changes_nothing(tmp_path, old, missing):
    # Whichever it is: an old card beside a new archive would be worse than either.
    if old:
        write(tmp_path / "model", old)
    before = tree(tmp_path)
    made = {name: data for name, data in NEW.items() if name != missing}

    with pytest.raises(OSError, match=re.escape(missing)):
        export(tmp_path / "model", made, overwrite=True)
    assert tree(tmp_path) == before


def never(target, overwrite=False):
    """Asks for a staging folder where none may be given."""
    with artifact.staged(str(target), NAMES, overwrite):
        pytest.fail("the body ran")


@pytest.mark.parametrize("held", [NAMES[:1], NAMES[1:], NAMES], ids="+".join)
def test_existing_files_are_refused_by_name_before_the_body_runs(tmp_path, held):
    old = {name: OLD[name] for name in held}
    write(tmp_path / "model", old)

    words = f"model already holds {', '.join(held)}: pass --overwrite .* --output_dir"
    with pytest.raises(FileExistsError, match=words):
        never(tmp_path / "model")
    assert tree(tmp_path) == below("model", old)


def test_a_link_to_nowhere_counts_as_an_existing_file(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "encoder.md").symlink_to(tmp_path / "nowhere")

    with pytest.raises(FileExistsError, match=r"encoder\.md"):
        never(tmp_path / "model")


@pytest.mark.parametrize("overwrite", [False, True])
def test_strangers_files_stay_and_stand_in_nobodys_way(tmp_path, overwrite):
    strangers = {"others.txt": b"theirs", "encoder.tar.gz.sig": b"signature"}
    write(tmp_path / "model", strangers)
    write(tmp_path / "neighbour", OLD)

    export(tmp_path / "model", overwrite=overwrite)
    expected = {**below("model", {**strangers, **NEW}), **below("neighbour", OLD)}
    assert tree(tmp_path) == expected


@pytest.mark.parametrize("held", [NAMES[:1], NAMES[1:], NAMES], ids="+".join)
def test_overwrite_replaces_existing_files(tmp_path, held):
    write(tmp_path / "model", {name: OLD[name] for name in held})

    export(tmp_path / "model", overwrite=True)
    assert tree(tmp_path) == below("model", NEW)


def test_overwrite_replaces_a_link_and_not_the_file_it_leads_to(tmp_path):
    write(tmp_path / "kept", {"card.md": b"kept"})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "encoder.md").symlink_to(tmp_path / "kept" / "card.md")

    export(tmp_path / "model", overwrite=True)
    assert tree(tmp_path) == {**below("model", NEW), **below("kept", {"card.md": b"kept"})}


@pytest.mark.parametrize("target", ["file/model", "file/dist/model"])
def test_a_parent_that_is_a_file_is_refused_before_the_body_runs(tmp_path, target):
    (tmp_path / "file").write_bytes(b"file")

    with pytest.raises(OSError, match="file"):
        never(tmp_path / target)
    assert tree(tmp_path) == {"file": b"file"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_target_that_is_a_file_is_refused_before_the_body_runs(tmp_path, overwrite):
    # An export takes minutes: it should not fail at its last step.
    (tmp_path / "model").write_bytes(b"file")

    with pytest.raises(OSError, match="model"):
        never(tmp_path / "model", overwrite)
    assert tree(tmp_path) == {"model": b"file"}


def test_a_folder_in_the_place_of_a_file_is_refused_before_the_body_runs(tmp_path):
    write(tmp_path / "model" / "encoder.tar.gz", {"others.txt": b"theirs"})
    write(tmp_path / "model", {"encoder.md": OLD["encoder.md"]})
    before = tree(tmp_path)

    with pytest.raises(OSError, match=r"encoder\.tar\.gz"):
        never(tmp_path / "model", overwrite=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o775], ids=oct)
def test_overwrite_keeps_the_mode_of_the_folder(tmp_path, mode):
    write(tmp_path / "model", OLD)
    (tmp_path / "model").chmod(mode)

    export(tmp_path / "model", overwrite=True)
    assert tree(tmp_path) == below("model", NEW)
    assert (tmp_path / "model").stat().st_mode & 0o7777 == mode


def test_strangers_files_stay_the_very_same_files(tmp_path):
    write(tmp_path / "model", {**OLD, **STRANGERS})
    (tmp_path / "model" / "others.txt").chmod(0o640)
    (tmp_path / "model" / "others").chmod(0o750)
    paths = [tmp_path / "model" / name for name in ("others.txt", "others/deep/notes.txt")]
    before = [path.stat() for path in paths]

    export(tmp_path / "model", overwrite=True)
    assert tree(tmp_path) == below("model", {**NEW, **STRANGERS})
    after = [path.stat() for path in paths]
    for kept in ("st_ino", "st_mode", "st_uid", "st_mtime_ns", "st_nlink"):
        assert [getattr(s, kept) for s in after] == [getattr(s, kept) for s in before], kept
    assert (tmp_path / "model" / "others").stat().st_mode & 0o7777 == 0o750


def test_strangers_files_that_come_up_while_the_body_runs_stay(tmp_path):
    write(tmp_path / "model", OLD)
    with artifact.staged(str(tmp_path / "model"), NAMES, overwrite=True) as staging:
        write(staging, NEW)
        write(tmp_path / "model", STRANGERS)

    assert tree(tmp_path) == below("model", {**NEW, **STRANGERS})


@pytest.mark.parametrize("before", [{}, STRANGERS], ids=["fresh", "strangers"])
def test_files_that_come_up_while_the_body_runs_are_refused_at_the_end(tmp_path, before):
    if before:
        write(tmp_path / "model", before)
    with (
        pytest.raises(FileExistsError, match=r"model already holds .*: pass --overwrite"),
        artifact.staged(str(tmp_path / "model"), NAMES, overwrite=False) as staging,
    ):
        write(staging, NEW)
        write(tmp_path / "model", LATER)

    assert tree(tmp_path) == below("model", {**before, **LATER})


def test_a_folder_that_is_removed_while_the_body_runs_is_made_anew(tmp_path):
    write(tmp_path / "model", OLD)
    with artifact.staged(str(tmp_path / "model"), NAMES, overwrite=True) as staging:
        write(staging, NEW)
        shutil.rmtree(tmp_path / "model")

    assert tree(tmp_path) == below("model", NEW)


@pytest.mark.parametrize("destination", ["../there/real", "{tmp_path}/there/real"])
def test_the_folder_behind_a_link_is_replaced_and_the_link_stays(tmp_path, destination):
    destination = destination.format(tmp_path=tmp_path)
    write(tmp_path / "there" / "real", {**OLD, **STRANGERS})
    write(tmp_path / "here", {"model": destination})

    staging = export(tmp_path / "here" / "model", overwrite=True)
    assert os.path.dirname(staging) == str(tmp_path / "there")
    assert tree(tmp_path / "here") == {"model": destination}
    assert tree(tmp_path / "there") == below("real", {**NEW, **STRANGERS})


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("target", ["dist/model", "dist/deep/deeper/model"])
def test_just_the_parents_made_for_a_body_that_raises_go_again(tmp_path, target, error):
    (tmp_path / "dist").mkdir()

    with pytest.raises(type(error)):
        export(tmp_path / target, error=error)
    assert tree(tmp_path) == {"dist": None}


def test_parents_made_for_a_body_that_raises_stay_if_others_use_them(tmp_path):
    target = tmp_path / "dist" / "deep" / "model"
    with (
        pytest.raises(ValueError),
        artifact.staged(str(target), NAMES, overwrite=False) as staging,
    ):
        write(staging, NEW)
        write(tmp_path / "dist", {"notes.txt": b"theirs"})
        raise ValueError("wrong")

    assert tree(tmp_path) == below("dist", {"notes.txt": b"theirs"})


@pytest.fixture
def no_exchange(monkeypatch):
    """A file system that cannot exchange two folders, as NFS."""

    def exchange(left, right):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), left, None, right)

    monkeypatch.setattr(artifact, "exchange", exchange)


@pytest.mark.parametrize("old", [{}, STRANGERS, OLD], ids=["empty", "strangers", "artifact"])
def test_without_exchange_an_existing_folder_is_refused_before_the_body_runs(
    tmp_path, no_exchange, old
):
    write(tmp_path / "model", old)

    target = re.escape(str(tmp_path / "model"))
    words = (
        f"file system of {target} cannot exchange two folders in one step .Invalid argument.: "
        f"remove {target} first, or choose another --output_dir"
    )
    with pytest.raises(OSError, match=words):
        never(tmp_path / "model", overwrite=True)
    assert tree(tmp_path) == below("model", old)


def test_without_exchange_a_fresh_folder_can_be_made(tmp_path, no_exchange):
    export(tmp_path / "dist" / "model")

    assert tree(tmp_path / "dist") == below("model", NEW)


@pytest.mark.parametrize("old", [{}, {**OLD, "others.txt": b"theirs"}], ids=["fresh", "old"])
def test_everything_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch, old):
    """A power cut may otherwise leave the new names with empty files behind them."""
    if old:
        write(tmp_path / "model", old)
    steps = []

    def identity(path):
        status = os.stat(path)
        return status.st_dev, status.st_ino

    def noting(function):
        def wrapper(*arguments):
            function(*arguments)
            if function is fsync:
                steps.append(identity(*arguments))
            elif arguments[-1] == str(tmp_path / "model"):
                steps.append("in place")

        return wrapper

    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", noting(fsync))
    monkeypatch.setattr(os, "rename", noting(os.rename))
    monkeypatch.setattr(artifact, "exchange", noting(artifact.exchange))
    export(tmp_path / "model", overwrite=True)

    assert tree(tmp_path) == below("model", {**old, **NEW})
    assert steps.count("in place") == 1
    moment = steps.index("in place")
    new = [tmp_path / "model", *(tmp_path / "model" / name for name in NAMES)]
    assert {identity(path) for path in new} <= set(steps[:moment])
    assert identity(tmp_path) in steps[moment:]


def start(script, *arguments):
    """Starts a script that uses `artifact`; all of its streams are pipes of text."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# For every line (step, folder) on stdin: publishes there in a child that kills itself before its
# step-th event of the file system; says before which event ("-" for none) and how the child ended.
KILLED = """
import os
import signal
import sys

from export import staging as artifact

NAMES = sys.argv[1:]
KINDS = ("open", "os", "shutil", "tempfile", "fcntl", "ctypes")


def publish(step, directory):
    count = 0

    def watch(event, _):
        nonlocal count
        if event.split(".")[0] in KINDS:
            count += 1
            if count == step:
                os.write(1, event.encode())
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    os.fsync = lambda descriptor: sys.audit("os.fsync", descriptor)
    with artifact.staged(directory, NAMES, True) as staging:
        for name in NAMES:
            with open(os.path.join(staging, name), "wb") as file:
                file.write(f"new {name}".encode())
    os.write(1, b"-")


for line in sys.stdin:
    step, directory = line.split()
    child = os.fork()
    if child == 0:
        publish(int(step), directory)
        os._exit(0)
    print("", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.parametrize("old", [{}, {**OLD, **STRANGERS}], ids=["fresh", "overwriting"])
def test_a_process_killed_at_any_step_leaves_the_old_artifact_or_the_new(
    tmp_path, monkeypatch, old
):
    # A kill is no power cut: waiting for the disk, a thousand times, would show nothing here.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    left = []
    with start(KILLED, *NAMES) as process:
        for step in itertools.count(1):
            target = tmp_path / str(step) / "model"
            if old:
                write(target, old)
            print(step, target, file=process.stdin, flush=True)
            answer = process.stdout.readline().split()
            assert len(answer) == 2, (step, answer, process.communicate())
            event, status = answer
            if event == "-":
                break
            assert int(status) == -signal.SIGKILL, (step, event)
            found = tree(target)
            assert found in (old, {**old, **NEW}), (step, event)
            assert target.exists() == bool(found), (step, event)
            left.append(found)

            export(target, LATER, overwrite=True)
            assert tree(target.parent) == below("model", {**old, **LATER}), (step, event)
        _, errors = process.communicate()

    assert (int(status), errors) == (0, "")
    assert tree(target.parent) == below("model", {**old, **NEW})
    assert len(left) >= 24
    # There is one moment at which the new one comes, and from then on it is there.
    moment = left.count(old)
    assert 0 < moment < len(left)
    assert left[moment:] == [{**old, **NEW}] * (len(left) - moment)


# Publishes once; in the body it prints the temporary folder and waits for the end of stdin.
PUBLISHER = """
import os
import sys

from export import staging as artifact

directory, mark, overwrite, user, *names = sys.argv[1:]
if user:
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
try:
    with artifact.staged(directory, names, overwrite == "True") as staging:
        for name in names:
            with open(os.path.join(staging, name), "wb") as file:
                file.write(f"{mark} {name}".encode())
        print(staging, flush=True)
        sys.stdin.read()
except OSError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@contextlib.contextmanager
def publisher(target, mark="new", overwrite=True, user=""):
    """Another process that publishes and has come to its body, if it was not refused before.

    It has an attribute `staging`, its temporary folder; `end(process)` lets its body end.
    """
    with start(PUBLISHER, target, mark, overwrite, user, *NAMES) as process:
        try:
            line = process.stdout.readline().rstrip()
            process.staging = pathlib.Path(line) if line else None
            yield process
        finally:
            process.kill()


def end(process):
    """Lets a publisher's body end; returns the exit status and what was said on stderr."""
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


def test_the_temporary_folder_of_a_live_process_is_left_alone(tmp_path):
    target = tmp_path / "model"
    with publisher(target) as process, publisher(target, "later") as other:
        assert end(other) == (0, "")
        assert tree(process.staging) == NEW
        assert tree(target) == LATER
        assert end(process) == (0, "")

    assert tree(tmp_path) == below("model", NEW)


def test_the_temporary_folder_of_a_dead_process_is_removed_by_the_next_success(tmp_path):
    target = tmp_path / "model"
    with publisher(target) as process:
        process.kill()
        process.wait()
    assert tree(process.staging) == NEW

    with pytest.raises(ValueError):
        export(target, error=ValueError("wrong"))
    assert tree(tmp_path) == below(process.staging.name, NEW)
    export(target, LATER)
    assert tree(tmp_path) == below("model", LATER)


def test_what_only_looks_like_a_temporary_folder_stays(tmp_path):
    others = {
        ".model.staging-file": b"a file",
        ".model.staging-link": "neighbour",
        ".model.staging-nowhere": "nowhere",
        ".other.staging-abcdefgh": None,
        ".other.staging-abcdefgh/encoder.md": b"another model's",
        ".models.staging-abcdefgh": None,
        "model.staging-abcdefgh": None,
        ".model": None,
        ".cache": None,
        ".cache/notes.txt": b"theirs",
        "neighbour": None,
        "neighbour/encoder.md": b"a neighbour's",
    }
    write(tmp_path, others)
    (tmp_path / "neighbour").chmod(0o555)

    for content in (NEW, LATER):
        export(tmp_path / "model", content, overwrite=True)
        assert tree(tmp_path) == {**others, **below("model", content)}
        assert (tmp_path / "neighbour").stat().st_mode & 0o777 == 0o555


def test_a_temporary_folder_that_was_just_made_is_not_taken_for_litter(tmp_path, monkeypatch):
    write(tmp_path / "model", OLD)
    mkdtemp = tempfile.mkdtemp
    others = []

    def followed_by_another_export(**options):
        folder = mkdtemp(**options)
        monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
        others.append(pool.submit(export, tmp_path / "model", LATER, overwrite=True))
        futures.wait(others, timeout=0.3)
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", followed_by_another_export)
    with futures.ThreadPoolExecutor() as pool:
        export(tmp_path / "model", overwrite=True)
        assert others[0].result()
    assert tree(tmp_path) in (below("model", NEW), below("model", LATER))


def test_nobody_comes_between_the_last_look_and_the_exchange(tmp_path, monkeypatch):
    target = tmp_path / "model"
    write(target, STRANGERS)
    exchange = artifact.exchange
    others = []

    def after_the_body_of_another(left, right):
        if right == str(target):
            others.append(pool.submit(end, process))
            futures.wait(others, timeout=0.3)
        exchange(left, right)

    monkeypatch.setattr(artifact, "exchange", after_the_body_of_another)
    with futures.ThreadPoolExecutor() as pool, publisher(target, "later", False) as process:
        export(target)
        status, errors = others[0].result()
    assert status == 1
    assert errors.startswith("FileExistsError: ")
    assert tree(tmp_path) == below("model", {**NEW, **STRANGERS})


def test_of_many_at_once_without_overwrite_just_one_succeeds(tmp_path):
    target = tmp_path / "model"
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(publisher(target, mark, overwrite=False)) for mark in range(8)
        ]
        assert all(process.staging for process in processes)
        for process in random.sample(processes, len(processes)):
            process.stdin.close()
            process.stdin = None
        ends = [end(process) for process in processes]

    statuses = [status for status, _ in ends]
    assert sorted(statuses) == [0] + [1] * 7
    assert tree(tmp_path) == below("model", version(statuses.index(0)))
    for status, errors in ends:
        assert errors.startswith("FileExistsError: ") == bool(status), errors


# Publishes many times, as soon as a line comes in.
REPEATED = """
import os
import random
import sys
import time

from export import staging as artifact

directory, mark, *names = sys.argv[1:]
sys.stdin.readline()
for _ in range(8):
    with artifact.staged(directory, names, True) as staging:
        for name in names:
            with open(os.path.join(staging, name), "wb") as file:
                file.write(f"{mark} {name}".encode())
        time.sleep(random.uniform(0, 0.01))
"""


def snapshot(directory, names):
    """What a reader finds who opens the folder once; None if it is replaced while being read."""
    folder = os.open(directory, os.O_RDONLY)

    def read(name):
        with open(name, "rb", opener=lambda *how: os.open(*how, dir_fd=folder)) as file:
            return file.read()

    try:
        return {name: read(name) for name in names}
    except FileNotFoundError:
        return None
    finally:
        os.close(folder)


def test_of_many_at_once_with_overwrite_a_reader_sees_one_complete_artifact_each_time(tmp_path):
    target = tmp_path / "model"
    theirs = {"others.txt": b"theirs", "others.md": b"theirs too"}
    write(target, {**OLD, **theirs})
    versions = {mark: {**version(mark), **theirs} for mark in ("old", *range(8))}
    seen = []
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(start(REPEATED, target, mark, *NAMES)) for mark in range(8)
        ]
        for process in processes:
            stack.callback(process.kill)
        for process in processes:
            print(file=process.stdin, flush=True)
        deadline = time.monotonic() + 60
        while any(process.poll() is None for process in processes):
            assert time.monotonic() < deadline, "they wait for each other"
            found = snapshot(target, versions["old"])
            if found is not None:
                assert found in versions.values()
                seen.append(found["SHA256SUMS"])
        ends = [end(process) for process in processes]

    assert ends == [(0, "")] * 8
    assert tree(tmp_path) in [below("model", content) for content in versions.values()]
    assert len(set(seen)) > 3


# On Linux and macOS these are nobody's rights; root has to become somebody, as it may do anything.
ORDINARY = 65534 if os.geteuid() == 0 else ""


@pytest.fixture
def reachable():
    """A folder that an ordinary user can come to, which pytest's own are not if root made them."""
    folder = pathlib.Path(os.path.realpath(tempfile.mkdtemp()))
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


def hand_over(folder):
    """Makes an ordinary user the owner of a folder and of everything below."""
    if ORDINARY:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, ORDINARY, ORDINARY, follow_symlinks=False)


@pytest.mark.parametrize(
    "old, locked", [({}, "."), ({**OLD, **STRANGERS}, "."), ({**OLD, **STRANGERS}, "model")]
)
def test_a_folder_without_write_permission_is_refused_before_the_body_runs(reachable, old, locked):
    if old:
        write(reachable / "model", old)
    before = tree(reachable)
    hand_over(reachable)
    (reachable / locked).chmod(0o555)

    with publisher(reachable / "model", user=ORDINARY) as process:
        assert process.staging is None, "the body ran"
        status, errors = end(process)
    assert status == 1
    assert errors.startswith("PermissionError: ") and errors.count("\n") == 1
    assert str(reachable / locked) in errors
    assert tree(reachable) == before


@pytest.mark.parametrize(
    "old, locked", [({}, "."), ({**OLD, **STRANGERS}, "."), ({**OLD, **STRANGERS}, "model")]
)
def test_write_permission_taken_away_while_the_body_runs_changes_nothing(reachable, old, locked):
    if old:
        write(reachable / "model", old)
    hand_over(reachable)

    with publisher(reachable / "model", user=ORDINARY) as process:
        assert process.staging
        (reachable / locked).chmod(0o555)
        status, errors = end(process)
    assert status == 1
    assert errors.startswith("PermissionError: ") and errors.count("\n") == 1
    assert str(reachable / "model") in errors
    assert tree(reachable / "model") == old

    (reachable / locked).chmod(0o755)
    with publisher(reachable / "model", "later", user=ORDINARY) as process:
        assert end(process) == (0, "")
    assert tree(reachable) == below("model", {**old, **LATER})


def test_a_strangers_read_only_sub_folder_leaves_no_litter(reachable):
    write(reachable / "model", {**OLD, **STRANGERS})
    hand_over(reachable)
    (reachable / "model" / "others").chmod(0o555)

    for mark in ("new", "later"):
        with publisher(reachable / "model", mark, user=ORDINARY) as process:
            assert end(process) == (0, "")
    assert tree(reachable) == below("model", {**LATER, **STRANGERS})


def test_a_strangers_file_that_may_not_be_read_stays(reachable):
    write(reachable / "model", {**OLD, **STRANGERS})
    hand_over(reachable)
    (reachable / "model" / "others.txt").chmod(0)

    with publisher(reachable / "model", user=ORDINARY) as process:
        assert end(process) == (0, "")
    (reachable / "model" / "others.txt").chmod(0o644)
    assert tree(reachable) == below("model", {**NEW, **STRANGERS})


def test_a_temporary_folder_that_may_not_be_read_is_no_error(reachable):
    """Another user's, for example."""
    litter = reachable / ".model.staging-abcdefgh"
    litter.mkdir(mode=0)
    hand_over(reachable)

    with publisher(reachable / "model", user=ORDINARY) as process:
        assert end(process) == (0, "")
    assert tree(reachable / "model") == NEW


def test_a_temporary_folder_that_goes_while_it_is_looked_at_is_no_error(tmp_path, monkeypatch):
    """Its process removes it without the lock on the parent."""
    going = tmp_path / ".model.staging-abcdefgh"
    going.mkdir()
    look = os.open

    def late(path, *arguments, **options):
        if path == str(going) and going.exists():
            going.rmdir()
        return look(path, *arguments, **options)

    monkeypatch.setattr(os, "open", late)
    export(tmp_path / "model")
    assert tree(tmp_path) == below("model", NEW)


def test_a_strangers_file_that_comes_up_at_the_last_moment_stays(tmp_path, monkeypatch):
    write(tmp_path / "model", OLD)
    exchange = artifact.exchange

    def late(left, right):
        if right == str(tmp_path / "model"):
            write(right, STRANGERS)
        exchange(left, right)

    monkeypatch.setattr(artifact, "exchange", late)
    export(tmp_path / "model", overwrite=True)
    assert tree(tmp_path) == below("model", {**NEW, **STRANGERS})


@pytest.mark.parametrize("scratch", [{"complete": b"scratch"}, {"complete": None}])
def test_the_body_may_leave_something_of_any_name(tmp_path, scratch):
    export(tmp_path / "model", {**NEW, **scratch})

    assert tree(tmp_path) == below("model", NEW)
