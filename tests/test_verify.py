"""Every check of the verifier passes a good archive, and fails the archive it is there for."""

import json
import pathlib
import shutil
from functools import partial, reduce
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from export import archive, checksums, verify
from export.verify import __main__ as command
from export.verify import checks, decoder, encoder, files
from export.verify import loaded as loading
from tests import forging
from unpooling.archive import read
from unpooling.errors import UserError

FILES = ["checksums", "members", "manifest", "graph", "loads", "variables", "signatures"]
FILES += ["weights", "card", "diagram"]
ENCODER = [*FILES, "outputs", "features and indices", "NaN", "wrong input", "gradients", "XLA"]
DECODER = [*FILES, "pictures", "wrong input", "gradients", "XLA"]


@pytest.fixture(scope="module")
def folder_of(build, build_decoder):
    """Returns the folder of an artifact: of a decoder, if there is no index dtype."""

    def folder(layer="block2_conv2", index_dtype="int64", engine="argmax"):
        return build(layer, index_dtype, engine) if index_dtype else build_decoder(layer)

    return folder


@pytest.fixture
def artifact(folder_of, tmp_path):
    """Copies an artifact without its checksums, which would find every change first."""

    def copy(*which):
        folder = shutil.copytree(folder_of(*which), tmp_path / "artifact")
        (folder / checksums.FILE).unlink()
        return folder

    return copy


@pytest.fixture
def forged(folder_of, tmp_path):
    """Packs the module of an artifact after a change of its files."""

    def forge(change, *which):
        (path,) = folder_of(*which).glob("*.tar.gz")
        return forging.packed(change(read(str(path)).members), tmp_path / path.name)

    return forge


def failure(path, *manifest):
    """The first check that fails: (name, detail)."""
    found = checks.verify(str(path), *manifest)
    return next(((c.name, c.detail) for c in found if c.outcome == "failed"), None)


@pytest.mark.parametrize(
    ("which", "names"),
    [
        (("block1_conv2",), [name for name in ENCODER if name != "NaN"]),
        (("block2_conv2", "int32", "xla"), ENCODER),
        (("block2_conv2",), ENCODER[:-1]),
        (("block1_conv2", None), DECODER),
        (("block2_conv2", None), DECODER),
    ],
)
def test_a_built_archive_passes_every_check_that_applies_to_it(folder_of, which, names):
    (path,) = folder_of(*which).glob("*.tar.gz")
    found = list(checks.verify(str(path)))
    assert [check.name for check in found] == names
    assert {check.outcome for check in found} == {"passed"}, found
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


# The command.


@pytest.fixture
def alone(folder_of, tmp_path):
    """A good archive with nothing beside it."""
    return shutil.copy(folder_of("block1_conv2") / "encoder.tar.gz", tmp_path)


def test_what_is_not_there_is_skipped(alone):
    found = list(checks.verify(alone))
    skipped = [check.name for check in found if check.outcome == "skipped"]
    assert skipped == ["checksums", "manifest", "weights", "card", "diagram"]
    assert {check.outcome for check in found} == {"passed", "skipped"}


@pytest.mark.parametrize(
    ("outcomes", "flags", "status"),
    [
        ("passed passed", [], 0),
        ("passed skipped", [], 3),
        ("passed skipped", ["--archive_only"], 0),
        ("skipped failed", ["--archive_only"], 1),
    ],
)
def test_the_exit_status_says_what_was_checked(monkeypatch, capsys, outcomes, flags, status):
    found = [checks.Check(f"check {n}", outcome, "x") for n, outcome in enumerate(outcomes.split())]
    monkeypatch.setattr(checks, "verify", lambda path, manifest_path: iter(found))
    assert command.main([*flags, "encoder.tar.gz"]) == status
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [str(check) for check in found]
    assert ("were skipped: check 1. If you only" in printed.err) == (status == 3)
    assert str(found[0])[:9] in ("ok      c", "skipped c")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [([], "usage: python -m export.verify"), (["--archive", "x"], "unrecognized arguments: --ar")],
)
def test_wrong_arguments_are_told_with_the_usage(arguments, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert words in capsys.readouterr().err
    assert command.main(["gone.tar.gz"]) == command.main([".", "--manifest=x"]) == 2
    assert capsys.readouterr().err.endswith("verify: .: a folder: pass a file in it.\n")


def test_in_a_fresh_process_all_but_passed_checks_are_errors(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(verify.sys, "executable", str(tmp_path / "python"))

    def run(script):
        (tmp_path / "python").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "python").chmod(0o755)
        verify.run_in_fresh_process(str(tmp_path / "encoder.tar.gz"))

    run("echo ok   $2: $3")
    line = f"  ok export.verify: {tmp_path / 'encoder.tar.gz'}\n"
    assert capfd.readouterr().out == line
    with pytest.raises(UserError, match=r"not keep its contract: card: none; manifest: others$"):
        run("echo 'ok      x'; echo 'skipped card: none'; echo 'FAILED  manifest: others'; exit 1")
    with pytest.raises(UserError, match="verification ended with status -9"):
        run("kill -9 $$")


# The files.


def test_a_byte_changed_in_any_file_is_found_by_the_checksums(folder_of, tmp_path):
    folder = shutil.copytree(folder_of("block1_conv2"), tmp_path / "artifact")
    for path in folder.iterdir():
        good = path.read_bytes()
        path.write_bytes(good[:50] + bytes([good[50] ^ 1]) + good[51:])
        assert failure(folder / "encoder.tar.gz")[0] == "checksums"
        path.write_bytes(good)


def restate(path, **changes):
    """Changes entries of a manifest: {"a__b": value} for manifest["a"]["b"]."""
    stated = json.loads(path.read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        reduce(dict.__getitem__, parents, stated)[last] = value
    path.write_text(json.dumps(stated))


ZEROS = {"bytes": 1, "sha256": 64 * "0"}
HALF = {"kind": "decoder", "index_dtype": None, "pooling": None}


@pytest.mark.parametrize(
    ("changes", "check", "words"),
    [
        ({"archive": ZEROS}, "manifest", "compressed in another way"),
        ({"members": {}}, "manifest", "the member saved_model.pb differs"),
        ({"layer": "block3_conv2"}, "weights", "the manifest is that of the encoder for block3"),
        (HALF, "weights", "the manifest is that of the decoder for block2_conv2"),
        ({"index_dtype": "int32"}, "weights", "that of the encoder for block2_conv2, int32"),
        ({"pooling": "xla"}, "weights", "int64 indices, xla pooling"),
        ({"weights__layers__block1_conv2": 64 * "0"}, "weights", "block1_conv2"),
        ({"weights__source": "imagenet"}, "weights", "block1_conv1: not what `imagenet` weights"),
        ({"weights__seed": 5}, "weights", "block1_conv1: not what `random` weights are"),
        ({"weights__source": "file"}, "card", "`license` must be"),
    ],
)
def test_a_manifest_that_states_something_else_is_found(artifact, changes, check, words):
    folder = artifact("block2_conv2")
    restate(folder / "encoder.manifest.json", **changes)
    name, detail = failure(folder / "encoder.tar.gz")
    assert name == check
    assert words in detail


def test_other_weights_than_stated_are_found(forged, folder_of):
    change = partial(forging.with_weights, change=lambda v: v["variables/0"].fill(0.5))
    path = forged(change, "block1_conv2")
    stated = pathlib.Path(path).with_name("encoder.manifest.json")
    shutil.copy(folder_of("block1_conv2") / stated.name, stated)
    restate(stated, **archive.describe(read(path)))
    assert failure(path)[0] == "weights"


def test_a_renamed_decoder_beside_a_falsified_manifest_is_found(artifact):
    folder = artifact("block1_conv2", None)
    path = (folder / "decoder.tar.gz").rename(folder / "vgg19-decoder.tar.gz")
    assert failure(path) is None
    restate(folder / "decoder.manifest.json", layer="block2_conv2")
    assert failure(path)[0] == "weights"


def test_of_several_manifests_the_one_named_after_the_archive_counts(artifact):
    folder = artifact("block1_conv2")
    path = folder / "encoder.tar.gz"
    (folder / "other.manifest.json").write_text("no manifest")
    packed = read(str(path))
    assert files.read_manifest(path, None, packed)[0].endswith("hashes in encoder.manifest.json")
    assert failure(path, str(folder / "other.manifest.json"))[0] == "manifest"
    name, detail = failure(path.rename(folder / "renamed.tar.gz"))
    assert (name, "--manifest=FILE: encoder.manifest.json, other." in detail) == ("manifest", True)


def test_the_card_or_diagram_of_another_archive_is_found(artifact, folder_of):
    folder = artifact("block2_conv2")
    path = folder / "encoder.tar.gz"
    good = (folder / "encoder.png").read_bytes()
    (folder / "encoder.png").write_bytes(good[: len(good) // 2])
    assert failure(path)[0] == "diagram"
    shutil.copy(folder_of("block1_conv2") / "encoder.png", folder)
    assert failure(path) == ("diagram", "not the diagram of block2_conv2")
    shutil.copy(folder_of("block2_conv2", "int32", "xla") / "encoder.md", folder)
    assert failure(path)[0] == "card"


# The module, changed in the archive.


def signatures(meta_graph):
    nodes = meta_graph.object_graph_def.nodes
    (found,) = [n for n in nodes if n.user_object.identifier == "signature_map"]
    return found.children


def swap_signatures(meta_graph):
    one, two, *_ = signatures(meta_graph)
    one.node_id, two.node_id = two.node_id, one.node_id


def freeze_a_variable(meta_graph):
    objects = meta_graph.object_graph_def.nodes
    root = {child.local_name: child.node_id for child in objects[0].children}
    objects[root["trainable_variables"]].children.pop()


PIXELS = forging.set_constants(
    "features", lambda a: (a.dtype, a.shape) == (np.float32, (3,)), 117.0
)
SILENT = forging.set_constants(
    "features", lambda a: a.dtype == object and b"must" in a.item(), "no"
)


ENCODER_2, DECODER_2 = ("block2_conv2",), ("block2_conv2", None)
SWITCHES = forging.replace("", "LogicalOr", "LogicalAnd")
BGR = forging.stack_otherwise("", [2, 1, 0])
STOPPED = forging.replace("__call__", "Identity", "StopGradient")
CLIPPED = forging.replace("decode", "Relu", "Relu6")


@pytest.mark.parametrize(
    ("which", "change", "check", "words"),
    [
        (
            ENCODER_2,
            lambda m: signatures(m).pop(),
            "signatures",
            "signatures ['compact', 'serving_default']",
        ),
        (ENCODER_2, swap_signatures, "loads", "index dtypes ['uint8']"),
        (DECODER_2, swap_signatures, "signatures", "'block1_switches': ('uint8', "),
        (ENCODER_2, freeze_a_variable, "variables", "trainable_variables are ["),
        (ENCODER_2, PIXELS, "outputs", "features of features differ"),
        (ENCODER_2, SWITCHES, "outputs", "block1_switches of compact differ"),
        (ENCODER_2, BGR, "features and indices", "the features differ from Keras' VGG19"),
        (ENCODER_2, STOPPED, "gradients", "the input has no gradient"),
        (ENCODER_2, SILENT, "wrong input", "the signature features refuses a picture without a "),
        (DECODER_2, CLIPPED, "pictures", "differs from Keras and tf.scatter_nd"),
    ],
)
def test_a_module_with_another_graph_is_found(forged, which, change, check, words):
    path = forged(partial(forging.with_graph, change=change), *which)
    # The kinds of operations are not what is tested here.
    with mock.patch.object(checks.graph, "check", return_value="not looked at"):
        name, detail = failure(path)
    assert name == check
    assert words in detail


@pytest.mark.parametrize(
    ("array", "value", "check", "words"),
    [
        (0, np.nan, "variables", "block1_conv1/kernel holds NaN or infinite values"),
        (3, -1e6, "gradients", "the input has a gradient of zeros"),
    ],
)
def test_a_module_with_unusable_weights_is_found(forged, array, value, check, words):
    change = partial(forging.with_weights, change=lambda v: v[f"variables/{array}"].fill(value))
    assert failure(forged(change, "block1_conv2")) == (check, words)


def test_a_model_of_another_kind_does_not_load(tmp_path):
    root = tf.train.Checkpoint(v=tf.Variable(1.0))
    root.variables = [root.v]
    tf.saved_model.save(root, str(tmp_path / "model"))
    archive.pack(str(tmp_path / "model"), str(tmp_path / "encoder.tar.gz"))
    with mock.patch.object(checks.graph, "check", return_value="not looked at"):
        name, detail = failure(tmp_path / "encoder.tar.gz")
    assert (name, "the last convolution of an encoder is" in detail) == ("loads", True)


# The module, changed once it is loaded.


class Instead:
    """A loaded module that does something else when it is called."""

    def __init__(self, module, call):
        self._module = module
        self._call = call

    def __call__(self, images):
        return self._call(self._module, images)

    def __getattr__(self, name):
        return getattr(self._module, name)


@pytest.fixture
def reason(saved_model):
    """Makes one check of a good module with another call, and says why it fails."""

    def reason(check, call, layer="block2_conv2", kind="encoder"):
        _, good = loading.load(saved_model(layer, kind=kind))
        half = {"encoder": encoder, "decoder": decoder}[kind]
        shared = {"XLA": loading.check_xla, "gradients": loading.check_gradients}
        changed = loading.Loaded(Instead(good.module, call), good.spec)
        with pytest.raises(Exception) as caught:
            if check in shared:
                shared[check](changed, half.example(good.spec))
            else:
                half.checks(good.spec)[check](changed)
        return str(caught.value)

    return reason


def features(change):
    """A call whose features are changed."""

    def call(module, images):
        values, *rows = tf.nest.flatten(module(images))
        return [change(values), *rows]

    return call


def indices(change):
    """A call whose indices are changed: change(rows, images)."""

    def call(module, images):
        values, *rows = module(images)
        return [values, *(change(r, images) for r in rows)]

    return call


WINDOW = [1, 2, 2, 1]


def leave_for_nan(rows, images):
    return tf.where(tf.reduce_any(tf.math.is_nan(images)), -tf.ones_like(rows), rows)


def pad(module, images):
    is_small = tuple(images.shape) == (1, 1, 32, 3)
    return module(tf.repeat(images, 2, axis=1) if is_small else images)


def in_a_graph(change):
    return features(lambda values: values if tf.executing_eagerly() else change(values))


KERAS = "features and indices"
DIFFERENT = {
    # What is done: (check, call, words).
    "a tuple": ("outputs", lambda module, x: tuple(module(x)), "a call returns a tuple"),
    "int32": ("outputs", indices(lambda r, _: tf.cast(r, tf.int32)), "serving_default differ"),
    "another order": ("outputs", indices(lambda r, _: r[::-1]), "block1_switches of compact diff"),
    "features off by 1e-4": (KERAS, features(lambda f: f * 1.0001), "differ from Keras"),
    "one batch": (KERAS, indices(lambda r, _: r * [0, 1, 1, 1]), "windows of their rows"),
    "next door": (KERAS, indices(lambda r, _: tf.add(r, [0, 0, 2, 0])), "out of the map's range"),
    "first": (KERAS, indices(lambda r, _: r // WINDOW * WINDOW), "do not point at the maxima"),
    "NaN": ("NaN", indices(leave_for_nan), "block1_indices leave the map"),
    "padding": ("wrong input", pad, "the call accepts a picture that is too small"),
    "by XLA": ("XLA", in_a_graph(lambda f: f * 1.001), "output 0 differs"),
    "by XLA, backwards": (
        *("XLA", in_a_graph(lambda f: 2 * f - tf.stop_gradient(f))),
        "the gradient of block1_conv1/kernel",
    ),
    "not by XLA": (
        *("XLA", in_a_graph(lambda f: tf.nn.max_pool_with_argmax(f, 1, 1, "SAME")[0]), "ompil"),
    ),
}


@pytest.mark.parametrize(("check", "call", "words"), DIFFERENT.values(), ids=DIFFERENT)
def test_an_encoder_that_does_something_else_is_found(reason, check, call, words):
    assert words in reason(check, call, "block1_conv2" if check == "XLA" else "block2_conv2")


@pytest.mark.parametrize(
    ("check", "call", "words"),
    [
        ("pictures", lambda module, x: [module(x)], "returns a list"),
        ("pictures", lambda module, x: tf.cast(module(x), tf.float64), "differs from Keras"),
        ("pictures", lambda module, x: module(x) * 1.0001, "1x2x3: the call with int64 differs"),
        ("wrong input", lambda module, x: x[0], "the call with int64 accepts"),
        ("gradients", lambda module, x: tf.stop_gradient(module(x)), "the input has no gradient"),
    ],
)
def test_a_decoder_that_does_something_else_is_found(reason, check, call, words):
    assert words in reason(check, call, kind="decoder")


def test_in_a_tie_the_first_must_win():
    before = np.zeros((1, 2, 2, 1), np.float32)
    encoder._check_indices("rows", before, np.array([[0, 0, 0, 0]]))
    with pytest.raises(ValueError, match="in a tie it is not the first that wins"):
        encoder._check_indices("rows", before, np.array([[0, 1, 1, 0]]))
