"""The archive, loaded in every way that its users load it, gives the same outputs."""

import json
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub
import tf_keras

from tests.conftest import ROOT
from unpooling import pooling, vgg19, weights
from unpooling.encoder import Encoder

FLAGSHIP = "block5_conv2"
NAMES = ["features", "block1_indices", "block2_indices", "block3_indices", "block4_indices"]


@pytest.fixture(scope="module")
def expected(images):
    """What the encoder that was exported returns for `images`, without any export."""
    encoder = Encoder(FLAGSHIP, weights.load("random", FLAGSHIP, 0).layers)
    return [output.numpy() for output in encoder(images)]


def assert_outputs(found, expected):
    assert len(found) == len(expected)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-5 * expected[0].max())
    for indices, expected_indices in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(indices, expected_indices)


def test_tf_saved_model_load(saved_model, images, expected):
    loaded = tf.saved_model.load(saved_model(FLAGSHIP))
    outputs = loaded(images)
    assert isinstance(outputs, list)
    assert_outputs(outputs, expected)


def test_hub_load(saved_model, images, expected):
    assert_outputs(hub.load(saved_model(FLAGSHIP))(images), expected)


def test_the_features_method_and_signature_return_the_features_alone(saved_model, images, expected):
    loaded = tf.saved_model.load(saved_model(FLAGSHIP))
    assert_outputs([loaded.features(images)], expected[:1])
    outputs = loaded.signatures["features"](images=tf.constant(images))
    assert list(outputs) == ["features"]
    assert_outputs([outputs["features"]], expected[:1])


def test_the_compact_switches_make_the_tuples_of_the_call(saved_model, images, expected):
    loaded = tf.saved_model.load(saved_model(FLAGSHIP))
    features, *switches = loaded.compact(images)
    assert [s.dtype for s in switches] == [tf.uint8] * 4
    assert [tuple(s.shape) for s in switches] == [
        (2, 16, 24, 64),
        (2, 8, 12, 128),
        (2, 4, 6, 256),
        (2, 2, 3, 512),
    ]
    indices = [pooling.switches_to_indices(s) for s in switches]
    assert_outputs([features, *indices], expected)

    served = loaded.signatures["compact"](images=tf.constant(images))
    assert set(served) == {"features", *(f"block{k}_switches" for k in range(1, 5))}
    for k, block_switches in enumerate(switches, start=1):
        np.testing.assert_array_equal(served[f"block{k}_switches"], block_switches)


def test_the_features_signature_computes_no_indices(saved_model):
    loaded = tf.saved_model.load(saved_model(FLAGSHIP))

    def operations(name):
        graph = loaded.signatures[name].graph.as_graph_def()
        return {node.op for function in graph.library.function for node in function.node_def}

    assert "MaxPoolWithArgmax" in operations("serving_default")
    assert "MaxPoolWithArgmax" not in operations("features")


def test_serving_default_names_its_input_and_outputs(saved_model, images, expected):
    signature = tf.saved_model.load(saved_model(FLAGSHIP)).signatures["serving_default"]
    assert list(signature.structured_input_signature[1]) == ["images"]
    outputs = signature(images=tf.constant(images))
    assert set(outputs) == set(NAMES)
    assert_outputs([outputs[name] for name in NAMES], expected)


def test_hub_keras_layer(saved_model, images, expected):
    outputs = hub.KerasLayer(saved_model(FLAGSHIP))(images)
    assert isinstance(outputs, list)
    assert_outputs(outputs, expected)


def test_hub_keras_layer_in_a_functional_model(saved_model, images, expected):
    inputs = tf_keras.Input((None, None, 3))
    outputs = hub.KerasLayer(saved_model(FLAGSHIP))(inputs)
    assert [tuple(o.shape) for o in outputs] == [(None, None, None, 512)] + [(None, 4)] * 4
    model = tf_keras.Model(inputs, outputs)
    assert_outputs(model(images), expected)
    assert_outputs(model.predict(images, verbose=0), expected)


def test_hub_keras_layer_by_url(build, serve, images, expected):
    url = serve(build(FLAGSHIP).parent)
    layer = hub.KerasLayer(f"{url}/vgg19-block5-conv2/encoder.tar.gz")
    assert_outputs(layer(images), expected)


def test_keras_3_tfsm_layer(saved_model, images, expected):
    layer = keras.layers.TFSMLayer(saved_model(FLAGSHIP), call_endpoint="serving_default")
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layer(inputs))
    outputs = model(images)
    assert_outputs([outputs[name] for name in NAMES], expected)
    assert len(layer.trainable_variables) == 28


def test_keras_3_tfsm_layer_can_take_the_call_itself(saved_model, images, expected):
    layer = keras.layers.TFSMLayer(saved_model(FLAGSHIP), call_endpoint="__call__")
    outputs = layer(images)
    assert isinstance(outputs, list)
    assert_outputs(outputs, expected)


def saved_model_cli(*arguments):
    command = pathlib.Path(sys.executable).with_name("saved_model_cli")
    result = subprocess.run(
        [command, *arguments], capture_output=True, text=True, check=True, timeout=300
    )
    return result.stdout


def test_tensorflow_servings_requests_are_as_documented(saved_model):
    text = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8")
    request, answer = map(json.loads, re.findall(r"```json\n(.*?)```", text, re.DOTALL))
    serve = tf.saved_model.load(saved_model(FLAGSHIP)).signatures[request["signature_name"]]
    assert set(request["inputs"]) == set(serve.structured_input_signature[1])
    ((row,),) = request["inputs"]["images"]
    images = tf.constant([[row * 16] * 16], tf.float32)  # the least sides, from that pixel
    outputs = serve(images=images)
    assert set(outputs) == set(answer["outputs"])
    assert all(len(output) == 1 for output in outputs.values())  # the batch comes first


def test_saved_model_cli_show(saved_model):
    output = saved_model_cli(
        "show",
        f"--dir={saved_model(FLAGSHIP)}",
        "--tag_set=serve",
        "--signature_def=serving_default",
    )
    for name in NAMES:
        assert f"outputs['{name}']" in output
    assert "inputs['images']" in output
    assert "shape: (-1, -1, -1, 3)" in output
    assert "shape: (-1, -1, -1, 512)" in output
    assert "shape: (-1, 4)" in output


def test_saved_model_cli_run(saved_model, images, expected, tmp_path):
    np.save(tmp_path / "images.npy", images)
    saved_model_cli(
        "run",
        f"--dir={saved_model(FLAGSHIP)}",
        "--tag_set=serve",
        "--signature_def=serving_default",
        f"--inputs=images={tmp_path / 'images.npy'}",
        f"--outdir={tmp_path}",
    )
    assert_outputs([np.load(tmp_path / f"{name}.npy") for name in NAMES], expected)


def test_block1_returns_the_bare_tensor(saved_model, images):
    loaded = tf.saved_model.load(saved_model("block1_conv2"))
    outputs = loaded(images)
    assert isinstance(outputs, tf.Tensor)
    assert outputs.shape == (2, 32, 48, 64)
    assert list(loaded.signatures["serving_default"](images=tf.constant(images))) == ["features"]
    layer = hub.KerasLayer(saved_model("block1_conv2"))
    np.testing.assert_array_equal(layer(images), outputs)


def test_int32_indices_hold_the_same_numbers(saved_model, images):
    loaded = {d: tf.saved_model.load(saved_model("block2_conv2", d)) for d in ("int64", "int32")}
    (_, long), (_, short) = loaded["int64"](images), loaded["int32"](images)
    assert long.dtype == tf.int64
    assert short.dtype == tf.int32
    np.testing.assert_array_equal(long, short)


def test_one_trace_serves_every_size(saved_model):
    loaded = tf.saved_model.load(saved_model("block2_conv2"))
    loaded(tf.zeros((1, 4, 4, 3)))
    traces = loaded.__call__.experimental_get_tracing_count()
    for batch, height, width in ((1, 2, 2), (3, 17, 31), (2, 64, 8)):
        features, indices = loaded(tf.zeros((batch, height, width, 3)))
        assert features.shape == (batch, height // 2, width // 2, 128)
        assert indices.shape == (batch * (height // 2) * (width // 2) * 64, 4)
    assert loaded.__call__.experimental_get_tracing_count() == traces


def test_variables_bear_the_keras_layer_names(saved_model):
    loaded = tf.saved_model.load(saved_model(FLAGSHIP))
    names = [v.name for v in loaded.variables]
    convolutions = [c.name for block in vgg19.blocks_up_to(FLAGSHIP) for c in block.convolutions]
    assert names == [f"{c}/{part}:0" for c in convolutions for part in ("kernel", "bias")]
    assert len(names) == 28


@pytest.mark.parametrize(
    ("wrong", "received"),
    [
        (tf.zeros((32, 32, 3)), "32[, ]+32[, ]+3"),
        (tf.zeros((1, 32, 32, 1)), "1[, ]+32[, ]+32[, ]+1"),
        (tf.zeros((1, 32, 32, 3), tf.uint8), "uint8"),
        (tf.zeros((1, 15, 32, 3)), "1[, ]+15[, ]+32[, ]+3"),
        (tf.zeros((0, 32, 32, 3)), "0[, ]+32[, ]+32[, ]+3"),
    ],
    ids=["rank", "channels", "dtype", "size", "batch"],
)
@pytest.mark.parametrize(
    "load",
    [
        hub.KerasLayer,
        hub.load,
        lambda directory: keras.layers.TFSMLayer(directory, call_endpoint="serving_default"),
        lambda directory: keras.layers.TFSMLayer(directory, call_endpoint="__call__"),
        lambda directory: keras.layers.TFSMLayer(directory, call_endpoint="features"),
    ],
    ids=["hub.KerasLayer", "hub.load", "TFSMLayer", "TFSMLayer call", "TFSMLayer features"],
)
def test_wrong_input_says_what_came_and_what_is_needed(saved_model, load, wrong, received):
    call = load(saved_model(FLAGSHIP))
    with pytest.raises((TypeError, tf.errors.InvalidArgumentError)) as error:
        call(wrong)
    assert re.search(received, str(error.value))
    assert re.search(r"\(B, H, W, 3\)|\(None, None, None, 3\)|float tensor", str(error.value))


@pytest.mark.parametrize(
    ("shape", "dtype", "received"),
    [
        ((None, None, 3), "uint8", "dtype=tf.uint8"),
        ((None, None, 1), "float32", r"shape=\(None, None, None, 1\)"),
        ((None, 3), "float32", r"shape=\(None, None, 3\)"),
    ],
)
def test_a_functional_model_refuses_wrong_symbolic_input(saved_model, shape, dtype, received):
    layer = hub.KerasLayer(saved_model(FLAGSHIP))
    needed = r"shape=\(None, None, None, 3\), dtype=tf.float32"
    with pytest.raises(TypeError, match=f"{received}.* to .*{needed}"):
        layer(tf_keras.Input(shape, dtype=dtype))


def test_saved_model_cli_run_refuses_a_small_picture(saved_model, tmp_path):
    np.save(tmp_path / "small.npy", np.zeros((1, 8, 32, 3), np.float32))
    with pytest.raises(subprocess.CalledProcessError) as error:
        saved_model_cli(
            "run",
            f"--dir={saved_model(FLAGSHIP)}",
            "--tag_set=serve",
            "--signature_def=serving_default",
            f"--inputs=images={tmp_path / 'small.npy'}",
        )
    assert "H and W at least 16" in error.value.stderr
    assert "[1 8 32 3]" in error.value.stderr
