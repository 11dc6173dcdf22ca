"""The manifest: what it states is so, and what is not as it states is named."""

import copy
import getpass
import gzip
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shutil
import socket
import tarfile
import threading
import zlib

import numpy as np
import pytest
import tensorflow as tf

import export
from export import checksums, manifest, saved_model, verify
from unpooling import archive, weights
from unpooling.encoder import Encoder

LAYER = "block2_conv2"
NAME = "encoder.manifest.json"
FILES = (
    "fingerprint.pb",
    "saved_model.pb",
    "variables/variables.data-00000-of-00001",
    "variables/variables.index",
)


@pytest.fixture(scope="module")
def built(build):
    """A built artifact's folder; it must not be changed."""
    return build(LAYER, "int32")


@pytest.fixture
def stated(built):
    """Its manifest, to be changed."""
    return json.loads((built / NAME).read_bytes())


@pytest.fixture(scope="module")
def other_archive(tmp_path_factory):
    """An archive of the same encoder with weights of another seed."""
    directory = tmp_path_factory.mktemp("other")
    layers = weights.load("random", LAYER, 1).layers
    saved_model.save(Encoder(LAYER, layers, "int32"), str(directory / "model"))
    archive.pack(str(directory / "model"), str(directory / "encoder.tar.gz"))
    return directory / "encoder.tar.gz"


def digest(content):
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


# What it states.


def test_it_states_what_other_tools_find(built, stated):
    content = (built / "encoder.tar.gz").read_bytes()
    with tarfile.open(built / "encoder.tar.gz") as tar:
        members = {name: digest(tar.extractfile(name).read()) for name in FILES}

    assert stated["archive"] == {**digest(content), "source_date_epoch": 0}
    assert stated["tar"] == digest(gzip.decompress(content))
    assert stated["members"] == members


def test_it_states_which_encoder_it_is_and_how_it_was_asked_for(stated):
    assert stated["manifest_version"] == 1
    assert (stated["layer"], stated["index_dtype"], stated["pooling"]) == (LAYER, "int32", "argmax")
    assert stated["flags"] == {
        "layer": LAYER,
        "weights": "random",
        "seed": 0,
        "index_dtype": "int32",
        "pooling": "argmax",
        "publisher": "emilutz",
        "model_version": 1,
        "asset_url": "https://storage.googleapis.com/vgg19-with-unpooling",
    }


def test_an_encoder_that_pools_nothing_states_no_pooling(build):
    stated = json.loads((build("block1_conv2") / NAME).read_bytes())

    assert (stated["layer"], stated["index_dtype"], stated["pooling"]) == (
        "block1_conv2",
        None,
        None,
    )


def test_it_states_the_weights_layer_by_layer(saved_model, stated):
    variables = tf.train.load_checkpoint(f"{saved_model(LAYER, 'int32')}/variables/variables")
    values = {}
    for key, shape in variables.get_variable_to_shape_map().items():
        if shape:
            values[tuple(shape)] = variables.get_tensor(key)
    shapes = {
        "block1_conv1": (3, 3, 3, 64),
        "block1_conv2": (3, 3, 64, 64),
        "block2_conv1": (3, 3, 64, 128),
        "block2_conv2": (3, 3, 128, 128),
    }
    expected = {}
    for name, shape in shapes.items():
        content = values[shape].astype("<f4").tobytes() + bytes(4 * shape[-1])  # Biases of 0.
        expected[name] = hashlib.sha256(content).hexdigest()

    assert stated["weights"]["layers"] == expected
    assert list(stated["weights"]["layers"]) == list(shapes)
    assert {key: value for key, value in stated["weights"].items() if key != "layers"} == {
        "source": "random",
        "seed": 0,
        "training": None,
        "file_name": None,
        "file_sha256": None,
    }


def test_a_layers_hash_is_of_its_numbers_however_they_lie_in_memory():
    kernel = np.arange(3 * 3 * 2 * 4, dtype=np.float32).reshape(3, 3, 2, 4) / 7
    bias = np.array([0.0, -0.0, 1e-40, 3.5], np.float32)
    expected = hashlib.sha256(kernel.astype("<f4").tobytes() + bias.astype("<f4").tobytes())

    for same in (kernel, np.asfortranarray(kernel), kernel.astype(">f4")):
        assert checksums.layer_sha256(same, bias) == expected.hexdigest()
    assert checksums.layer_sha256(kernel, np.abs(bias)) != expected.hexdigest()


def test_it_states_the_versions_that_are_installed(stated):
    versions = stated["versions"]
    assert versions.pop("unpooling-encoders") == export.__version__
    assert versions.pop("python") == platform.python_version()
    assert versions.pop("zlib") == zlib.ZLIB_RUNTIME_VERSION
    assert set(versions) >= {"tensorflow", "numpy", "protobuf"}
    assert versions == {name: importlib.metadata.version(name) for name in versions}
    assert versions["tensorflow"] == tf.__version__
    assert versions["numpy"] == np.__version__


def test_it_tells_nothing_of_the_builder(built):
    text = (built / NAME).read_text(encoding="utf-8")
    for path in (built.parent, os.getcwd(), pathlib.Path.home()):
        assert str(path) not in text
    for name in (getpass.getuser(), socket.gethostname()):
        assert not re.search(rf"\b{re.escape(name)}\b", text)
    assert not re.search(r'"[/~]|[A-Z]:\\', text)  # No path begins anywhere.


def test_of_a_file_of_weights_it_states_the_name_alone(built, tmp_path):
    path = tmp_path / "folder" / "mine.h5"
    arrays = weights.load("random", LAYER, 0).layers
    found = manifest.make(
        layer=LAYER,
        index_dtype="int32",
        pooling="argmax",
        weights=weights.Weights(arrays, "file", file_name=path.name, file_sha256="0" * 64),
        archive_path=str(built / "encoder.tar.gz"),
        flags={},
    )

    assert found["weights"]["file_name"] == "mine.h5"
    assert str(tmp_path) not in json.dumps(found)


def test_the_same_build_has_the_same_manifest_in_any_process(built, stated, tmp_path):
    for path in (tmp_path / "one.json", tmp_path / "two.json"):
        found = manifest.make(
            layer=LAYER,
            index_dtype="int32",
            pooling="argmax",
            weights=weights.load("random", LAYER, 0),
            archive_path=str(built / "encoder.tar.gz"),
            flags=stated["flags"],
        )
        manifest.write(found, str(path))
        assert path.read_bytes() == (built / NAME).read_bytes()


def test_it_is_text_with_a_line_for_each_fact(built, stated):
    text = (built / NAME).read_text(encoding="utf-8")

    assert text == json.dumps(stated, indent=2) + "\n"
    assert "\r" not in text


def test_what_was_written_is_read(built, stated):
    assert manifest.read(str(built / NAME)) == stated


# Reading what nobody here wrote.


def without(key):
    def change(stated):
        del stated[key]
        return stated

    return change


def with_value(key, value):
    return lambda stated: {**stated, key: value}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda stated: [stated], "`manifest_version` must be 1. Received: None."),
        (lambda stated: "manifest", "`manifest_version` must be 1. Received: None."),
        (lambda stated: None, "`manifest_version` must be 1. Received: None."),
        (without("manifest_version"), "`manifest_version` must be 1. Received: None."),
        (with_value("manifest_version", 2), "`manifest_version` must be 1. Received: 2."),
        (with_value("manifest_version", "1"), "`manifest_version` must be 1. Received: '1'."),
        *(
            (change(key), f"`{key}` must be an object. Received: {received}.")
            for key in ("archive", "tar", "members", "weights", "flags", "versions")
            for change, received in (
                (without, None),
                (lambda key: with_value(key, []), []),
                (lambda key: with_value(key, 1), 1),
            )
        ),
        *(
            (
                with_value("weights", weights),
                "the source of the weights must be one of imagenet, random, file. Received: ",
            )
            for weights in ({}, {"source": "elsewhere"}, {"source": ["random"]})
        ),
    ],
)
def test_what_is_no_manifest_is_refused_in_words(stated, tmp_path, change, words):
    path = tmp_path / NAME
    path.write_text(json.dumps(change(stated)))

    with pytest.raises(ValueError) as caught:
        manifest.read(str(path))
    assert str(caught.value).startswith(f"manifest {path}: {words}")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no JSON",
        b"{",
        b'{"manifest_version": 1}\n{}',
        b"\xff\xfe\x00",
        b"\x1f\x8b\x08",
        b"[" * 500_000,
        b'{"a":' * 100_000,
        b"9" * 1_000_000,
        b'{"manifest_version": 1, "filler": "' + b"x" * (2 << 20) + b'"}',
        b" " * (2 << 20) + b'{"manifest_version": 1}',
    ],
    ids=[
        "empty",
        "text",
        "cut short",
        "two",
        "bytes",
        "gzip",
        "lists in lists",
        "objects in objects",
        "a long number",
        "two megabytes",
        "two megabytes before",
    ],
)
def test_what_is_no_json_is_refused_in_a_line(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)

    with pytest.raises(ValueError) as caught:
        manifest.read(str(tmp_path / NAME))
    assert str(caught.value).startswith(f"manifest {tmp_path / NAME}: not a readable JSON file (")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("make", [lambda path: None, os.mkdir], ids=["nothing", "a folder"])
def test_what_is_no_file_is_refused_in_a_line(tmp_path, make):
    make(tmp_path / NAME)

    with pytest.raises(ValueError, match=r": not a readable JSON file \(\[Errno"):
        manifest.read(str(tmp_path / NAME))


def test_a_device_without_end_is_refused():
    with pytest.raises(ValueError, match="not a readable JSON file"):
        manifest.read("/dev/zero")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / NAME)
    found = []

    def read():
        try:
            manifest.read(str(tmp_path / NAME))
        except ValueError as error:
            found.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join(timeout=2)
    waiting = thread.is_alive()
    if waiting:
        (tmp_path / NAME).write_bytes(b"")  # Whoever reads it comes to the end.
        thread.join()
    assert not waiting
    assert len(found) == 1


# Holding an archive against it.


def test_the_archive_it_was_made_of_fits(built, stated):
    manifest.check_archive(stated, str(built / "encoder.tar.gz"))


def difference(stated, path):
    with pytest.raises(ValueError) as caught:
        manifest.check_archive(stated, str(path))
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "value",
    [None, "text", {}, {"bytes": 1}, "sha256", "bytes"],
)
def test_the_member_that_differs_is_named(built, stated, name, value):
    found = dict(stated["members"][name])
    if value == "sha256":
        value = {**found, "sha256": found["sha256"][::-1]}
    elif value == "bytes":
        value = {**found, "bytes": found["bytes"] + 1}
    stated["members"][name] = value

    assert difference(stated, built / "encoder.tar.gz") == (
        f"the member {name} differs: it has {found}, the manifest says {value!r}"
    )


@pytest.mark.parametrize("name", FILES)
def test_a_member_that_is_not_stated_is_named(built, stated, name):
    del stated["members"][name]

    words = difference(stated, built / "encoder.tar.gz")
    assert words.startswith(f"the member {name} differs: ")
    assert words.endswith("the manifest says None")


@pytest.mark.parametrize("name", FILES)
def test_a_member_that_was_replaced_is_named(built, saved_model, stated, tmp_path, name):
    shutil.copytree(saved_model(LAYER, "int32"), tmp_path / "model")
    with open(tmp_path / "model" / name, "ab") as file:
        file.write(b"\0")
    archive.pack(str(tmp_path / "model"), str(tmp_path / "encoder.tar.gz"))

    words = difference(stated, tmp_path / "encoder.tar.gz")
    assert words.startswith(f"the member {name} differs: it has {{'bytes': ")


def test_other_headers_alone_are_said_to_be_that(saved_model, stated, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    archive.pack(saved_model(LAYER, "int32"), str(tmp_path / "encoder.tar.gz"))

    assert difference(stated, tmp_path / "encoder.tar.gz") == (
        "the members are the manifest's, but not the tar's headers around them"
    )


def test_another_compression_alone_is_said_to_be_that(built, stated, tmp_path):
    tar = gzip.decompress((built / "encoder.tar.gz").read_bytes())
    (tmp_path / "encoder.tar.gz").write_bytes(gzip.compress(tar, 1, mtime=0))
    stated["versions"]["zlib"] = "9.8.7"

    assert difference(stated, tmp_path / "encoder.tar.gz") == (
        "the tar is the manifest's, but compressed in another way; the manifest's was made "
        "with zlib '9.8.7'"
    )


def test_another_time_around_the_same_tar_is_found(built, stated):
    stated["archive"]["source_date_epoch"] = 1

    assert "compressed in another way" in difference(stated, built / "encoder.tar.gz")


def test_what_cannot_be_read_is_no_archive_of_any_manifest(built, stated, tmp_path):
    content = (built / "encoder.tar.gz").read_bytes()
    (tmp_path / "encoder.tar.gz").write_bytes(content[:-1])

    assert "not a complete gzip-compressed tar" in difference(stated, tmp_path / "encoder.tar.gz")


# Holding a loaded encoder against it.


@pytest.fixture
def described():
    """What `check_model` takes, of the encoder that was built."""
    return {
        "layer": LAYER,
        "index_dtype": "int32",
        "pooling": "argmax",
        "weights": weights.load("random", LAYER, 0).layers,
    }


def test_the_encoder_it_was_made_of_fits(stated, described):
    manifest.check_model(stated, **described)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer", "block3_conv2"),
        ("index_dtype", "int64"),
        ("index_dtype", None),
        ("pooling", "xla"),
        ("pooling", ["argmax"]),
    ],
)
def test_what_the_encoder_is_not_is_named(stated, described, key, value):
    with pytest.raises(ValueError) as caught:
        manifest.check_model({**stated, key: value}, **described)
    assert str(caught.value) == f"`{key}` is {described[key]}, the manifest says {value!r}"


def test_what_block1_has_not_may_not_be_stated(build):
    stated = json.loads((build("block1_conv2") / NAME).read_bytes())
    described = {
        "layer": "block1_conv2",
        "weights": weights.load("random", "block1_conv2", 0).layers,
    }
    # Whatever a loaded one is taken for: nothing in it tells.
    manifest.check_model(stated, index_dtype="int64", pooling="argmax", **described)
    manifest.check_model(stated, index_dtype="int32", pooling="xla", **described)
    stated["pooling"] = "argmax"
    with pytest.raises(ValueError, match="`pooling` is None, the manifest says 'argmax'"):
        manifest.check_model(stated, index_dtype="int64", pooling="argmax", **described)


@pytest.mark.parametrize("layer", ["block1_conv1", "block1_conv2", "block2_conv1", LAYER])
@pytest.mark.parametrize("part", [0, 1], ids=["kernel", "bias"])
def test_the_layer_with_other_weights_is_named(stated, described, layer, part):
    arrays = [array.copy() for array in described["weights"][layer]]
    arrays[part].flat[-1] += 1e-6
    described["weights"] = {**described["weights"], layer: tuple(arrays)}

    with pytest.raises(ValueError) as caught:
        manifest.check_model(stated, **described)
    assert str(caught.value) == f"the weights of {layer} are not those of the manifest"


@pytest.mark.parametrize(
    "layers",
    [None, [], {}, {"block1_conv1": ""}, {"block2_conv2": "", "block1_conv1": ""}],
    ids=repr,
)
def test_other_layers_than_the_encoders_are_named(stated, described, layers):
    stated["weights"]["layers"] = layers

    with pytest.raises(ValueError) as caught:
        manifest.check_model(stated, **described)
    assert str(caught.value) == (
        "the layers are block1_conv1, block1_conv2, block2_conv1, block2_conv2, "
        f"the manifest says {', '.join(layers or [])}"
    )


def test_the_order_of_the_layers_counts(stated, described):
    layers = stated["weights"]["layers"]
    stated["weights"]["layers"] = dict(reversed(layers.items()))

    with pytest.raises(ValueError, match="the layers are block1_conv1, "):
        manifest.check_model(stated, **described)


# Through the verifier.


@pytest.fixture
def artifact(built, stated, tmp_path):
    """Copies an artifact, but for its checksums, with a manifest that was changed; its archive."""

    def make(change=lambda stated: None):
        folder = tmp_path / "artifact"
        folder.mkdir()
        for name in ("encoder.tar.gz", "encoder.md", "encoder.png"):
            shutil.copy(built / name, folder / name)
        change(stated)
        manifest.write(stated, str(folder / NAME))
        return folder / "encoder.tar.gz"

    return make


def failed(path, *arguments):
    """The failed checks: {name: detail}."""
    checks = verify.verify(str(path), *map(str, arguments))
    return {check.name: check.detail for check in checks if not check.passed}


def test_an_artifact_with_its_manifest_passes(artifact):
    assert failed(artifact()) == {}


def test_an_archive_of_another_seed_is_found_before_it_is_unpacked(artifact, other_archive):
    path = artifact()
    shutil.copy(other_archive, path)
    (name, detail), *rest = failed(path).items()

    assert rest == []
    assert name == "manifest"
    assert detail.startswith("the member fingerprint.pb differs: it has {'bytes': ")


def test_a_manifest_from_elsewhere_is_held_against_the_archive(
    built, other_archive, tmp_path, capsys
):
    shutil.copy(built / NAME, tmp_path / "from-elsewhere.json")
    arguments = [str(other_archive), str(tmp_path / "from-elsewhere.json")]

    assert verify.main(arguments) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok     checksums: none beside the archive"
    assert lines[1].startswith("FAILED manifest: the member fingerprint.pb differs: ")
    assert len(lines) == 2


def test_a_manifest_from_elsewhere_is_taken_instead_of_the_one_beside(artifact, built, tmp_path):
    # A stranger's archive comes with a stranger's manifest.
    path = artifact(lambda stated: stated["weights"]["layers"].clear())
    assert list(failed(path)) == ["weights"]
    assert failed(path, built / NAME) == {}


def test_a_manifest_that_is_not_there_is_not_passed_over(artifact, tmp_path):
    found = failed(artifact(), tmp_path / "gone.json")

    assert list(found) == ["manifest"]
    assert f"manifest {tmp_path / 'gone.json'}: not a readable JSON file" in found["manifest"]


@pytest.mark.parametrize(("name", "check"), [(NAME, "manifest"), ("SHA256SUMS", "checksums")])
def test_a_link_to_nowhere_beside_the_archive_is_not_passed_over(built, tmp_path, name, check):
    shutil.copy(built / "encoder.tar.gz", tmp_path)
    (tmp_path / name).symlink_to(tmp_path / "gone")

    assert list(failed(tmp_path / "encoder.tar.gz")) == [check]


def test_weights_that_are_not_those_stated_are_found(artifact):
    def change(stated):
        stated["weights"]["layers"]["block2_conv1"] = "0" * 64

    assert failed(artifact(change)) == {
        "weights": "the weights of block2_conv1 are not those of the manifest"
    }


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("layer", "block3_conv2", "`layer` is block2_conv2, the manifest says 'block3_conv2'"),
        ("index_dtype", "int64", "`index_dtype` is int32, the manifest says 'int64'"),
        ("pooling", "xla", "`pooling` is argmax, the manifest says 'xla'"),
    ],
)
def test_another_encoder_than_stated_is_found(artifact, key, value, words):
    found = failed(artifact(lambda stated: stated.update({key: value})))

    assert found == {"weights": words}


def test_random_weights_that_are_stated_to_be_imagenets_are_found(artifact):
    found = failed(artifact(lambda stated: stated["weights"].update(source="imagenet")))

    assert list(found) == ["card"]
    assert found["card"].startswith("this, which follows from the archive, is missing: ")


def test_a_manifest_that_is_damaged_stops_the_verifier(artifact):
    path = artifact()
    whole = path.with_name(NAME).read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"[]", b"\0" * 100):
        path.with_name(NAME).write_bytes(content)
        found = failed(path)
        assert list(found) == ["manifest"]
        assert found["manifest"].startswith(f"manifest {path.with_name(NAME)}: ")


def test_every_hash_counts(built, stated):
    # Each number of the archive, its tar and its members, one after the other.
    for section in ("archive", "tar", *FILES):
        for key in ("bytes", "sha256"):
            changed = copy.deepcopy(stated)
            place = changed["members"][section] if section in FILES else changed[section]
            place[key] = place[key] + 1 if key == "bytes" else "0" * 64
            difference(changed, built / "encoder.tar.gz")


def test_of_an_evaluation_only_numbers_are_believed():
    whole = {"photographs": 12, "error": 2.5, "psnr": 31.0}
    assert manifest.evaluation({"evaluation": whole}) == whole
    odd = {
        "error": "2",
        "psnr": float("nan"),
        "ssim": None,
        "clipped_error": True,
        "photographs": 1,
    }
    assert manifest.evaluation({"evaluation": odd}) == {"photographs": 1}
    for training in (None, {}, {"evaluation": None}, {"evaluation": [2.5]}):
        assert manifest.evaluation(training) == {}
