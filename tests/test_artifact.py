"""What an export leaves: all of its files, or nothing new at all."""

import os
import re

import pytest

from export import artifact

NAMES = ("encoder.png", "encoder.md", "encoder.tar.gz")
NEW = {name: f"new {name}".encode() for name in NAMES}
OLD = {name: f"old {name}".encode() for name in NAMES}


def write(directory, content):
    os.makedirs(directory, exist_ok=True)
    for name, data in content.items():
        with open(os.path.join(directory, name), "wb") as file:
            file.write(data)


def tree(directory):
    """Returns everything below a folder: name -> content, None for a folder."""
    return {
        str(path.relative_to(directory)): None if path.is_dir() else path.read_bytes()
        for path in directory.rglob("*")
    }


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
