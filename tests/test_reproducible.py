"""The same command gives the same bytes, whoever runs it, wherever, and whatever went before."""

import concurrent.futures
import contextlib
import gzip
import io
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

# Not public; drawing a million numbers by making tensors would take minutes.
from tensorflow.python.framework import ops

from export import manifest, saved_model, spec
from tests.conftest import ROOT
from unpooling import archive, weights
from unpooling.encoder import Encoder

LAYER = "block2_conv2"
VARIANTS = [(engine, dtype) for engine in spec.ENGINES for dtype in spec.INDEX_DTYPES]
FIRST = ("xla", "int32")  # what no other test has the command build, which takes seconds

every_variant = pytest.mark.parametrize(("engine", "dtype"), VARIANTS)
every_engine = pytest.mark.parametrize("engine", spec.ENGINES)


def make(engine="argmax", dtype="int64"):
    """The encoder that the fixture `build` builds."""
    return Encoder(LAYER, weights.load("random", LAYER, 0).layers, dtype, engine)


def pack(encoder, path):
    """Saves an encoder and writes its archive to `path`."""
    model = path.with_name(f"{path.name}.model")
    saved_model.save(encoder, str(model))
    archive.pack(str(model), str(path))


def assert_same_archive(path, expected):
    # First member by member, which tells more when it fails.
    assert archive.describe(str(path)) == archive.describe(str(expected))
    assert path.read_bytes() == expected.read_bytes()


# The whole command.

# Python runs it at the start of every process that has its folder on the path.
SITECUSTOMIZE = """\
import os, pathlib, time

DAYS = 400

def later(function, shift):
    return lambda: function() + shift

def from_now(function):
    return lambda seconds=None: function(time.time() if seconds is None else seconds)

time.time = later(time.time, DAYS * 86400)
time.time_ns = later(time.time_ns, DAYS * 86400 * 10**9)
time.localtime = from_now(time.localtime)
time.gmtime = from_now(time.gmtime)

with pathlib.Path(__file__).with_name("witness").open("a") as file:
    print(os.getuid(), time.time(), file=file)
"""

MATPLOTLIBRC = """\
font.size: 30
savefig.dpi: 37
figure.dpi: 37
savefig.bbox: tight
text.antialiased: False
"""

KERAS_JSON = """\
{"floatx": "float64", "epsilon": 0.1, "backend": "jax", "image_data_format": "channels_first"}
"""

NOBODY = 65534


@pytest.fixture
def place():
    """A folder with an odd name, outside of those that pytest makes for its own user alone."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "an other plåce")
        path.mkdir()
        yield path


def given_to_nobody(place):
    """Gives a folder to `nobody`; returns what to put before a command so that he runs it.

    He may read what he could not otherwise, so that he finds this repository and its Python. Where
    all this cannot be, nothing is done, and nothing is to be put before.
    """
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    command += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    if os.getuid() != 0 or not shutil.which("setpriv"):
        return []
    paths = (place.parent, place, *place.rglob("*"))
    for path in paths:
        os.chown(path, NOBODY, NOBODY)
    program = "import os, sys; sys.exit(not os.access(sys.argv[1], os.W_OK))"
    tried = subprocess.run([*command, sys.executable, "-c", program, place], capture_output=True)
    if tried.returncode == 0:
        return command
    for path in paths:
        os.chown(path, 0, 0)
    return []


def test_the_five_files_are_the_same_in_entirely_other_surroundings(build, place):
    usual = build(LAYER)
    for name in ("work", "home", "keras", "matplotlib", "site", "temporary"):
        (place / name).mkdir()
    (place / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    (place / "matplotlib" / "matplotlibrc").write_text(MATPLOTLIBRC)
    (place / "keras" / "keras.json").write_text(KERAS_JSON)
    other_user = given_to_nobody(place)
    start = time.time()
    result = subprocess.run(
        [
            *other_user,
            sys.executable,
            str(ROOT / "build_encoder.py"),
            "--weights=random",
            f"--layer={LAYER}",
            "--output_dir=./made/here",
        ],
        cwd=place / "work",
        umask=0o077,
        env={
            **os.environ,
            "PYTHONPATH": str(place / "site"),
            "PYTHONHASHSEED": "4321",
            "HOME": str(place / "home"),
            "USER": "somebody",
            "LOGNAME": "somebody",
            "TMPDIR": str(place / "temporary"),
            "KERAS_HOME": str(place / "keras"),
            "MPLCONFIGDIR": str(place / "matplotlib"),
            "LC_ALL": "tr_TR.UTF-8",
            "LANG": "tr_TR.UTF-8",
            "TZ": "Pacific/Kiritimati",
            "TF_NUM_INTRAOP_THREADS": "1",
            "TF_NUM_INTEROP_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "TF_ENABLE_ONEDNN_OPTS": "0",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found = place / "work" / "made" / "here" / usual.name

    # The surroundings were as they were meant to be, for the command and for its verification.
    witnesses = [line.split() for line in (place / "site" / "witness").open()]
    assert len(witnesses) >= 2
    for user, now in witnesses:
        assert int(user) == (NOBODY if other_user else os.getuid())
        assert float(now) > start + 399 * 86400
    assert found.stat().st_mode & 0o077 == 0

    assert sorted(os.listdir(found)) == sorted(spec.files("encoder"))
    assert_same_archive(found / "encoder.tar.gz", usual / "encoder.tar.gz")
    for name in spec.files("encoder"):
        assert (found / name).read_bytes() == (usual / name).read_bytes(), name


# The SavedModel of a process that has done other things.


def advance_to(number):
    """Draws numbers from TensorFlow's counter up to `number`."""
    while ops.uid() < number:
        pass


def pack_all_after_other_work(directory):
    """Saves every variant amid other models; to be run in a process of its own."""
    pack(make(*FIRST), directory / "first")
    keras.utils.set_random_seed(7)
    keras.applications.VGG19(include_top=False, weights=None)(np.zeros((1, 32, 32, 3)))
    other = Encoder("block3_conv2", weights.load("random", "block3_conv2", 1).layers, engine="xla")
    with tf.GradientTape() as tape:
        features = other(tf.ones((2, 16, 24, 3)))[0]
    tape.gradient(features, other.ordered_variables)
    pack(other, directory / "other")
    for power, (engine, dtype) in enumerate(VARIANTS, start=4):
        encoder = make(engine, dtype)
        pack(encoder, directory / f"before-{engine}-{dtype}")
        # Half-way through, names get a digit more: __inference_x_10000 sorts before _9999.
        advance_to(10**power - 400)
        pack(encoder, directory / f"{engine}-{dtype}")
        assert ops.uid() > 10**power + 200


@pytest.fixture(scope="module")
def after_other_work(run_command, tmp_path_factory):
    """The folder in which `pack_all_after_other_work` has left its archives."""
    directory = tmp_path_factory.mktemp("after_other_work")
    program = (
        "import pathlib, sys; from tests import test_reproducible as t;"
        "t.pack_all_after_other_work(pathlib.Path(sys.argv[1]))"
    )
    # Not the seed of this process, and so not that of the fixture `build` either.
    result = run_command("-c", program, directory, PYTHONHASHSEED="12345")
    assert result.returncode == 0, result.stderr
    return directory


@every_variant
def test_what_the_process_did_before_does_not_show(build, after_other_work, engine, dtype):
    if (engine, dtype) == FIRST:
        expected = after_other_work / "first"
    else:
        expected = build(LAYER, dtype, engine) / "encoder.tar.gz"
    assert_same_archive(after_other_work / f"{engine}-{dtype}", expected)


@every_variant
def test_saving_an_encoder_twice_gives_the_same_bytes(after_other_work, engine, dtype):
    first = after_other_work / f"before-{engine}-{dtype}"
    assert_same_archive(after_other_work / f"{engine}-{dtype}", first)


def test_the_bytes_tell_the_variants_apart(after_other_work):
    contents = {(after_other_work / f"{engine}-{dtype}").read_bytes() for engine, dtype in VARIANTS}
    assert len(contents) == len(VARIANTS)


@contextlib.contextmanager
def mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def unfiltered_tracebacks():
    tf.debugging.disable_traceback_filtering()
    try:
        yield
    finally:
        tf.debugging.enable_traceback_filtering()


@pytest.mark.parametrize(
    "surroundings",
    [
        tf.GradientTape,
        lambda: tf.device("/CPU:0"),
        lambda: tf.distribute.OneDeviceStrategy("/CPU:0").scope(),
        mixed_precision,
        unfiltered_tracebacks,
    ],
    ids=["tape", "device", "strategy", "mixed precision", "tracebacks"],
)
def test_what_surrounds_the_call_does_not_show(build, tmp_path, surroundings):
    with surroundings():
        pack(make(), tmp_path / "encoder.tar.gz")
    assert_same_archive(tmp_path / "encoder.tar.gz", build(LAYER) / "encoder.tar.gz")


def test_the_thread_does_not_show(build, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: pack(make(), tmp_path / "encoder.tar.gz")).result()
    assert_same_archive(tmp_path / "encoder.tar.gz", build(LAYER) / "encoder.tar.gz")


def pack_with_other_settings(path):
    """Saves with TensorFlow set up differently; to be run in a process of its own."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    # Stands for a machine with other devices, such as a GPU.
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    tf.config.set_soft_device_placement(False)
    tf.config.optimizer.set_jit(True)
    pack(make(), path)


def test_threads_and_devices_of_the_process_do_not_show(build, run_command, tmp_path):
    program = (
        "import pathlib, sys; from tests import test_reproducible as t;"
        "t.pack_with_other_settings(pathlib.Path(sys.argv[1]))"
    )
    result = run_command("-c", program, tmp_path / "encoder.tar.gz")
    assert result.returncode == 0, result.stderr
    assert_same_archive(tmp_path / "encoder.tar.gz", build(LAYER) / "encoder.tar.gz")


# The numbers in a SavedModel.

NUMBERED = (
    r'"__inference_\w+_(\d+)"',
    r'"CustomGradient-(\d+)"',
    r'key: "_user_specified_name"\s+value {\s+s: "(\d+)"',
)


@every_engine
def test_numbers_count_from_0_and_are_not_those_of_the_process(tmp_path, engine):
    advance_to(100_000)
    first = ops.uid()
    saved_model.save(make(engine), str(tmp_path))
    last = ops.uid()

    content = (tmp_path / "saved_model.pb").read_bytes()
    text = text_format.MessageToString(saved_model_pb2.SavedModel.FromString(content))
    functions, gradients, captures = (set(re.findall(pattern, text)) for pattern in NUMBERED)
    assert len(functions) == 13  # three methods, six of signatures, two gradients, save, restore
    assert len(gradients) == 2
    numbers = sorted(map(int, functions | gradients | captures))
    assert numbers == list(range(len(numbers)))

    for name in ("saved_model.pb", "variables/variables.index"):
        found = {int(n) for n in re.findall(rb"\d+", (tmp_path / name).read_bytes())}
        assert not found & set(range(first, last + 1)), name


@every_engine
def test_gradients_still_find_their_functions_by_number(tmp_path, images, engine):
    encoder = make(engine)
    saved_model.save(encoder, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))

    def gradients(function, variables):
        with tf.GradientTape() as tape:
            outputs = function(tf.constant(images))
            loss = tf.reduce_mean(outputs[0] ** 2)
        return tape.gradient(loss, variables)

    for method in ("__call__", "compact"):
        found = gradients(getattr(loaded, method), loaded.variables)
        expected = gradients(getattr(encoder, method), encoder.ordered_variables)
        assert len(found) == 8
        for left, right in zip(found, expected, strict=True):
            assert np.abs(right).max() > 0
            np.testing.assert_allclose(left, right, rtol=0, atol=1e-5 * np.abs(right).max())


# SOURCE_DATE_EPOCH.


def test_source_date_epoch_is_the_time_in_the_archive_and_in_the_manifest(
    saved_model, tmp_path, monkeypatch
):
    def packed(name, value):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
        path = tmp_path / name
        archive.pack(saved_model(LAYER), str(path))
        monkeypatch.delenv("SOURCE_DATE_EPOCH")
        made = manifest.make(
            layer=LAYER,
            index_dtype="int64",
            pooling="argmax",
            weights=weights.load("random", LAYER, 0),
            archive_path=str(path),
            flags={},
        )
        return path.read_bytes(), made

    (content, stated), (again, stated_again) = (packed(n, "1700000000") for n in ("one", "two"))
    assert content == again
    assert stated == stated_again
    assert stated["archive"]["source_date_epoch"] == 1_700_000_000
    assert int.from_bytes(content[4:8], "little") == 1_700_000_000  # of gzip
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(content))) as tar:
        assert {member.mtime for member in tar} == {1_700_000_000}

    usual, stated_usual = packed("usual", "")
    assert usual != content
    assert stated_usual["archive"]["source_date_epoch"] == 0
    assert stated_usual["members"] == stated["members"]
