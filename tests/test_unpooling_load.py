"""`unpooling.load`: from a folder, an archive or an address; what it refuses, before loading."""

import gc
import hashlib
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

import unpooling
from export import archive as archives
from tests import descriptors
from unpooling import archive
from unpooling.errors import UserError

ENCODER = descriptors.ENGINES[0]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder in which Keras caches downloads, for this test alone."""
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    return tmp_path / "unpooling"


@pytest.fixture(scope="module")
def check(saved_model):
    """Checks that a loaded object is the encoder."""
    expected = tf.saved_model.load(ENCODER.directory(saved_model))(descriptors.images())

    def compare(loaded):
        for found, wanted in zip(loaded(descriptors.images()), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)

    return compare


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def forge(directory):
    """Writes a module that reads a file when it is called."""
    root = tf.train.Checkpoint()
    root.variables = [tf.Variable(1.0)]
    root.__call__ = tf.function(
        lambda images: (images * root.variables[0], tf.io.read_file("/etc/hostname")),
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32)],
    )
    tf.saved_model.save(root, directory)


@pytest.fixture
def never_loaded(monkeypatch):
    monkeypatch.setattr(tf.saved_model, "load", lambda directory: pytest.fail("it was loaded"))


def test_a_folder_and_an_archive(build, saved_model, check):
    path = build(ENCODER.layer) / "encoder.tar.gz"
    for place in (path, ENCODER.directory(saved_model)):
        check(unpooling.load(str(place)))
        check(unpooling.load(pathlib.Path(place)))
    loaded = unpooling.load(path, sha256=digest(path))
    check(loaded)
    # All variables have been read, though the folder is gone.
    assert [v.shape.rank for v in loaded.variables] == [4, 1] * 4
    decoder = unpooling.load(descriptors.DECODERS[1].directory(saved_model))
    assert decoder(loaded(descriptors.images())).shape == (2, 36, 52, 3)


def test_a_path_that_tensorflow_would_take_for_a_pattern(build, saved_model, check, tmp_path):
    folder = tmp_path / "[2024] a*b?"
    shutil.copytree(ENCODER.directory(saved_model), folder)
    shutil.copy(build(ENCODER.layer) / "encoder.tar.gz", folder)
    check(unpooling.load(folder))
    check(unpooling.load(folder / "encoder.tar.gz"))


def test_an_address_is_downloaded_once_and_its_sha256_compared(build, serve, cache, check):
    path = build(ENCODER.layer) / "encoder.tar.gz"
    url = f"{serve(path.parent)}/encoder.tar.gz"
    check(unpooling.load(url, sha256=digest(path)))
    (cached,) = cache.iterdir()
    cached.touch()
    before = cached.stat().st_mtime_ns
    unpooling.load(url, sha256=digest(path))
    assert [each.stat().st_mtime_ns for each in cache.iterdir()] == [before]
    with pytest.raises(UserError, match=r"cannot be downloaded: .*(hash|sha256)"):
        unpooling.load(url, sha256="0" * 64)
    # Another address with the same file name is not mistaken for it.
    other = f"{serve(build('block1_conv2'))}/encoder.tar.gz"
    assert len(unpooling.load(other).variables) == 4


def test_what_is_refused_is_downloaded_again(build, serve, cache, check, tmp_path):
    good = build(ENCODER.layer) / "encoder.tar.gz"
    (tmp_path / "encoder.tar.gz").write_text("<html>please log in</html>")
    url = f"{serve(tmp_path)}/encoder.tar.gz"
    with pytest.raises(UserError, match=rf"{url}: not a complete gzip.*downloads it again"):
        unpooling.load(url)
    shutil.copy(good, tmp_path)
    check(unpooling.load(url, sha256=digest(good).upper()))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_address_with_nothing_behind_it_is_refused_in_a_line(serve, tmp_path, cache):
    with pytest.raises(UserError, match=r"/none\.tar\.gz cannot be downloaded: .*404") as error:
        unpooling.load(f"{serve(tmp_path)}/none.tar.gz")
    assert "\n" not in str(error.value)
    del error
    gc.collect()  # Keras leaves the answer open, which Python warns of.


@pytest.mark.usefixtures("never_loaded")
def test_another_sha256_is_refused(build, saved_model):
    path = build(ENCODER.layer) / "encoder.tar.gz"
    words = f"must have the SHA-256 {'0' * 64}. Received: {digest(path)}"
    with pytest.raises(UserError, match=words):
        unpooling.load(path, sha256="0" * 64)
    with pytest.raises(UserError, match=r"`sha256` is that of an archive, but .* is a folder"):
        unpooling.load(ENCODER.directory(saved_model), sha256=digest(path))


@pytest.mark.usefixtures("never_loaded")
def test_what_is_no_module_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no saved_model\.pb: it is not a module"):
        unpooling.load(tmp_path)
    with pytest.raises(UserError, match="none: not a complete gzip-compressed tar archive"):
        unpooling.load(tmp_path / "none")
    (tmp_path / "saved_model.pb").write_bytes(b"\xff" * 9)
    with pytest.raises(UserError, match=r"is refused: .*not a SavedModel"):
        unpooling.load(tmp_path)


def cut(path, kept):
    path.write_bytes(path.read_bytes()[:kept])


def rename(path, old, new):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: cut(folder / archive.FILES[1], 99),
        lambda folder: cut(folder / archive.FILES[2], 99),
        lambda folder: (folder / archive.FILES[1]).write_bytes(bytes(10**6)),
        lambda folder: rename(folder / "saved_model.pb", b"Conv2D:output:0", b"Conv2E:output:0"),
    ],
    ids=["variables cut", "index cut", "variables zeroed", "graph"],
)
def test_a_damaged_module_is_refused_in_a_line(saved_model, tmp_path, damage):
    folder = tmp_path / "module"
    shutil.copytree(ENCODER.directory(saved_model), folder)
    damage(folder)
    archives.pack(folder, tmp_path / "module.tar.gz")
    for place in (folder, tmp_path / "module.tar.gz"):
        with pytest.raises(UserError) as error:
            unpooling.load(place)
        assert str(error.value).startswith(f"{place} is damaged or incomplete (")
        assert str(error.value).endswith("). Copy or download it again and compare its checksum.")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("missing", [*archive.FILES[1:], archive.FOLDER])
def test_a_folder_without_all_its_files_is_refused_in_a_line(saved_model, tmp_path, missing):
    folder = tmp_path / "module"
    shutil.copytree(ENCODER.directory(saved_model), folder)
    os.rename(folder / missing, tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"module is damaged or incomplete \(.*\)\. Copy") as error:
        unpooling.load(folder)
    assert "experimental_io_device" not in str(error.value) and "\n" not in str(error.value)


def test_too_little_memory_is_no_damage(saved_model, monkeypatch):
    def load(directory):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    monkeypatch.setattr(tf.saved_model, "load", load)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        unpooling.load(ENCODER.directory(saved_model))


@pytest.mark.usefixtures("never_loaded")
def test_a_graph_that_reads_files_is_refused_in_any_wrapping(tmp_path, serve, cache):
    forge(str(tmp_path / "forged"))
    archives.pack(tmp_path / "forged", tmp_path / "forged.tar.gz")
    for place in ("forged", "forged.tar.gz"):
        with pytest.raises(UserError, match=f"{place} is refused: .*ReadFile"):
            unpooling.load(tmp_path / place)
    with pytest.raises(UserError, match="ReadFile"):
        unpooling.load(f"{serve(tmp_path)}/forged.tar.gz")
