"""The block table, held against `keras.applications.VGG19`, which has the names and the shapes."""

import math

import keras
import numpy as np
import pytest

from unpooling import vgg19

ALL_LAYERS = ["block1_conv2", "block2_conv2", "block3_conv2", "block4_conv2", "block5_conv2"]


@pytest.fixture(scope="module")
def keras_layers():
    """Keras' own layers, from the first convolution on, by name and in order."""
    model = keras.applications.VGG19(include_top=False, weights=None)
    return {layer.name: layer for layer in model.layers[1:]}


def keras_layers_up_to(last, keras_layers):
    names = list(keras_layers)
    return [keras_layers[name] for name in names[: names.index(last) + 1]]


def test_the_layers_are_the_second_convolutions_of_the_five_blocks():
    assert list(vgg19.LAYERS) == ALL_LAYERS


@pytest.mark.parametrize("layer", ALL_LAYERS)
def test_names_order_and_poolings_are_keras(layer, keras_layers):
    names = []
    for block in vgg19.blocks_up_to(layer):
        names += [convolution.name for convolution in block.convolutions]
        if block.pooled:
            names.append(f"block{block.number}_pool")

    assert names == [each.name for each in keras_layers_up_to(layer, keras_layers)]


@pytest.mark.parametrize("layer", ALL_LAYERS)
def test_shapes_are_keras(layer, keras_layers):
    for block in vgg19.blocks_up_to(layer):
        for convolution in block.convolutions:
            kernel, bias = keras_layers[convolution.name].weights
            assert convolution.kernel_shape == tuple(kernel.shape)
            assert (convolution.out_channels,) == tuple(bias.shape)
        assert block.channels == kernel.shape[-1]


@pytest.mark.parametrize("layer", ALL_LAYERS)
def test_blocks_are_numbered_from_one_and_name_their_indices(layer):
    blocks = vgg19.blocks_up_to(layer)

    assert [block.number for block in blocks] == list(range(1, ALL_LAYERS.index(layer) + 2))
    assert [block.indices_name for block in blocks] == [
        f"block{block.number}_indices" for block in blocks
    ]


def test_keras_convolves_and_pools_as_the_table_takes_for_granted(keras_layers):
    for name, layer in keras_layers.items():
        config = layer.get_config()
        if name.endswith("_pool"):
            assert config["pool_size"] == (2, 2)
            assert config["strides"] == (2, 2)
            assert config["padding"] == "valid"
        else:
            assert config["kernel_size"] == (3, 3)
            assert config["strides"] == (1, 1)
            assert config["dilation_rate"] == (1, 1)
            assert config["padding"] == "same"
            assert config["activation"] == "relu"
            assert config["use_bias"]


@pytest.mark.parametrize("layer", ALL_LAYERS)
def test_downsampling_is_the_product_of_keras_strides(layer, keras_layers):
    expected = math.prod(each.strides[0] for each in keras_layers_up_to(layer, keras_layers))

    assert vgg19.downsampling(layer) == expected


def test_the_mean_is_what_keras_subtracts():
    black = np.zeros((1, 1, 1, 3), np.float64)

    mean = -keras.applications.vgg19.preprocess_input(black).ravel()

    np.testing.assert_array_equal(vgg19.MEAN_BGR, mean)


@pytest.mark.parametrize("function", [vgg19.blocks_up_to, vgg19.downsampling])
@pytest.mark.parametrize("layer", ["block6_conv2", "block0_conv2", "block1_conv1", "block1", ""])
def test_another_layer_is_refused(function, layer):
    with pytest.raises(
        ValueError,
        match=f"`layer` must be one of {', '.join(ALL_LAYERS)}\\. Received: '{layer}'\\.",
    ):
        function(layer)


def test_the_name_of_a_model_is_that_of_its_layer():
    assert vgg19.model_name("block5_conv2") == "vgg19-block5-conv2"


def test_names_of_poolings_and_modules():
    blocks = vgg19.blocks_up_to("block3_conv2")
    assert [block.pool_name for block in blocks] == ["block1_pool", "block2_pool", "block3_pool"]
    assert [block.indices_name for block in blocks[:2]] == ["block1_indices", "block2_indices"]
    assert vgg19.encoder_name("block3_conv2") == "vgg19-block3-conv2-unpooling-encoder"
