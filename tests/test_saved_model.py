"""The SavedModel on disk: what the loaded object offers."""

import os

import numpy as np
import pytest
import tensorflow as tf

from export import saved_model
from unpooling import archive, vgg19
from unpooling.encoder import Encoder

LAYER = "block2_conv2"


def distinct_weights():
    """Weights no two of which are equal, small enough that ReLU lets both signs through."""
    layers, start = {}, 0
    for block in vgg19.blocks_up_to(LAYER):
        for convolution in block.convolutions:
            arrays = []
            for shape in (convolution.kernel_shape, (convolution.out_channels,)):
                count = int(np.prod(shape))
                values = np.arange(start, start + count, dtype=np.float32).reshape(shape)
                arrays.append((values % 977 - 488) / 65536 + values / 2**30)
                start += count
            layers[convolution.name] = tuple(arrays)
    return layers


@pytest.fixture(scope="module")
def encoder():
    return Encoder(LAYER, distinct_weights())


@pytest.fixture(scope="module")
def directory(encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved_model") / "model"
    saved_model.save(encoder, str(path))
    return str(path)


def test_every_variable_keeps_its_name_and_values(directory, encoder):
    loaded = tf.saved_model.load(directory)
    for attribute in ("variables", "trainable_variables"):
        found = getattr(loaded, attribute)
        assert [v.name for v in found] == [v.name for v in encoder.ordered_variables]
        for variable, original in zip(found, encoder.ordered_variables, strict=True):
            np.testing.assert_array_equal(variable.numpy(), original.numpy())
    assert list(loaded.regularization_losses) == []


def test_the_loaded_object_computes_what_the_encoder_does(directory, encoder, images):
    loaded = tf.saved_model.load(directory)
    for found, expected in zip(loaded(images), encoder(images), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(loaded.features(images), encoder.features(images))


def test_it_has_just_the_files_of_an_archive(directory, tmp_path):
    archive.pack(directory, str(tmp_path / "encoder.tar.gz"))
    found = {
        os.path.relpath(os.path.join(folder, name), directory)
        for folder, _, names in os.walk(directory)
        for name in names
    }
    assert found == set(archive.members()) - {"variables"}


def test_no_path_of_the_builder_is_in_the_graph(directory):
    with open(os.path.join(directory, "saved_model.pb"), "rb") as file:
        graph = file.read()
    for path in (directory, os.getcwd(), os.path.expanduser("~"), "encoder.py"):
        assert path.encode() not in graph
