"""The manifest: it states what other tools find, and what differs from it is named."""

import gzip
import importlib.metadata
import json
import os
import platform
import zlib
from functools import partial

import pytest

from export import archive as archives
from export import manifest
from export.spec import Spec
from unpooling import __version__, archive, weights
from unpooling.errors import UserError
from unpooling.training_record import TrainingRecord

LAYER = "block2_conv2"
SPEC = Spec("encoder", LAYER)
NAME = "encoder.manifest.json"
RECORD = TrainingRecord(LAYER, {"sha256": {}}, {"seed": 3}, {"train": 90}, 12, 1.5, {"l1": 3.25})
OTHER = {**RECORD.to_dict(), "layer": "block1_conv2"}
FILE = {"source": "file", "layers": {}}


@pytest.fixture(scope="module")
def built(build):
    return build(LAYER)


@pytest.fixture(scope="module")
def packed(built):
    return archive.read(str(built / "encoder.tar.gz"))


@pytest.fixture
def stated(built):
    """The manifest, to be changed."""
    return json.loads((built / NAME).read_bytes())


# What it states.


def test_it_states_which_module_it_is_and_the_flags_that_give_it(stated, packed, build_decoder):
    assert {key: stated[key] for key in archives.describe(packed)} == archives.describe(packed)
    assert stated["manifest_version"] == 1
    keys = ("kind", "layer", "index_dtype", "pooling")
    assert [stated[key] for key in keys] == ["encoder", LAYER, "int64", "argmax"]
    assert stated["flags"] == {
        **{"layer": LAYER, "weights": "random", "seed": 0},
        **{"index_dtype": "int64", "pooling": "argmax", "publisher": "emilutz"},
        "model_version": 1,
        "asset_url": "https://storage.googleapis.com/vgg19-with-unpooling",
    }
    decoder = json.loads((build_decoder(LAYER) / "decoder.manifest.json").read_bytes())
    assert [decoder[key] for key in keys] == ["decoder", LAYER, None, None]
    assert manifest.spec_of(stated) == SPEC
    assert manifest.spec_of(decoder) == SPEC.mate


def test_it_states_weights_and_versions(stated):
    digests = weights.load("random", LAYER).digests
    assert list(stated["weights"].pop("layers").items()) == list(digests.items())
    none = dict.fromkeys(["file_name", "file_sha256", "training"])
    assert stated["weights"] == {"source": "random", "seed": 0, **none}
    versions = stated["versions"]
    assert versions.pop("unpooling-encoders") == __version__
    assert versions.pop("python") == platform.python_version()
    assert versions.pop("zlib") == zlib.ZLIB_RUNTIME_VERSION
    assert {"tensorflow", "numpy", "protobuf"} <= set(versions)
    assert versions == {name: importlib.metadata.version(name) for name in versions}


def test_what_was_made_is_written_and_read_the_same(packed, tmp_path):
    arrays = weights.load("random", LAYER).layers
    made = manifest.make(
        SPEC, weights.Weights(arrays, "file", None, "mine.h5", "1" * 64, RECORD), packed, {}
    )
    manifest.write(made, str(tmp_path / NAME))
    assert manifest.read(str(tmp_path / NAME)) == made
    assert made["weights"]["file_name"] == "mine.h5"
    assert manifest.training_of(made) == RECORD
    assert (tmp_path / NAME).read_text() == json.dumps(made, indent=2) + "\n"


# Reading what others wrote.


def refusal(path):
    with pytest.raises(UserError) as caught:
        manifest.read(str(path))
    message = str(caught.value)
    assert message.startswith(f"manifest {path}: ")
    assert message.isprintable()
    assert len(message) < 1000
    return message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"manifest_version": None}, "`manifest_version` must be 1. Received: None."),
        ({"archive": None}, "`archive` must be an object. Received: None."),
        ({"members": []}, "`members` must be an object. Received: []."),
        ({"weights": "random"}, "`weights` must be an object. Received: 'random'."),
        ({"weights": {"layers": {}}}, "`source`, one of imagenet, random, file, and `layers`"),
        ({"weights": {"source": "file", "layers": []}}, "Received: 'file', []."),
        ({"kind": "coder"}, "`kind` must be one of encoder, decoder. Received: coder."),
        ({"layer": ["block2_conv2"]}, "`layer` must be one of block1_conv2, "),
        ({"kind": "decoder"}, "`index_dtype` and `pooling` do not suit vgg19-block2-conv2-unp"),
        ({"pooling": None}, "`index_dtype` and `pooling` do not suit"),
        ({"weights": {**FILE, "training": {}}}, "a training record must hold layer, "),
        ({"weights": {**FILE, "training": OTHER}}, "its weights were trained for block1_conv2."),
    ],
    ids=str,
)
def test_what_is_no_manifest_is_refused_in_words(stated, tmp_path, change, words):
    (tmp_path / NAME).write_text(json.dumps(stated | change))
    assert words in refusal(tmp_path / NAME)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff\xfe\x00",
        b"[" * 500_000,
        b"9" * 1_000_000,
        b'{"x": "%s"}' % (b"x" * (2 << 20)),
    ],
)
def test_what_is_no_json_is_refused_in_a_line(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    assert ": not a readable JSON file (" in refusal(tmp_path / NAME)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, partial(os.symlink, "/dev/zero"), len])
def test_what_is_no_file_is_refused_at_once(tmp_path, make):
    make(str(tmp_path / NAME))
    assert ": not a readable JSON file (" in refusal(tmp_path / NAME)


# Comparing an archive with it.


def difference(stated, packed):
    with pytest.raises(UserError) as caught:
        manifest.check_archive(stated, packed)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("key", ["bytes", "sha256", None])
def test_the_member_that_differs_is_named(stated, packed, key):
    manifest.check_archive(stated, packed)
    for name, found in list(stated["members"].items()):
        value = {**found, key: 0} if key else None
        stated["members"][name] = value
        assert difference(stated, packed) == (
            f"the member {name} differs: it has {found}, the manifest says {value!r}"
        )
        stated["members"][name] = found


def test_what_differs_around_the_members_is_said(
    saved_model, stated, packed, tmp_path, monkeypatch
):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    archives.pack(saved_model(LAYER), str(tmp_path / "dated.tar.gz"))
    assert difference(stated, archive.read(str(tmp_path / "dated.tar.gz"))) == (
        "the members are the manifest's, but not the tar's headers around them"
    )
    (tmp_path / "quick.tar.gz").write_bytes(gzip.compress(packed.tar, 1, mtime=0))
    stated["versions"]["zlib"] = "9.8.7"
    assert difference(stated, archive.read(str(tmp_path / "quick.tar.gz"))) == (
        "the tar is the manifest's, but compressed in another way; the manifest's was made with "
        "zlib '9.8.7'"
    )


# Comparing a loaded module with it.


@pytest.fixture(scope="module")
def digests():
    return weights.load("random", LAYER).digests


def test_another_module_is_named(stated, digests):
    manifest.check_module(stated, SPEC, digests)
    for other in (SPEC.mate, Spec("encoder", LAYER, "int32"), Spec("encoder", "block3_conv2")):
        words = f"the module is the {other}, the manifest is that of the {SPEC}"
        with pytest.raises(UserError, match=words):
            manifest.check_module(stated, other, digests)
    with pytest.raises(UserError, match="the weights of block2_conv1 are not those of the"):
        manifest.check_module(stated, SPEC, digests | {"block2_conv1": 64 * "0"})
    layers = [convolution.name for convolution in SPEC.convolutions]
    for wrong in (layers[:1], layers[::-1]):
        stated["weights"]["layers"] = dict.fromkeys(wrong)
        words = f"the layers are {', '.join(layers)}, the manifest says {', '.join(wrong)}$"
        with pytest.raises(UserError, match=words):
            manifest.check_module(stated, SPEC, digests)
