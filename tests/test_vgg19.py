"""The block table, held against `keras.applications.VGG19`, which has the names and the shapes."""

import math

import keras
import numpy as np
import pytest

from unpooling import vgg19

LAYERS = ["block1_conv2", "block2_conv2", "block3_conv2", "block4_conv2", "block5_conv2"]
EACH_LAYER = pytest.mark.parametrize("layer", LAYERS)


@pytest.fixture(scope="module")
def keras_layers():
    """Keras' own layers, from the first convolution on, by name and in order."""
    model = keras.applications.VGG19(include_top=False, weights=None)
    return {layer.name: layer for layer in model.layers[1:]}


def up_to(last, keras_layers):
    names = list(keras_layers)
    return [keras_layers[name] for name in names[: names.index(last) + 1]]


def test_the_layers_are_the_second_convolutions_of_the_five_blocks():
    assert list(vgg19.LAYERS) == LAYERS


@EACH_LAYER
def test_names_shapes_and_poolings_are_keras(layer, keras_layers):
    names = []
    for block in vgg19.blocks_up_to(layer):
        for convolution in block.convolutions:
            kernel, bias = keras_layers[convolution.name].weights
            assert convolution.kernel_shape == tuple(kernel.shape)
            assert (convolution.out_channels,) == tuple(bias.shape)
            names.append(convolution.name)
        assert block.channels == kernel.shape[-1]
        if block.pooled:
            names.append(block.pool_name)
    expected = up_to(layer, keras_layers)
    assert names == [each.name for each in expected]
    assert [c.name for c in vgg19.convolutions(layer)] == [n for n in names if "conv" in n]
    assert vgg19.count_parameters(layer) == sum(each.count_params() for each in expected)
    assert vgg19.downsampling(layer) == math.prod(each.strides[0] for each in expected)


def test_keras_convolves_and_pools_as_the_table_takes_for_granted(keras_layers):
    pool = {"pool_size": (2, 2), "strides": (2, 2), "padding": "valid"}
    convolution = {"kernel_size": (3, 3), "strides": (1, 1), "dilation_rate": (1, 1)}
    convolution |= {"padding": "same", "activation": "relu", "use_bias": True}
    for name, layer in keras_layers.items():
        expected = pool if name.endswith("_pool") else convolution
        assert expected.items() <= layer.get_config().items()


def test_the_mean_is_what_keras_subtracts():
    mean = -keras.applications.vgg19.preprocess_input(np.zeros((1, 1, 1, 3), np.float64)).ravel()
    np.testing.assert_array_equal(vgg19.MEAN_BGR, mean)


def test_a_decoder_mirrors_its_encoder():
    layer = "block3_conv2"
    found = [(c.name, c.in_channels, c.out_channels) for c in vgg19.convolutions(layer, "decoder")]
    channels = (256, 256, 128, 128, 128, 64, 64, 64, 3)
    numbers = {3: (2, 1), 2: (3, 2, 1), 1: (3, 2, 1)}  # One more where values are unpooled.
    names = [f"decoder_block{block}_conv{number}" for block in numbers for number in numbers[block]]
    assert found == list(zip(names, channels[:-1], channels[1:], strict=True))
    blocks = [(block.number, block.unpooled) for block in vgg19.mirror(layer)]
    assert blocks == [(3, False), (2, True), (1, True)]
    # The kernels are as large as the encoder's; of the biases, 3 stand in place of the last 256.
    mirrored = vgg19.count_parameters(layer) - 256 + 3
    more = sum(3 * 3 * channels**2 + channels for channels in (128, 64))
    assert vgg19.count_parameters(layer, "decoder") == mirrored + more


@EACH_LAYER
def test_a_decoder_has_the_encoders_convolutions_reversed_and_more_after_each_unpooling(layer):
    expected = []
    for block in reversed(vgg19.blocks_up_to(layer)):
        more = (2 if layer == "block2_conv2" else 1) if block.pooled else 0
        for number in range(len(block.convolutions) + more, len(block.convolutions), -1):
            name = f"decoder_block{block.number}_conv{number}"
            expected.append((name, block.channels, block.channels))
        for c in reversed(block.convolutions):
            expected.append((f"decoder_{c.name}", c.out_channels, c.in_channels))
    ours = [(c.name, c.in_channels, c.out_channels) for c in vgg19.convolutions(layer, "decoder")]
    assert ours == expected


@pytest.mark.parametrize("function", [vgg19.blocks_up_to, vgg19.pooled_blocks, vgg19.mirror])
def test_another_layer_is_refused(function):
    for layer in ("block6_conv2", "block1_conv1", ""):
        message = f"`layer` must be one of {', '.join(LAYERS)}\\. Received: '{layer}'\\."
        with pytest.raises(ValueError, match=message):
            function(layer)
