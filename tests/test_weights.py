"""Weights from a seed, from files good and bad, and from Keras with the download replaced."""

import dataclasses
import fcntl
import hashlib
import os
import re
import shutil
import types
import urllib.error
import zipfile
from unittest import mock

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras.src.applications import vgg19 as keras_vgg19
from keras.src.utils import file_utils

from tests.descriptors import random_weights
from tests.test_training_record import RECORD
from unpooling import pooling, vgg19, weights
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder
from unpooling.errors import UserError
from unpooling.vgg19 import convolutions

LAYER = "block1_conv2"
# Keras calls `np.array` on variables, which know no `copy` yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def assert_same(layers, expected):
    assert list(layers) == list(expected)
    for name, arrays in layers.items():
        for array, other in zip(arrays, expected[name], strict=True):
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, other)


# Random weights.

# SHA-256 of a kernel's bytes, little-endian. Published modules are rebuilt from their seed, and
# their archives, cards and checksums follow from these bits. So they may never change, whatever
# the machine, NumPy or Python: if one differs, the generator is to be mended, not the constant.
# They were confirmed by a plain Python Philox4x64-10 and whole-number sums.
GOLDEN_KERNELS = {
    (0, "block1_conv1"): "5751079cb8d60020b0e482d53979ac234b57e99c39c5b6d6db5109e27f0dbfc8",
    (0, "block3_conv4"): "331bdec4d2ac5599e702f0ff35d4942a6521a228516da8257ba2a334127ea8a0",
    (0, "block5_conv2"): "67979c8331807a43578d7bfff885140b4d0f19b25ea854360a0b35523d267cf0",
    (1, "block1_conv1"): "bd173d25ac5d91d46b613973a9c787002a79e3127f37a9f75f39927e3d7e9e18",
    (2**63 - 1, "block1_conv1"): "b873ceae0907857bad01882c7440c4ebd78a8a349553d9dd79d17da10f25e891",
}


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_a_seed_gives_the_same_bits_for_ever_however_many_layers_are_loaded(seed):
    for layer in (LAYER, "block2_conv2") if seed else (LAYER, "block5_conv2"):
        loaded = weights.load("random", layer, seed)
        assert list(loaded.layers) == [c.name for c in convolutions(layer)]
        for name, (kernel, bias) in loaded.layers.items():
            digest = hashlib.sha256(kernel.astype("<f4").tobytes()).hexdigest()
            assert digest == GOLDEN_KERNELS.get((seed, name), digest)
            assert kernel.dtype == bias.dtype == np.float32
            assert bias.shape == kernel.shape[3:]
            assert not bias.any()
        assert (loaded.source, loaded.seed) == ("random", seed)
        assert (loaded.file_name, loaded.file_sha256, loaded.training) == (None, None, None)


@pytest.mark.parametrize("load", [weights.load, weights.load_decoder])
def test_a_seed_out_of_range_and_an_unknown_layer_are_refused(load):
    assert load("random", LAYER, weights.SEEDS).seed == 2**63 - 1
    for seed in (-1, 2**63):
        words = rf"`seed` must be from 0 to 2\^63 - 1\. Received: {seed}\."
        with pytest.raises(UserError, match=words):
            load("random", LAYER, seed)
    for source in ("imagenet", "random", "weights.h5"):
        with pytest.raises(ValueError, match=r"`layer` must be one of .* Received: 'block1_conv1'"):
            load(source, "block1_conv1")


# Good files.

# The names that versions of Keras gave to a kernel and a bias, inside the layer's group.
WEIGHT_NAMES = {"keras 1": ("{}_W_1:0", "{}_b_1:0"), "keras 2": ("{}/kernel:0", "{}/bias:0")}
WEIGHT_NAMES["keras 3"] = ("{}/kernel", "{}/bias")


def write_h5(path, arrays, *, names="keras 1", text=np.bytes_, group="/", dtype="<f4", **options):
    """Writes `arrays` in the layout of Keras' published VGG19 files, a classifier beside them."""
    dense = (np.ones((2, 3), np.float32), np.ones(3, np.float32))
    with h5py.File(path, "w") as file:
        for name, values in {**arrays, "block1_pool": (), "fc1": dense}.items():
            layer = file.require_group(group).create_group(name)
            found = [each.format(name) for each in WEIGHT_NAMES[names]][: len(values)]
            layer.attrs["weight_names"] = list(map(text, found))
            for weight_name, value in zip(found, values, strict=True):
                layer.create_dataset(weight_name, data=value.astype(dtype), **options)
    return path


@pytest.mark.parametrize(
    ("names", "group", "dtype", "options"),
    [
        ("keras 1", "/", "<f4", {}),
        ("keras 2", "model_weights", "<f4", {"text": str}),
        ("keras 2", "/", ">f4", {}),
        ("keras 3", "/", "<f2", {"text": str}),
        ("keras 3", "model_weights", "<f8", {"compression": "gzip"}),
    ],
)
def test_a_file_in_the_published_layout_is_read_exactly(tmp_path, names, group, dtype, options):
    arrays = random_weights("encoder", LAYER)
    if dtype == "<f2":
        arrays = {n: [a.astype("<f2").astype("f4") for a in pair] for n, pair in arrays.items()}
    path = tmp_path / "some.h5"
    write_h5(path, arrays, names=names, group=group, dtype=dtype, **options)
    loaded = weights.load(str(path), LAYER)
    assert_same(loaded.layers, arrays)
    assert (loaded.source, loaded.seed, loaded.file_name) == ("file", None, "some.h5")
    assert loaded.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_need_only_hold_the_layers_up_to_the_one_asked_for(tmp_path):
    arrays = random_weights("encoder", "block2_conv2")
    path = write_h5(tmp_path / "some.h5", arrays)
    assert_same(weights.load(str(path), "block2_conv2").layers, arrays)
    assert weights.layers_of(str(path)) == vgg19.LAYERS[:2]
    assert weights.layers_of("random") == weights.layers_of("imagenet") == vgg19.LAYERS

    with h5py.File(path, "r+") as file:
        file["block2_conv1"].attrs["weight_names"] = ["lost"]  # Damage that is of no concern.
        del file["block2_conv2"]
    first = {name: arrays[name] for name in ("block1_conv1", "block1_conv2")}
    assert_same(weights.load(str(path), LAYER).layers, first)
    assert weights.layers_of(str(path)) == vgg19.LAYERS[:1]


# (library, how it saves)
SAVED = {
    "keras save .h5": (keras, lambda model, path: model.save(f"{path}.h5")),
    "keras save .keras": (keras, lambda model, path: model.save(f"{path}.keras")),
    "keras weights": (keras, lambda model, path: model.save_weights(f"{path}.weights.h5")),
    "tf_keras save": (tf_keras, lambda model, path: model.save(f"{path}.h5")),
    "tf_keras weights": (tf_keras, lambda model, path: model.save_weights(f"{path}.h5")),
}


@pytest.mark.parametrize("nested", [False, True], ids=["alone", "nested"])
@pytest.mark.parametrize("case", SAVED)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")
def test_a_file_that_keras_wrote_is_read_exactly(tmp_path, case, nested):
    library, save = SAVED[case]
    whole = library.applications.VGG19(include_top=False, weights=None)
    model = library.Model(whole.input, whole.get_layer("block2_conv2").output)
    arrays = random_weights("encoder", "block2_conv2")
    model.set_weights([array for pair in arrays.values() for array in pair])
    if nested:
        inputs = library.Input((None, None, 3))
        model = library.Model(inputs, library.layers.Conv2D(2, 1)(model(inputs)))
    save(model, str(tmp_path / "some"))

    (path,) = map(str, tmp_path.iterdir())
    assert_same(weights.load(path, "block2_conv2").layers, arrays)
    assert weights.layers_of(path) == vgg19.LAYERS[:2]


def test_all_of_keras_vgg19_is_read_and_its_vgg16_refused_by_name(tmp_path):
    model = keras.applications.VGG19(include_top=False, weights=None)
    model.save_weights(tmp_path / "vgg19.weights.h5")
    loaded = weights.load(str(tmp_path / "vgg19.weights.h5"), "block5_conv2")
    assert_same(loaded.layers, {n: model.get_layer(n).get_weights() for n in loaded.layers})
    assert weights.layers_of(str(tmp_path / "vgg19.weights.h5")) == vgg19.LAYERS

    model = keras.applications.VGG16(include_top=False, weights=None)
    model.save_weights(tmp_path / "vgg16.weights.h5")
    arrays = {each.name: each.get_weights() for each in model.layers if each.weights}
    write_h5(tmp_path / "vgg16.h5", arrays)  # as published
    for name in ("vgg16.weights.h5", "vgg16.h5"):
        # Up to block3 they would fit.
        assert "these are VGG16's weights, not VGG19's" in refusal(tmp_path / name)


# Bad files.


def refusal(path, layer=LAYER, load=weights.load):
    """Returns the message with which a file is refused: one line that names the file."""
    with pytest.raises(UserError) as caught:
        load(str(path), layer)
    message = str(caught.value)
    assert message.startswith(f"weights file {path}")
    assert "\n" not in message
    return message


@pytest.fixture
def good_file(tmp_path):
    """A file of block 1, to be damaged."""
    return write_h5(tmp_path / "some.h5", random_weights("encoder", LAYER))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 80134624\n"
BAD_FILES = {
    "some.h5": (b"weights\n" * 100, "not a readable HDF5 file, or cut short"),
    "empty.h5": (b"", "not a readable HDF5 file, or cut short"),
    "pointer.h5": (LFS, "this is a pointer of Git LFS, not the file. Fetch it with `git lfs pull`"),
    "old.pth": (b"\x80\x02", "Weights of PyTorch must be converted to .h5 first"),
    "archive.zip": (b"PK\x03\x04" + bytes(99), "this is not a file of Keras"),
    "cut.keras": (b"PK\x03\x04" + bytes(99), "cut short"),
    "some.safetensors": (bytes(99), "this is not a file of Keras"),
}


def test_why_a_file_cannot_be_read_is_told_apart(tmp_path, monkeypatch):
    for name, (content, words) in BAD_FILES.items():
        (tmp_path / name).write_bytes(content)
        assert words in refusal(tmp_path / name)
    with pytest.raises(UserError, match="Weights of PyTorch must be converted"):
        weights.load(tmp_path / "old.pth", LAYER)  # A path, not its text.
    message = refusal(tmp_path / "none.h5")
    assert "no such file. `weights` must be `imagenet`, `random` or the path of a file" in message
    assert "this is a folder. Pass a file in it." in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.h5")  # Whoever opens one waits for its other end.
    assert "this is not a file, but a pipe" in refusal(tmp_path / "pipe.h5")
    with zipfile.ZipFile(tmp_path / "vgg19.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    assert "Weights of PyTorch must be converted" in refusal(tmp_path / "vgg19.pth")
    good_file = write_h5(tmp_path / "some.h5", random_weights("encoder", LAYER))
    with open(good_file, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another process has it open for writing. Wait" in refusal(good_file)
    good = good_file.read_bytes()
    for kept in (8, 2000, -150_000, -1):
        good_file.write_bytes(good[:kept])
        words = r"not a readable HDF5 file, or cut short .* Copy it again and compare"
        assert re.search(words, refusal(good_file))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything.
    assert "it may not be read. Change its permissions." in refusal(good_file)


KERNEL, BIAS = "block1_conv2_W_1:0", "block1_conv2_b_1:0"
SHAPES = r"kernel and bias must have the shapes \(3, 3, 64, 64\) and \(64,\)\. Received: "
NOT_FINITE = "holds NaN or infinite values. Use an undamaged file."


def one(value, shape):
    """Ones in the given shape, but for one number."""
    array = np.ones(shape, np.float32)
    array.flat[63] = value
    return array


# What is put in the place of arrays; a list: other names of the arrays.
BAD_LAYERS = {
    "kernel of another size": ({KERNEL: np.ones((3, 3, 64, 65), "f4")}, SHAPES + ".*65"),
    "empty bias": ({BIAS: h5py.Empty("f4")}, SHAPES + r"\(3, 3, 64, 64\), None\."),
    "kernel and bias swapped": ([BIAS, KERNEL], SHAPES + r"\(64,\), \(3, 3, 64, 64\)\."),
    "kernel alone": ([KERNEL], SHAPES + r"\(3, 3, 64, 64\)\."),
    "a name that is not there": ([KERNEL, "lost:0"], r"unreadable \(.*lost:0"),
    "a link to nowhere": ({BIAS: h5py.SoftLink("/nowhere")}, r"unreadable \("),
    "NaN in the kernel": ({KERNEL: one(np.nan, (3, 3, 64, 64))}, "the kernel " + NOT_FINITE),
    "infinity in the bias": ({BIAS: one(-np.inf, 64)}, "the bias " + NOT_FINITE),
    "too great for float32": ({BIAS: np.full(64, 1e300)}, "the bias " + NOT_FINITE),
    "integers": ({KERNEL: np.ones((3, 3, 64, 64), "i4")}, "must be floating point.*int32"),
    "records": ({BIAS: np.zeros(64, [("a", "f4")])}, "must be floating point"),
}


@pytest.mark.filterwarnings("error")  # The reason is in the message, not in a warning beside it.
@pytest.mark.parametrize("case", BAD_LAYERS)
def test_a_bad_layer_is_refused_by_file_and_name(good_file, case):
    change, words = BAD_LAYERS[case]
    with h5py.File(good_file, "r+") as file:
        group = file["block1_conv2"]
        if isinstance(change, list):
            group.attrs["weight_names"] = change
        else:
            for name, value in change.items():
                del group[name]
                group[name] = value
    message = refusal(good_file)
    assert message.startswith(f"weights file {good_file}, layer block1_conv2: ")
    assert re.search(words, message), message


def test_a_missing_layer_is_named_with_those_that_are_there(good_file):
    message = refusal(good_file, "block2_conv2")
    assert f"{good_file}, layer block2_conv1: missing" in message
    assert "It holds: block1_conv1, block1_conv2, block1_pool, fc1." in message
    with h5py.File(good_file, "r+") as file:
        del file["block1_conv2"].attrs["weight_names"]
    assert "layer block1_conv2: missing" in refusal(good_file)
    with h5py.File(good_file, "w") as file:
        file["model_weights"] = np.ones(3)
    assert "unreadable (" in refusal(good_file)
    h5py.File(good_file, "w").close()
    assert "It holds: nothing." in refusal(good_file)


# Decoders.


def record(**changes):
    encoder = {"source": "random", "seed": 0, "sha256": weights.load("random", LAYER).digests}
    return dataclasses.replace(RECORD, **{"encoder": encoder, **changes})


def test_a_decoder_is_written_in_one_step_and_read_with_its_training(tmp_path):
    arrays = random_weights("decoder", LAYER)
    path = str(tmp_path / "decoder.h5")
    weights.save(path, {}, record(steps=1))
    weights.save(path, arrays, record())
    assert os.listdir(tmp_path) == ["decoder.h5"]
    loaded = weights.load_decoder(path, LAYER)
    assert_same(loaded.layers, arrays)
    assert loaded.training == record()
    kernel, bias = arrays["decoder_block1_conv1"]
    digest = hashlib.sha256(kernel.tobytes() + bias.tobytes()).hexdigest()
    assert loaded.digests["decoder_block1_conv1"] == digest
    assert weights.layer_sha256(np.asfortranarray(kernel), bias.astype(">f4")) == digest
    weights.save(path, arrays)
    assert weights.load_decoder(path, LAYER).training is None


def test_a_decoder_of_another_layer_or_without_a_legible_record_is_refused(tmp_path):
    path = tmp_path / "decoder.h5"
    arrays = random_weights("decoder", "block2_conv2")
    weights.save(path, arrays, record(layer="block2_conv2"))
    # It holds all that a decoder for block1 needs.
    message = refusal(path, load=weights.load_decoder)
    assert "holds the decoder for block2_conv2, not for block1_conv2" in message
    assert "pass --layer=block2_conv2, or another file" in message
    assert "layer block1_conv1: missing" in refusal(path)
    with h5py.File(path, "r+") as file:
        file.attrs["training"] = "{}"
    message = refusal(path, load=weights.load_decoder)
    assert "its attribute `training` cannot be read (a training record must hold" in message


@pytest.mark.parametrize(
    ("layer", "absent"),
    [
        ("block3_conv2", {"decoder_block2_conv3", "decoder_block1_conv3"}),
        ("block2_conv2", {"decoder_block1_conv4", "decoder_block1_conv3"}),
        ("block2_conv2", {"decoder_block1_conv4"}),
    ],
)
def test_a_file_without_the_convolutions_after_unpooling_decodes_as_it_did(layer, absent, tmp_path):
    path = str(tmp_path / "decoder.h5")
    arrays = dict(random_weights("decoder", layer))
    weights.save(path, {name: pair for name, pair in arrays.items() if name not in absent})
    images = np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3)).astype(np.float32)
    outputs = Encoder.load(layer, "random").compact(images)
    values, *switches = outputs
    for block in vgg19.mirror(layer):
        values = pooling.unpool(values, switches.pop()) if block.unpooled else values
        for name in (c.name for c in block.convolutions if c.name not in absent):
            values = tf.nn.conv2d(values, arrays[name][0], 1, "SAME") + arrays[name][1]
            values = values if name == "decoder_block1_conv1" else tf.nn.relu(values)
    np.testing.assert_allclose(Decoder.load(layer, path)(outputs), values, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "absent"),
    [
        ("block3_conv2", "decoder_block2_conv3"),
        ("block3_conv2", "decoder_block1_conv3"),
        ("block2_conv2", "decoder_block1_conv3"),
    ],
)
def test_a_file_with_others_of_them_is_not_whole(layer, absent, tmp_path):
    path = str(tmp_path / "decoder.h5")
    arrays = dict(random_weights("decoder", layer))
    del arrays[absent]
    weights.save(path, arrays)
    with pytest.raises(UserError, match=f"layer {absent}: missing"):
        weights.load_decoder(path, layer)


def test_advice_on_a_decoders_file_is_not_that_on_an_encoders(good_file, tmp_path):
    (tmp_path / "old.pth").write_bytes(b"\x80\x02")
    legal = "`pretrained`, `random` or the path of a decoder.h5 that train_decoder.py wrote."
    for path, words in (
        ("imagenet", f"no such file. `weights` must be {legal}"),
        (tmp_path / "old.pth", "this is not a file of Keras. Pass a decoder.h5 that train_decoder"),
        (good_file, "layer decoder_block1_conv2: missing. Pass a decoder.h5 that train_decoder"),
    ):
        message = refusal(path, load=weights.load_decoder)
        assert words in message and "VGG19" not in message and "PyTorch" not in message


def test_a_decoder_belongs_to_the_encoder_for_which_it_was_trained():
    encoder = weights.load("random", LAYER)
    for training in (record(), None):
        weights.check_pair(encoder, weights.Weights({}, "file", training=training), "d.h5")
    other = weights.Weights({}, "file", training=record(encoder={"sha256": {}}))
    with pytest.raises(UserError, match=r"d\.h5 was trained for an encoder with other weights"):
        weights.check_pair(encoder, other, "d.h5")


# ImageNet weights: the download is replaced, what Keras does with it is real.

PUBLISHED_NAME = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
PUBLISHED_URL = (
    f"https://storage.googleapis.com/tensorflow/keras-applications/vgg19/{PUBLISHED_NAME}"
)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file like the published one, but with other numbers: (path, arrays)."""
    arrays = dict(random_weights("encoder", "block5_conv2"))
    arrays |= dict.fromkeys(("block5_conv3", "block5_conv4"), arrays["block5_conv2"])
    path = tmp_path_factory.mktemp("published") / PUBLISHED_NAME
    weights.save(str(path), arrays)
    return path, arrays


@pytest.fixture
def download(tmp_path, monkeypatch):
    """Replaces what Keras downloads with, by what is appended to the list."""
    delivered = []
    monkeypatch.setattr(file_utils, "urlretrieve", lambda url, path, _: delivered[-1](url, path))
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    return delivered


def imagenet_refusal():
    """Returns the message with which "imagenet" is refused: one line with both ways on."""
    with pytest.raises(UserError) as caught:
        weights.load("imagenet", LAYER)
    message = str(caught.value)
    assert "\n" not in message
    assert "keras.applications could not provide VGG19's ImageNet weights" in message
    assert "--weights=PATH" in message and "--weights=random" in message
    return message


def test_a_failed_download_says_why_and_what_else_can_be_done(download, published):
    # It could be read: nothing but Keras' checksum tells it from the published one.
    download.append(lambda url, path: shutil.copy(published[0], path))
    assert "file hash does not match" in imagenet_refusal()

    for reason, error in (
        ("first line second line", urllib.error.URLError("first line\nsecond line")),
        ("403 -- Forbidden", urllib.error.HTTPError("", 403, "Forbidden", {}, None)),
    ):
        download.append(mock.Mock(side_effect=error))
        assert reason in imagenet_refusal()  # So the other file is not used.
        assert download[-1].call_args.args[0] == PUBLISHED_URL


def test_imagenet_weights_are_those_of_the_file_that_keras_provides(published, monkeypatch):
    get_file = mock.Mock(return_value=str(published[0]))
    monkeypatch.setattr(keras_vgg19, "file_utils", types.SimpleNamespace(get_file=get_file))
    weights._imagenet.cache_clear()
    try:
        for layer in (LAYER, "block5_conv2"):
            loaded = weights.load("imagenet", layer)
            assert_same(loaded.layers, {c.name: published[1][c.name] for c in convolutions(layer)})
            assert (loaded.source, loaded.seed, loaded.file_name) == ("imagenet", None, None)
    finally:
        weights._imagenet.cache_clear()
    (asked,) = get_file.call_args_list  # once, for the checked file without the classifier
    assert asked.args == (PUBLISHED_NAME, PUBLISHED_URL)
    assert asked.kwargs["cache_subdir"] == "models"
    assert re.fullmatch("[0-9a-f]{32,64}", asked.kwargs["file_hash"])


def test_keras_set_to_another_precision_is_refused():
    keras.config.set_floatx("float16")
    try:
        with pytest.raises(UserError, match=r"Keras is set to float16: set `floatx` to float32"):
            weights.load("imagenet", LAYER)
    finally:
        keras.config.set_floatx("float32")


def test_a_keras_backend_that_is_not_installed_is_told_in_one_line(monkeypatch):
    def import_module(name):
        raise ModuleNotFoundError("No module named 'torch'")

    monkeypatch.setattr(weights.importlib, "import_module", import_module)
    with pytest.raises(UserError, match=r"\(No module named 'torch'\): unset KERAS_BACKEND"):
        weights.import_keras()
