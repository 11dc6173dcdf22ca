"""Weights from a seed, from .h5 files good and bad, and from Keras with the download replaced."""

import hashlib
import itertools
import math
import re
import shutil
import socket
import types
import urllib.error

import h5py
import keras
import numpy as np
import pytest
import tf_keras
from keras.src.applications import vgg19 as keras_vgg19
from keras.src.utils import file_utils

from unpooling import vgg19, weights


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Whatever Keras downloads with one day, nothing leaves this machine."""

    def refuse(*arguments, **keywords):
        pytest.fail("a test tried to reach the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def convolutions(layer):
    return [
        convolution for block in vgg19.blocks_up_to(layer) for convolution in block.convolutions
    ]


def distinct_arrays(layers):
    """Returns kernels and biases of which no two numbers are alike: name -> (kernel, bias).

    They count up the bit patterns of float32 from that of 0.5 on, through all of them.
    """
    arrays, start = {}, 0x3F000000
    for convolution in layers:
        pair = []
        for shape in (convolution.kernel_shape, (convolution.out_channels,)):
            stop = start + math.prod(shape)
            pair.append(np.arange(start, stop, dtype=np.uint32).view(np.float32).reshape(shape))
            start = stop
        arrays[convolution.name] = tuple(pair)
    return arrays


def assert_same(layers, expected):
    assert list(layers) == list(expected)
    for name, arrays in layers.items():
        assert len(arrays) == 2
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
    (0, "block1_conv2"): "3f8f2abc673d24e1ad77741ee24ee3be8403362c6bdec6ae0a89a56674dc1d25",
    (0, "block2_conv1"): "743cce4dc1781e8d002e08b2b7546520f363a27af3237c0ac8004c70b11788e2",
    (0, "block3_conv4"): "331bdec4d2ac5599e702f0ff35d4942a6521a228516da8257ba2a334127ea8a0",
    (0, "block5_conv2"): "67979c8331807a43578d7bfff885140b4d0f19b25ea854360a0b35523d267cf0",
    (1, "block1_conv1"): "bd173d25ac5d91d46b613973a9c787002a79e3127f37a9f75f39927e3d7e9e18",
    (2**64 - 1, "block1_conv1"): "32eb975e4b27ed708a2c98a4e3e69c6fb9030f797374bc5ef094bce370d74d56",
}


@pytest.fixture(scope="module")
def random_layers():
    """Every layer from seed 0."""
    return weights.load("random", vgg19.LAYERS[-1]).layers


def standardised(layers):
    """Returns each kernel's numbers in a row, divided by He's standard deviation sqrt(2/fan_in)."""
    return {
        name: kernel.astype(np.float64).ravel() / math.sqrt(2 / math.prod(kernel.shape[:3]))
        for name, (kernel, _) in layers.items()
    }


@pytest.mark.parametrize(("seed", "name"), GOLDEN_KERNELS)
def test_a_seed_gives_the_same_bits_for_ever(seed, name, random_layers):
    layers = weights.load("random", "block1_conv2", seed).layers if seed else random_layers
    kernel = layers[name][0].astype("<f4").tobytes()

    assert hashlib.sha256(kernel).hexdigest() == GOLDEN_KERNELS[seed, name]


def test_random_layers_have_the_names_shapes_and_dtype_of_vgg19(random_layers):
    assert list(random_layers) == [each.name for each in convolutions(vgg19.LAYERS[-1])]
    for convolution in convolutions(vgg19.LAYERS[-1]):
        kernel, bias = random_layers[convolution.name]
        assert kernel.dtype == bias.dtype == np.float32
        assert kernel.shape == convolution.kernel_shape
        assert bias.shape == (convolution.out_channels,)


def test_random_biases_are_zero(random_layers):
    assert not any(bias.any() for _, bias in random_layers.values())


def test_random_kernels_have_mean_zero_and_he_standard_deviation(random_layers):
    for name, numbers in standardised(random_layers).items():
        # Five times the standard error; the seed is fixed, so this holds always or never.
        assert abs(numbers.mean()) < 5 / math.sqrt(numbers.size), name
        assert abs(numbers.std() - 1) < 5 / math.sqrt(2 * numbers.size), name


def test_random_kernels_are_normal_up_to_the_tails_of_twelve_uniforms(random_layers):
    numbers = np.concatenate(list(standardised(random_layers).values()))
    error = math.sqrt(24 / numbers.size)  # The standard error of a kurtosis: 0.0014.

    squares = numbers * numbers
    # A uniform number has the excess kurtosis -6/5, the sum of twelve a twelfth of it. Of eleven
    # or thirteen it would be -0.109 or -0.092.
    excess = (squares * squares).mean() / squares.mean() ** 2 - 3
    assert excess == pytest.approx(-0.1, abs=4 * error)
    assert abs((squares * numbers).mean()) < 5 * math.sqrt(15 / numbers.size)
    assert 4.5 < np.abs(numbers).max() < 6


def test_random_layers_are_independent_of_each_other(random_layers):
    numbers = [each[:1728] for each in standardised(random_layers).values()]
    correlations = np.corrcoef(numbers) - np.eye(len(numbers))

    assert np.abs(correlations).max() < 5 / math.sqrt(1728)


def test_random_seeds_are_independent_of_each_other():
    # The last is the first again if a seed is cut to 32 bits.
    seeds = (0, 1, 2, 2**32 - 1, 2**32, 2**63, 2**64 - 1)
    kernels = [
        weights.load("random", "block1_conv2", seed).layers["block1_conv1"][0] for seed in seeds
    ]
    correlations = np.corrcoef([kernel.ravel() for kernel in kernels]) - np.eye(len(seeds))

    assert np.abs(correlations).max() < 5 / math.sqrt(1728)


@pytest.mark.parametrize("layer", vgg19.LAYERS[:-1])
def test_a_random_kernel_does_not_depend_on_how_many_layers_are_loaded(layer, random_layers):
    names = [convolution.name for convolution in convolutions(layer)]

    assert_same(
        weights.load("random", layer, seed=0).layers, {name: random_layers[name] for name in names}
    )


def test_random_weights_say_where_they_come_from():
    loaded = weights.load("random", "block1_conv2", seed=7)

    assert (loaded.source, loaded.seed) == ("random", 7)
    assert (loaded.file_name, loaded.file_sha256) == (None, None)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed):
    words = rf"`seed` must be from 0 to 2\^64 - 1\. Received: {seed}\."
    with pytest.raises(ValueError, match=words):
        weights.load("random", "block1_conv2", seed)


@pytest.mark.parametrize("source", ["imagenet", "random", "weights.h5"])
def test_an_unknown_layer_is_refused(source):
    with pytest.raises(ValueError, match=r"`layer` must be one of .* Received: 'block1_conv1'\."):
        weights.load(source, "block1_conv1")


# Good files.

# The names that versions of Keras gave to a kernel and a bias, inside the layer's group.
WEIGHT_NAMES = {
    "keras 1": ("{}_W_1:0", "{}_b_1:0"),
    "keras 2": ("{0}/kernel:0", "{0}/bias:0"),
    "keras 3": ("{0}/kernel", "{0}/bias"),
}


def write_h5(
    path, arrays, *, names="keras 1", strings=bytes, top=False, group=None, dtype="<f4", **options
):
    """Writes `arrays` in the layout of Keras' published VGG19 files.

    Args:
      arrays: name -> (kernel, bias), in order.
      names: a key of `WEIGHT_NAMES`.
      strings: how names are stored: `bytes` as arrays of fixed length, `str` as UTF-8 strings.
      top: whether the layers of the classifier stand beside, with tiny arrays.
      group: the name of the group that holds it all; None for the root of the file.
      dtype: how numbers are stored.
      **options: go to h5py's `create_dataset`.
    """

    def text(values):
        return np.array([value.encode() for value in values], "S") if strings is bytes else values

    layers = {}
    for block, members in itertools.groupby(arrays, key=lambda name: name.split("_")[0]):
        layers |= {name: arrays[name] for name in members}
        layers[f"{block}_pool"] = ()
    if top:
        dense = (np.ones((2, 3), np.float32), np.ones(3, np.float32))
        layers |= {"flatten": (), "fc1": dense, "fc2": dense, "predictions": dense}
    with h5py.File(path, "w") as file:
        root = file.create_group(group) if group else file
        root.attrs["layer_names"] = text(list(layers))
        for name, values in layers.items():
            weight_names = [each.format(name) for each in WEIGHT_NAMES[names]] if values else []
            layer = root.create_group(name)
            layer.attrs["weight_names"] = text(weight_names) if weight_names else []
            for weight_name, value in zip(weight_names, values, strict=True):
                layer.create_dataset(weight_name, data=value.astype(dtype), **options)
    return path


@pytest.mark.parametrize("group", [None, "model_weights"])
@pytest.mark.parametrize("top", [False, True])
@pytest.mark.parametrize("strings", [bytes, str])
@pytest.mark.parametrize("names", WEIGHT_NAMES)
def test_a_file_in_the_published_layout_is_read_exactly(tmp_path, names, strings, top, group):
    arrays = distinct_arrays(convolutions("block2_conv2"))
    path = write_h5(
        tmp_path / "some.h5", arrays, names=names, strings=strings, top=top, group=group
    )

    assert_same(weights.load(str(path), "block2_conv2").layers, arrays)


@pytest.mark.parametrize("layer", vgg19.LAYERS[:3])
def test_a_file_need_only_hold_the_layers_up_to_the_one_asked_for(tmp_path, layer):
    arrays = distinct_arrays(convolutions(layer))
    path = write_h5(tmp_path / "some.h5", arrays)

    assert_same(weights.load(str(path), layer).layers, arrays)


def test_layers_of_a_file_beyond_the_one_asked_for_are_left_out(tmp_path):
    arrays = distinct_arrays(convolutions("block2_conv2"))
    path = write_h5(tmp_path / "some.h5", arrays)
    with h5py.File(path, "r+") as file:
        file["block2_conv1"].attrs["weight_names"] = [b"lost:0"]  # Damage that is of no concern.

    first = {name: arrays[name] for name in ("block1_conv1", "block1_conv2")}
    assert_same(weights.load(str(path), "block1_conv2").layers, first)


@pytest.mark.parametrize("dtype", [">f4", "<f8"])
@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "shuffle": True}])
def test_numbers_are_read_exactly_however_they_are_stored(tmp_path, dtype, options):
    arrays = distinct_arrays(convolutions("block1_conv2"))
    path = write_h5(tmp_path / "some.h5", arrays, dtype=dtype, **options)

    assert_same(weights.load(str(path), "block1_conv2").layers, arrays)


def test_half_precision_is_widened(tmp_path):
    arrays = distinct_arrays(convolutions("block1_conv2"))
    path = write_h5(tmp_path / "some.h5", arrays, dtype="<f2")

    halves = {
        name: tuple(array.astype(np.float16).astype(np.float32) for array in pair)
        for name, pair in arrays.items()
    }
    assert_same(weights.load(str(path), "block1_conv2").layers, halves)


@pytest.mark.parametrize(
    ("library", "save"),
    [(keras, "save"), (tf_keras, "save"), (tf_keras, "save_weights")],
    ids=["keras save", "tf_keras save", "tf_keras save_weights"],
)
def test_a_file_that_a_library_wrote_is_read_exactly(tmp_path, library, save):
    arrays = distinct_arrays(convolutions("block2_conv2"))
    getattr(truncated_vgg19(library, arrays), save)(str(tmp_path / "some.h5"))

    loaded = weights.load(str(tmp_path / "some.h5"), "block2_conv2")
    assert_same(loaded.layers, arrays)


def truncated_vgg19(library, arrays):
    """A library's own VGG19 up to the last layer in `arrays`, with these weights."""
    whole = library.applications.VGG19(include_top=False, weights=None)
    model = library.Model(whole.input, whole.get_layer(list(arrays)[-1]).output)
    model.set_weights([array for pair in arrays.values() for array in pair])
    return model


def test_weights_of_a_file_say_where_they_come_from(tmp_path):
    (tmp_path / "folder").mkdir()
    path = write_h5(tmp_path / "folder" / "some.h5", distinct_arrays(convolutions("block1_conv2")))

    loaded = weights.load(str(path), "block1_conv2")
    assert (loaded.source, loaded.seed) == ("file", None)
    assert loaded.file_name == "some.h5"
    assert loaded.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


# Bad files.


def refusal(path, layer="block1_conv2"):
    """Returns the message with which a file is refused: one line that names the file."""
    with pytest.raises(ValueError) as caught:
        weights.load(str(path), layer)
    message = str(caught.value)
    assert message.startswith(f"weights file {path}")
    assert "\n" not in message
    return message


@pytest.fixture
def good_file(tmp_path):
    """A file of block 1, to be damaged."""
    return write_h5(tmp_path / "some.h5", distinct_arrays(convolutions("block1_conv2")))


def test_a_missing_file_is_refused(tmp_path):
    message = refusal(tmp_path / "some.h5")

    assert "no such file" in message
    assert "`weights` must be `imagenet`, `random` or the path of an .h5 file" in message


def test_a_folder_is_refused(tmp_path):
    assert "not a readable HDF5 file" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"weights\n" * 100, b"PK\x03\x04" + bytes(1000)])
def test_what_is_not_hdf5_is_refused(tmp_path, content):
    (tmp_path / "some.h5").write_bytes(content)

    assert "not a readable HDF5 file" in refusal(tmp_path / "some.h5")


@pytest.mark.parametrize("kept", [4, 8, 96, 2000, "half", "in the kernel", "all but a byte"])
def test_a_file_cut_short_is_refused(good_file, kept):
    content = good_file.read_bytes()
    with h5py.File(good_file) as file:
        kernel = file["block1_conv2/block1_conv2_W_1:0"]
        middle_of_kernel = kernel.id.get_offset() + kernel.nbytes // 2
    places = {
        "half": len(content) // 2,
        "in the kernel": middle_of_kernel,
        "all but a byte": len(content) - 1,
    }
    good_file.write_bytes(content[: places.get(kept, kept)])

    message = refusal(good_file)
    assert "not a readable HDF5 file, or cut short" in message
    assert "Copy it again" in message


def test_data_that_fails_its_own_checksum_is_refused(tmp_path):
    arrays = distinct_arrays(convolutions("block1_conv2"))
    path = write_h5(tmp_path / "some.h5", arrays, chunks=True, fletcher32=True)
    with h5py.File(path) as file:
        chunk = file["block1_conv2/block1_conv2_W_1:0"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(content)

    assert f"{path}, layer block1_conv2: unreadable (" in refusal(path)


KERNEL, BIAS = "block1_conv2_W_1:0", "block1_conv2_b_1:0"


def stored(name, data):
    """A change of block1_conv2's group: other data under a weight's name."""

    def change(group):
        del group[name]
        group[name] = data

    return change


def named(*weight_names):
    """A change of block1_conv2's group: other names in its attribute."""
    return lambda group: group.attrs.__setitem__("weight_names", list(weight_names))


def with_a_group_for_the_bias(group):
    del group[BIAS]
    group.create_group(BIAS)


def with_a_link_to_nowhere(group):
    del group[BIAS]
    group[BIAS] = h5py.SoftLink("/nowhere")


def without_weight_names(group):
    del group.attrs["weight_names"]


def with_one(position, value, shape):
    """Ones in the given shape, but for one number."""
    array = np.ones(shape, np.float32)
    array[position] = value
    return array


KERNEL_SHAPE, BIAS_SHAPE = (3, 3, 64, 64), (64,)
SHAPES = r"kernel and bias must have the shapes \(3, 3, 64, 64\) and \(64,\)\. Received: "

BAD_LAYERS = {
    "kernel of another size": (
        stored(KERNEL, np.ones((3, 3, 64, 65), "f4")),
        SHAPES + r"\(3, 3, 64, 65\), \(64,\)\.",
    ),
    "kernel with its axes in Theano's order": (
        stored(KERNEL, np.ones((64, 64, 3, 3), "f4")),
        SHAPES + r"\(64, 64, 3, 3\), \(64,\)\.",
    ),
    "bias of another size": (
        stored(BIAS, np.ones(63, "f4")),
        SHAPES + r"\(3, 3, 64, 64\), \(63,\)\.",
    ),
    "bias without axes": (stored(BIAS, np.float32(1)), SHAPES + r"\(3, 3, 64, 64\), \(\)\."),
    "empty bias": (stored(BIAS, h5py.Empty("f4")), SHAPES + r"\(3, 3, 64, 64\), None\."),
    "kernel and bias swapped": (named(BIAS, KERNEL), SHAPES + r"\(64,\), \(3, 3, 64, 64\)\."),
    "kernel alone": (named(KERNEL), SHAPES + r"\(3, 3, 64, 64\)\."),
    "three weights": (named(KERNEL, BIAS, BIAS), SHAPES + r".*, \(64,\), \(64,\)\."),
    "no weights": (named(), SHAPES + r"no weights\."),
    "no weight_names": (without_weight_names, SHAPES + r"no weights\."),
    "a name that is not there": (named(KERNEL, "lost:0"), r"unreadable \(.*lost:0"),
    "a name that is no UTF-8": (named(KERNEL.encode(), b"\xff\xfe"), r"unreadable \("),
    "names that are numbers": (named(1, 2), r"unreadable \("),
    "a group for the bias": (with_a_group_for_the_bias, SHAPES + r"\(3, 3, 64, 64\), None\."),
    "a link to nowhere": (with_a_link_to_nowhere, r"unreadable \("),
    "NaN in the kernel": (
        stored(KERNEL, with_one((2, 1, 63, 5), np.nan, KERNEL_SHAPE)),
        "the kernel holds NaN or infinite values",
    ),
    "infinity in the kernel": (
        stored(KERNEL, with_one((0, 0, 0, 0), np.inf, KERNEL_SHAPE)),
        "the kernel holds NaN or infinite values",
    ),
    "NaN in the bias": (
        stored(BIAS, with_one(63, np.nan, BIAS_SHAPE)),
        "the bias holds NaN or infinite values",
    ),
    "minus infinity in the bias": (
        stored(BIAS, with_one(5, -np.inf, BIAS_SHAPE)),
        "the bias holds NaN or infinite values",
    ),
    "too great for float32": (
        stored(BIAS, np.full(64, 1e300)),
        "the bias holds NaN or infinite values",
    ),
    "integers": (stored(KERNEL, np.ones(KERNEL_SHAPE, "i4")), "must be floating point.*int32"),
    "truth values": (stored(BIAS, np.ones(64, bool)), "must be floating point.*bool"),
    "complex numbers": (stored(BIAS, np.ones(64, "c8")), "must be floating point.*complex64"),
    "text": (stored(BIAS, np.array([b"weight"] * 64)), r"must be floating point.*S6"),
    "numbers as text": (stored(BIAS, np.array([b"1.5"] * 64)), r"must be floating point.*S3"),
    "records": (stored(BIAS, np.zeros(64, [("a", "f4")])), "must be floating point"),
}


@pytest.mark.filterwarnings("error")  # The reason is in the message, not in a warning beside it.
@pytest.mark.parametrize("case", BAD_LAYERS)
def test_a_bad_layer_is_refused_by_file_and_name(good_file, case):
    change, words = BAD_LAYERS[case]
    with h5py.File(good_file, "r+") as file:
        change(file["block1_conv2"])

    message = refusal(good_file)
    assert message.startswith(f"weights file {good_file}, layer block1_conv2: ")
    assert re.search(words, message), message


def test_a_missing_layer_is_named_with_those_that_are_there(good_file):
    message = refusal(good_file, "block2_conv2")

    assert f"{good_file}, layer block2_conv1: missing" in message
    assert "It holds: block1_conv1, block1_conv2, block1_pool." in message


def test_a_file_that_holds_nothing_is_refused(tmp_path):
    h5py.File(tmp_path / "some.h5", "w").close()

    assert "layer block1_conv1: missing" in (message := refusal(tmp_path / "some.h5"))
    assert "It holds: nothing." in message


def test_a_dataset_in_place_of_a_layer_is_refused(good_file):
    with h5py.File(good_file, "r+") as file:
        del file["block1_conv2"]
        file["block1_conv2"] = np.ones(3)
        file["block1_conv2"].attrs["weight_names"] = [KERNEL, BIAS]

    assert f"{good_file}, layer block1_conv2: unreadable (" in refusal(good_file)


def test_a_dataset_in_place_of_the_model_is_refused(tmp_path):
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file["model_weights"] = np.ones(3)

    assert "layer block1_conv1: " in refusal(tmp_path / "some.h5")


def test_keras_3_own_format_is_refused(tmp_path):
    arrays = distinct_arrays(convolutions("block1_conv2"))
    truncated_vgg19(keras, arrays).save_weights(str(tmp_path / "some.weights.h5"))

    message = refusal(tmp_path / "some.weights.h5")
    assert "layer block1_conv1: missing" in message
    assert "layout of Keras' published VGG19 files" in message


# ImageNet weights: the download is replaced, what Keras does with it is real.

PUBLISHED_NAME = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
PUBLISHED_URL = (
    f"https://storage.googleapis.com/tensorflow/keras-applications/vgg19/{PUBLISHED_NAME}"
)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file like the published one, with all sixteen layers, but other numbers: (path, arrays)."""
    last = vgg19.blocks_up_to(vgg19.LAYERS[-1])[-1].convolutions[-1]
    rest = [
        vgg19.Convolution(f"block5_conv{i}", last.out_channels, last.out_channels) for i in (3, 4)
    ]
    arrays = distinct_arrays([*convolutions(vgg19.LAYERS[-1]), *rest])
    return write_h5(tmp_path_factory.mktemp("published") / PUBLISHED_NAME, arrays), arrays


@pytest.fixture
def download(tmp_path, monkeypatch):
    """Replaces what Keras downloads with; returns what the fixture's user shall fill in.

    `deliver(path)` stands for the download; `urls` are those that Keras asked for; `cached` is
    where Keras keeps the file.
    """
    state = types.SimpleNamespace(urls=[], cached=tmp_path / "models" / PUBLISHED_NAME)

    def urlretrieve(url, filename, reporthook=None):
        state.urls.append(url)
        state.deliver(filename)

    monkeypatch.setattr(file_utils, "urlretrieve", urlretrieve)
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    return state


def failing(error):
    def deliver(path):
        with open(path, "wb") as file:
            file.write(b"half of it")
        raise error

    return deliver


def imagenet_refusal():
    """Returns the message with which "imagenet" is refused: one line with both ways on."""
    with pytest.raises(ValueError) as caught:
        weights.load("imagenet", "block1_conv2")
    message = str(caught.value)
    assert "\n" not in message
    assert "keras.applications could not provide VGG19's ImageNet weights" in message
    assert "--weights=PATH" in message
    assert "--weights=random" in message
    return message


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (urllib.error.URLError("Name or service not known"), "Name or service not known"),
        (urllib.error.URLError("first line\nsecond line"), "first line second line"),
        (urllib.error.HTTPError(PUBLISHED_URL, 403, "Forbidden", {}, None), "403 -- Forbidden"),
        (urllib.error.ContentTooShortError("got 7 out of 9 bytes", b""), "got 7 out of 9 bytes"),
    ],
    ids=["no network", "two lines", "forbidden", "broken off"],
)
def test_a_failed_download_says_what_was_tried_and_the_ways_on(download, error, reason):
    download.deliver = failing(error)

    message = imagenet_refusal()
    assert download.urls == [PUBLISHED_URL]
    assert PUBLISHED_URL in message
    assert reason in message
    assert not download.cached.exists()


@pytest.mark.parametrize(
    "error", [TimeoutError("timed out"), ConnectionResetError("reset by peer")]
)
def test_a_connection_that_breaks_says_why_and_the_ways_on(download, error):
    download.deliver = failing(error)

    assert str(error) in imagenet_refusal()


def test_a_download_that_is_not_the_published_file_is_refused(download, published):
    # It could be read: nothing but Keras' checksum tells it from the published one.
    download.deliver = lambda path: shutil.copy(published[0], path)

    assert "file hash does not match" in imagenet_refusal()
    assert download.urls == [PUBLISHED_URL]


def test_a_cached_file_that_is_not_the_published_one_is_not_used(download, published):
    download.cached.parent.mkdir()
    shutil.copy(published[0], download.cached)
    download.deliver = failing(urllib.error.URLError("Name or service not known"))

    assert "Name or service not known" in imagenet_refusal()


@pytest.fixture
def cache_hit(published, monkeypatch):
    """Lets Keras' VGG19 find the file in its cache; returns what it asked its cache for."""
    asked = []

    def get_file(name, origin, **options):
        asked.append({"name": name, "origin": origin, **options})
        return str(published[0])

    monkeypatch.setattr(keras_vgg19, "file_utils", types.SimpleNamespace(get_file=get_file))
    return asked


@pytest.mark.parametrize("layer", ["block1_conv2", "block5_conv2"])
def test_imagenet_weights_are_those_of_the_file_that_keras_provides(layer, published, cache_hit):
    loaded = weights.load("imagenet", layer)

    assert_same(loaded.layers, {each.name: published[1][each.name] for each in convolutions(layer)})
    assert (loaded.source, loaded.seed) == ("imagenet", None)
    assert (loaded.file_name, loaded.file_sha256) == (None, None)


def test_keras_is_asked_for_the_checked_file_without_the_classifier(cache_hit):
    weights.load("imagenet", "block1_conv2")

    (asked,) = cache_hit
    assert (asked["name"], asked["origin"]) == (PUBLISHED_NAME, PUBLISHED_URL)
    assert asked["cache_subdir"] == "models"
    assert re.fullmatch("[0-9a-f]{32,64}", asked["file_hash"])
