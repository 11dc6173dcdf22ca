"""Every check of the verifier passes a good archive and fails the archive it is there for."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from export import fingerprint, saved_model, verify
from unpooling import archive, encoder, pooling, vgg19, weights

LAYER = "block3_conv2"
NAMES = [
    "checksums",
    "manifest",
    "members",
    "fingerprint",
    "graph",
    "loads",
    "signatures",
    "variables",
    "weights",
    "outputs",
    "features and indices",
    "NaN",
    "gradients",
    "wrong input",
    "XLA",
    "card",
    "diagram",
]


@pytest.fixture
def make_archive(tmp_path, monkeypatch):
    """Saves and packs a small encoder after whatever has been patched; returns the path."""
    save = tf.saved_model.save

    def make(tamper=None, layers=None, make_encoder=encoder.Encoder):
        def save_tampered(root, directory, signatures):
            if tamper:
                tamper(root, signatures)
            save(root, directory, signatures=signatures)

        # Tampering takes operations that no encoder uses; what is tested here lies behind that.
        monkeypatch.setattr(verify.graph, "check", lambda directory: "not looked at")
        monkeypatch.setattr(tf.saved_model, "save", save_tampered)
        layers = layers or weights.load("random", LAYER, 0).layers
        saved_model.save(make_encoder(LAYER, layers), str(tmp_path / "model"))
        archive.pack(str(tmp_path / "model"), str(tmp_path / "encoder.tar.gz"))
        return str(tmp_path / "encoder.tar.gz")

    return make


def failed(path):
    """The failed checks of the archive at `path`: {name: detail}."""
    return {c.name: c.detail for c in verify.verify(path) if not c.passed}


@pytest.mark.parametrize(
    ("layer", "index_dtype"),
    [("block1_conv2", "int64"), ("block2_conv2", "int32"), ("block5_conv2", "int64")],
)
def test_built_archives_pass_every_check(build, layer, index_dtype):
    checks = list(verify.verify(str(build(layer, index_dtype) / "encoder.tar.gz")))
    assert [check.name for check in checks] == NAMES
    assert all(check.passed for check in checks), checks


def test_an_untampered_archive_passes(make_archive):
    assert failed(make_archive()) == {}


def test_the_command_prints_a_line_for_each_check(build, run_command):
    result = run_command("-m", "export.verify", build("block2_conv2", "int32") / "encoder.tar.gz")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"ok     {name}" for name in NAMES]


def test_the_command_fails_with_the_reason(run_command, tmp_path):
    (tmp_path / "encoder.tar.gz").write_bytes(b"no archive")
    result = run_command("-m", "export.verify", tmp_path / "encoder.tar.gz")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert lines[:-1] == [
        f"ok     {name}: none beside the archive" for name in ("checksums", "manifest")
    ]
    assert lines[-1].startswith("FAILED members: archive ")


def test_the_command_says_how_it_is_used(run_command):
    result = run_command("-m", "export.verify")
    assert result.returncode == 2
    assert "usage: python -m export.verify" in result.stderr


def test_a_failed_check_fails_the_run_in_a_fresh_process(tmp_path, capfd):
    (tmp_path / "encoder.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="does not keep its contract: members: archive"):
        verify.run_in_fresh_process(str(tmp_path / "encoder.tar.gz"))
    assert "FAILED members" in capfd.readouterr().out


def test_a_check_that_breaks_off_fails_the_run_in_a_fresh_process(tmp_path, monkeypatch):
    monkeypatch.setattr(verify.sys, "executable", shutil.which("false"))
    with pytest.raises(ValueError, match="broke off with status 1"):
        verify.run_in_fresh_process(str(tmp_path / "encoder.tar.gz"))


def test_a_model_of_another_kind_does_not_load(tmp_path):
    root = tf.train.Checkpoint(v=tf.Variable(1.0))
    root.variables = [root.v]
    tf.saved_model.save(root, str(tmp_path / "model"))
    fingerprint.write(str(tmp_path / "model"))
    archive.pack(str(tmp_path / "model"), str(tmp_path / "encoder.tar.gz"))
    assert (
        "the last convolution of an encoder is one of"
        in failed(tmp_path / "encoder.tar.gz")["loads"]
    )


def test_nothing_is_run_of_an_archive_that_does_not_load(make_archive):
    path = make_archive(lambda root, signatures: delattr(root, "variables"))
    checks = list(verify.verify(path))
    assert checks[-1].name == "loads"
    assert [check.passed for check in checks] == [True] * (len(checks) - 1) + [False]


def drop_features(root, signatures):
    del signatures["features"]


def rename_output(root, signatures):
    serve = signatures["serving_default"]
    spec = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")

    @tf.function(input_signature=[spec])
    def renamed(images):
        outputs = serve(images)
        outputs["indices1"] = outputs.pop("block1_indices")
        return outputs

    signatures["serving_default"] = renamed


def freeze_a_variable(root, signatures):
    root.trainable_variables = root.variables[:-1]


def add_a_loss(root, signatures):
    root.regularization_losses = [tf.function(lambda: tf.constant(0.0), input_signature=[])]


def return_a_tuple(root, signatures):
    call = root.__call__
    spec = call.input_signature
    root.__call__ = tf.function(lambda images: tuple(call(images)), input_signature=spec)


def serve_other_features(root, signatures):
    spec = root.__call__.input_signature
    features = root.features
    signatures["features"] = tf.function(
        lambda images: {"features": 1.001 * features(images)}, input_signature=spec
    )


def mirror_switches(root, signatures):
    compact = root.compact
    root.compact = tf.function(
        lambda images: [compact(images)[0], *(3 - s for s in compact(images)[1:])],
        input_signature=compact.input_signature,
    )


def serve_other_switches(root, signatures):
    serve = signatures["compact"]

    def served(images):
        outputs = serve(images)
        return {**outputs, "block2_switches": 3 - outputs["block2_switches"]}

    signatures["compact"] = tf.function(served, input_signature=serve.input_signature)


def serve_other_indices(root, signatures):
    serve = signatures["serving_default"]

    def served(images):
        outputs = serve(images)
        return {**outputs, "block2_indices": tf.reverse(outputs["block2_indices"], [0])}

    signatures["serving_default"] = tf.function(served, input_signature=serve.input_signature)


def repeat_the_features(root, signatures):
    call = root.__call__

    def repeated(images):
        features, *indices = call(images)
        return [tf.concat([features, features], axis=1), *indices]

    root.__call__ = tf.function(repeated, input_signature=call.input_signature)


def scale_compact_features(root, signatures):
    compact = root.compact

    def scaled(images):
        features, *switches = compact(images)
        return [1.001 * features, *switches]

    root.compact = tf.function(scaled, input_signature=compact.input_signature)


def take_pictures_of_one_size(root, signatures):
    features = root.features
    spec = [tf.TensorSpec((None, 32, 32, 3), tf.float32, name="images")]
    signatures["features"] = tf.function(
        lambda images: {"features": tf.ensure_shape(features(images), (None, None, None, 256))},
        input_signature=spec,
    )


@pytest.mark.parametrize(
    ("tamper", "check", "words"),
    [
        (drop_features, "signatures", "signatures ['compact', 'serving_default']"),
        (rename_output, "signatures", "indices1"),
        (freeze_a_variable, "variables", "trainable_variables are"),
        (add_a_loss, "variables", "regularization_losses are"),
        (return_a_tuple, "outputs", "a call returns a"),
        (serve_other_features, "outputs", "the signature features differs"),
        (serve_other_indices, "outputs", "block2_indices of serving_default differs"),
        (repeat_the_features, "outputs", "1x8x8: [('float32', (1, 4, 2, 256))"),
        (scale_compact_features, "outputs", "features of compact differ"),
        (
            take_pictures_of_one_size,
            "signatures",
            "features takes {'images': ('float32', (None, 32",
        ),
        (mirror_switches, "outputs", "block1_switches do not say the same as the indices"),
        (serve_other_switches, "outputs", "block2_switches of the signature differ"),
    ],
)
def test_a_wrong_interface_is_found(make_archive, tamper, check, words):
    assert words in failed(make_archive(tamper))[check]


def with_value(layers, value):
    kernel, bias = layers["block2_conv1"]
    bias = bias.copy()
    bias[3] = value
    return {**layers, "block2_conv1": (kernel, bias)}


def test_weights_that_are_not_finite_are_found(make_archive):
    layers = with_value(weights.load("random", LAYER, 0).layers, np.nan)
    assert "NaN or infinite" in failed(make_archive(layers=layers))["variables"]


_original = pooling.max_pool_with_indices


def last_wins(values, index_dtype, engine):
    """Pools the map upside down and mirrored, so that the last of a tie wins."""
    _, height, width, _ = tf.unstack(tf.shape(values))
    even = values[:, : height // 2 * 2, : width // 2 * 2]
    pooled, indices = _original(tf.reverse(even, [1, 2]), tf.int64)
    shape = tf.shape(even, out_type=tf.int64)
    batch, y, x, channel = tf.unstack(indices, axis=1)
    indices = tf.stack([batch, shape[1] - 1 - y, shape[2] - 1 - x, channel], axis=1)
    grid = tf.concat([tf.shape(pooled), [4]], axis=0)
    indices = tf.reshape(tf.reverse(tf.reshape(indices, grid), [1, 2]), [-1, 4])
    return tf.reverse(pooled, [1, 2]), tf.cast(indices, index_dtype)


def change_indices(change):
    def pool(values, index_dtype, engine):
        pooled, indices = _original(values, index_dtype, engine)
        return pooled, change(indices)

    return pool


swap = change_indices(lambda rows: tf.gather(rows, [0, 2, 1, 3], axis=1))
same_batch = change_indices(lambda rows: rows * [0, 1, 1, 1])
next_door = change_indices(lambda rows: tf.add(rows, [0, 0, 2, 0]))
first_always = change_indices(lambda rows: rows // [1, 2, 2, 1] * [1, 2, 2, 1])
other_order = change_indices(lambda rows: tf.reverse(rows, [0]))


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        (last_wins, "in a tie it is not the first that wins"),
        (swap, "block1_indices"),
        (same_batch, "do not lie in the windows of their rows"),
        (next_door, "block1_indices are out of the map's range"),
        (first_always, "do not point at the maxima"),
        (other_order, "do not lie in the windows of their rows"),
    ],
)
def test_wrong_indices_are_found(make_archive, monkeypatch, pool, words):
    monkeypatch.setattr(pooling, "max_pool_with_indices", pool)
    assert words in failed(make_archive())["features and indices"]


def test_another_index_dtype_than_announced_is_found(make_archive, monkeypatch):
    monkeypatch.setattr(
        pooling,
        "max_pool_with_indices",
        change_indices(lambda rows: tf.cast(rows, tf.int16)),
    )
    assert "index dtypes ['int16']" in failed(make_archive())["signatures"]


@pytest.mark.parametrize(
    "preprocess",
    [
        lambda images: images - tf.constant(vgg19.MEAN_BGR[::-1]),
        lambda images: tf.reverse(images, [-1]),
        lambda images: (tf.reverse(images, [-1]) - tf.constant(vgg19.MEAN_BGR)) / 255,
    ],
    ids=["RGB", "no mean", "scaled"],
)
def test_other_preprocessing_than_keras_is_found(make_archive, monkeypatch, preprocess):
    monkeypatch.setattr(encoder, "_preprocess", preprocess)
    assert "differ from Keras' VGG19" in failed(make_archive())["features and indices"]


class LeavesTheMap(encoder.Encoder):
    """Returns indices of -1 for a picture with a NaN."""

    def __call__(self, images):
        features, *indices = super().__call__(images)
        # After the check of the shape, which would otherwise race with this.
        with tf.control_dependencies([features]):
            broken = tf.reduce_any(tf.math.is_nan(images))
        return [features, *(tf.where(broken, -tf.ones_like(rows), rows) for rows in indices)]


def test_indices_that_leave_the_map_for_nan_are_found(make_archive):
    found = failed(make_archive(make_encoder=LeavesTheMap))
    assert list(found) == ["NaN"]
    assert "leave the map" in found["NaN"]


def test_a_variable_without_gradient_is_found(make_archive, monkeypatch):
    def pool(values, index_dtype, engine):
        pooled, indices = _original(values, index_dtype, engine)
        return tf.stop_gradient(pooled), indices

    monkeypatch.setattr(pooling, "max_pool_with_indices", pool)
    found = failed(make_archive())
    assert list(found) == ["gradients"]
    assert found["gradients"] == "block1_conv1/kernel has no gradient"


def test_a_variable_whose_gradient_is_zero_is_found(make_archive):
    layers = weights.load("random", LAYER, 0).layers
    dead = {**layers, "block1_conv2": (layers["block1_conv2"][0], np.full(64, -1e6, np.float32))}
    assert "has a gradient of zeros" in failed(make_archive(layers=dead))["gradients"]


def check_by_halves(images, minimum_side):
    """Refuses what TensorFlow could not stand, but takes an empty batch and explains nothing."""
    tf.debugging.Assert(tf.reduce_all(tf.shape(images)[1:3] >= minimum_side), ["no"])
    return tf.ensure_shape(images, (None, None, None, 3))


def test_wrong_input_that_is_not_explained_is_found(make_archive, monkeypatch):
    monkeypatch.setattr(encoder, "_check", check_by_halves)
    found = failed(make_archive())
    assert list(found) == ["wrong input"]
    assert "without saying what came and what is needed" in found["wrong input"]


def test_wrong_input_that_is_accepted_is_found(make_archive):
    def pad_small_pictures(root, signatures):
        features = root.features

        @tf.function(input_signature=features.input_signature)
        def lenient(images):
            return {"features": features(tf.pad(images, [[0, 0], [0, 9], [0, 9], [0, 0]]))}

        @tf.function(input_signature=features.input_signature)
        def serve(images):
            small = tf.shape(images)[1] < 4
            return tf.cond(small, lambda: lenient(images), lambda: {"features": features(images)})

        signatures["features"] = serve

    found = failed(make_archive(pad_small_pictures))
    assert found == {"wrong input": "the signature features accepts a picture too small"}


def test_a_card_or_diagram_that_is_not_the_archives_is_found(build, tmp_path):
    for name in ("encoder.tar.gz", "encoder.md", "encoder.png"):
        shutil.copy(build("block2_conv2", "int32") / name, tmp_path / name)
    card_path = tmp_path / "encoder.md"
    text = card_path.read_text(encoding="utf-8")
    card_path.write_text(text.replace("| int32 |", "| int64 |"), encoding="utf-8")
    (tmp_path / "encoder.png").write_bytes((tmp_path / "encoder.png").read_bytes()[:1000])
    found = failed(str(tmp_path / "encoder.tar.gz"))
    assert list(found) == ["card", "diagram"]
    assert "is missing: | `block1_indices` | int32 |" in found["card"]
