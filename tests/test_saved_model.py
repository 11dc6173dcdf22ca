"""The SavedModel on disk: what the loaded object offers, and what its bytes depend on."""

import os
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

# Not public; to draw a million numbers by making tensors would take minutes.
from tensorflow.python.framework import ops

from export import saved_model
from unpooling import archive, weights
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder

LAYER = "block2_conv2"


def make(kind, engine="argmax"):
    """A module with weights and biases all of which differ."""
    loaded = (weights.load if kind == "encoder" else weights.load_decoder)("random", LAYER)
    random = np.random.default_rng(1)
    layers = {
        name: (kernel, random.normal(0, 0.1, bias.shape).astype(np.float32))
        for name, (kernel, bias) in loaded.layers.items()
    }
    if kind == "encoder":
        return Encoder(LAYER, layers, engine=engine)
    return Decoder(LAYER, layers)


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def pair(request, tmp_path_factory):
    """A module and the folder of its SavedModel."""
    module, directory = make(request.param), tmp_path_factory.mktemp("saved") / "model"
    saved_model.save(module, str(directory))
    return module, str(directory)


def test_every_variable_keeps_its_name_and_values(pair):
    module, directory = pair
    paths = (p for p in pathlib.Path(directory).rglob("*") if p.is_file())
    assert {path.relative_to(directory).as_posix() for path in paths} == set(archive.FILES)
    loaded = tf.saved_model.load(directory)
    for attribute in ("variables", "trainable_variables"):
        found = getattr(loaded, attribute)
        assert [v.name for v in found] == [v.name for v in module.variables]
        for variable, original in zip(found, module.variables, strict=True):
            np.testing.assert_array_equal(variable.numpy(), original.numpy())
    assert list(loaded.regularization_losses) == []


def test_nothing_of_the_builder_is_in_the_graph(pair):
    with open(os.path.join(pair[1], "saved_model.pb"), "rb") as file:
        graph = file.read()
    for word in (pair[1], os.getcwd(), os.path.expanduser("~"), ".py"):
        assert word.encode() not in graph


# TensorFlow numbers functions, custom gradients and captured tensors by one counter.
NUMBERED = re.compile(
    r'"__inference_\w+?_(\d+)"|"\w+_branch\d+_(\d+)"|"CustomGradient-(\d+)"'
    r'|key: "_user_specified_name"\s+value {\s+s: "(\d+)"'
)


def test_numbers_are_not_those_of_the_process(tmp_path):
    def save(number):
        contents = []
        for engine in ("argmax", "xla"):
            saved_model.save(make("encoder", engine), str(tmp_path / f"{engine}{number}"))
            contents.append((tmp_path / f"{engine}{number}" / "saved_model.pb").read_bytes())
        return contents

    first = save(1)
    # Half-way through, names get a digit more: __inference_x_1000000 sorts before _999999.
    while ops.uid() < 1_000_000 - 300:
        pass
    assert save(2) == first
    assert ops.uid() > 1_000_000
    for content in first:
        text = text_format.MessageToString(saved_model_pb2.SavedModel.FromString(content))
        numbers = {int(number) for groups in NUMBERED.findall(text) for number in groups if number}
        assert numbers == set(range(len(numbers)))
        assert len(numbers) > 13
