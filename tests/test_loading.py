"""A module, loaded in every way that its users load it, returns the same."""

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

import unpooling
from tests import descriptors
from tests.conftest import ROOT
from tests.descriptors import DEEPEST_ENCODER, as_list
from unpooling import weights

ENCODER, DECODER = descriptors.ENGINES[0], descriptors.DECODERS[1]
NAMES = ("features", "block1_indices")


def expected(descriptor):
    """What the module that was exported returns, without any export."""
    load = weights.load if descriptor.kind == "encoder" else weights.load_decoder
    module = descriptor.make(load("random", descriptor.layer).layers)
    return as_list(module(descriptor.inputs()))


def assert_same(outputs, expected):
    for found, wanted in zip(map(np.asarray, outputs), expected, strict=True):
        rounding = 0 if wanted.dtype.kind == "i" else 1e-5 * np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=rounding)


LOADERS = {
    "tf.saved_model.load": tf.saved_model.load,
    "hub.load": hub.load,
    "hub.KerasLayer": hub.KerasLayer,
    "TFSMLayer": lambda d: keras.layers.TFSMLayer(d, call_endpoint="__call__"),
    "unpooling.load": unpooling.load,
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("descriptor", [ENCODER, DECODER], ids=str)
def test_from_a_folder(descriptor, loader, saved_model):
    outputs = LOADERS[loader](descriptor.directory(saved_model))(descriptor.inputs())
    assert_same(as_list(outputs), expected(descriptor))


def test_an_encoder_in_a_functional_model_of_keras_2(saved_model):
    inputs = tf_keras.Input((None, None, 3))
    outputs = hub.KerasLayer(ENCODER.directory(saved_model))(inputs)
    assert [tuple(o.shape) for o in outputs] == [(None, None, None, 128), (None, 4)]
    model = tf_keras.Model(inputs, outputs)
    for found in (model(descriptors.images()), model.predict(descriptors.images(), verbose=0)):
        assert_same(found, expected(ENCODER))


def test_an_encoder_in_a_functional_model_of_keras_3(saved_model):
    directory = ENCODER.directory(saved_model)
    layer = keras.layers.TFSMLayer(directory, call_endpoint="serving_default")
    assert len(layer.trainable_variables) == 8
    inputs = keras.Input((None, None, 3))
    outputs = keras.Model(inputs, layer(inputs))(descriptors.images())
    assert_same([outputs[name] for name in NAMES], expected(ENCODER))


def test_block1_returns_the_bare_tensor(saved_model):
    for load in (tf.saved_model.load, hub.KerasLayer):
        outputs = load(saved_model("block1_conv2"))(descriptors.images())
        assert isinstance(outputs, tf.Tensor)
        assert outputs.shape == (2, 37, 53, 64)


def test_tensorflow_servings_requests_are_as_documented(saved_model):
    text = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8")
    request, answer = map(json.loads, re.findall(r"```json\n(.*?)```", text, re.DOTALL))
    loaded = tf.saved_model.load(DEEPEST_ENCODER.directory(saved_model))
    signature = loaded.signatures[request["signature_name"]]
    assert set(request["inputs"]) == set(signature.structured_input_signature[1])
    ((row,),) = request["inputs"]["images"]
    outputs = signature(images=tf.constant([[row * 16] * 16], tf.float32))  # the least sides
    assert set(outputs) == set(answer["outputs"])
    assert all(len(output) == 1 for output in outputs.values())  # the batch comes first


def test_saved_model_cli_runs_it(saved_model, tmp_path):
    np.save(tmp_path / "images.npy", descriptors.images())
    command = [pathlib.Path(sys.executable).with_name("saved_model_cli"), "run"]
    command += [f"--dir={ENCODER.directory(saved_model)}", "--tag_set=serve"]
    command += ["--signature_def=serving_default", f"--inputs=images={tmp_path / 'images.npy'}"]
    command += [f"--outdir={tmp_path}"]
    subprocess.run(command, capture_output=True, check=True, timeout=300)
    outputs = [np.load(tmp_path / f"{name}.npy") for name in NAMES]
    assert_same(outputs, expected(ENCODER))
