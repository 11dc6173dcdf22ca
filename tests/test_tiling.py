"""Tile by tile, pictures come out as in one piece, at every layer and for every size."""

import numpy as np
import pytest
import tensorflow as tf

from tests.descriptors import random_weights
from unpooling import LAYERS, Decoder, Encoder, crop, pad_by_reflection, tiling, vgg19

# What float32 may round otherwise where the convolution library orders its sums by the shape, and
# how many positions may differ for it: those of maxima that lead by less than that.
TOLERANCE = 1e-5
NEAR_TIES = 1e-4


def halves(layer):
    return (
        Encoder(layer, random_weights("encoder", layer)),
        Decoder(layer, random_weights("decoder", layer)),
    )


@pytest.fixture(scope="module", params=LAYERS)
def pair(request):
    return (request.param, *halves(request.param))


def pictures(height, width, batch=1):
    """Waves and noise: no two tiles are alike."""
    random = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width][..., np.newaxis]
    waves = 127 + 60 * np.sin(y / [5, 9, 14] + x / [11, 6, 8])
    noise = random.uniform(-60, 60, (batch, height, width, 3))
    return np.clip(waves + noise, 0, 255).astype(np.float32)


def assert_close(found, expected):
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    if expected.dtype == np.uint8:
        assert np.mean(found != expected) <= NEAR_TIES
    else:
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * scale)


@pytest.fixture(params=["rows", "columns"])
def images(pair, request):
    """A picture that is cut in one direction, of sides that are multiples of nothing."""
    layer, *_ = pair
    size = tiling.margin(layer) + 77, 61
    return pictures(*size) if request.param == "rows" else pictures(*size[::-1])


def test_features_switches_and_decoded_pictures_are_those_of_the_whole(pair, images):
    _, encoder, decoder = pair
    found = tiling.encode(encoder, images, side=64)
    expected = tf.nest.flatten(encoder.compact(images))
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)
    outputs = encoder.compact(pad_by_reflection(images, 16))
    arrays = [output.numpy() for output in tf.nest.flatten(outputs)]
    assert_close(tiling.decode(decoder, arrays, side=64), decoder(outputs))


def test_reconstructions_of_any_size_are_those_of_the_whole(pair, images):
    layer, encoder, decoder = pair
    padded = pad_by_reflection(images, vgg19.downsampling(layer))
    expected = crop(decoder(encoder.compact(padded)), images)
    assert_close(tiling.reconstruct(encoder, decoder, images, side=64), expected)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (2, 50), (31, 33), (64, 47)])
def test_pictures_smaller_than_a_tile_and_odd_ones(size):
    encoder, decoder = halves("block3_conv2")
    images = pictures(*size, batch=2)
    expected = crop(decoder(encoder.compact(pad_by_reflection(images, 4))), images)
    for side in (5, 16, 512):
        assert_close(tiling.reconstruct(encoder, decoder, images, side), expected)


def test_features_may_be_changed_on_the_way():
    layer = "block2_conv2"
    encoder, decoder = halves(layer)
    images = pictures(70, 90)
    matrix = np.random.default_rng(0).normal(0, 0.1, (128, 128)).astype(np.float32)
    found = tiling.reconstruct(encoder, decoder, images, 32, change=lambda f, _: f @ matrix)
    features, switches = encoder.compact(images)
    assert_close(found, decoder([features @ matrix, switches]))


def test_loaded_modules_and_bytes(saved_model):
    encoder, decoder = (
        tf.saved_model.load(saved_model("block2_conv2", kind=kind))
        for kind in ("encoder", "decoder")
    )
    images = np.uint8(pictures(61, 90))
    out = np.zeros_like(images)
    assert tiling.reconstruct(encoder, decoder, images, 32, out=out) is out
    expected = tiling.reconstruct(encoder, decoder, images)
    rounded = np.clip(np.round(expected), 0, 255)
    assert np.abs(out - rounded).max() <= 1 and np.mean(out != rounded) < 1e-3


def test_no_tile_is_larger_than_asked():
    """So that memory does not depend on the size of the picture."""
    seen = []

    class Spy:
        layer = "block2_conv2"

        def compact(self, images):
            seen.append(images.shape[1:3])
            batch, height, width, _ = images.shape
            shape = (batch, height // 2, width // 2)
            return [tf.zeros((*shape, 128)), tf.zeros((*shape, 64), tf.uint8)]

    def decoder(inputs):
        batch, height, width, _ = inputs[0].shape
        return tf.zeros((batch, 2 * height, 2 * width, 3))

    tiling.reconstruct(Spy(), decoder, np.zeros((1, 1000, 700, 3), np.uint8), side=128)
    most = 128 + 2 * tiling.margin("block2_conv2")
    assert max(max(size) for size in seen) <= most
    assert len(seen) == 8 * 6


def test_a_side_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"`side` must be at least 1\. Received: 0"):
        next(tiling.tiles(10, 10, 1, 0, side=0))


def test_a_margin_that_is_too_small_would_show(monkeypatch):
    layer = "block2_conv2"
    encoder = Encoder(layer, random_weights("encoder", layer))
    decoder = Decoder(layer, random_weights("decoder", layer))
    images = pictures(96, 96)
    whole = tiling.reconstruct(encoder, decoder, images)
    margin = tiling.margin(layer)
    monkeypatch.setattr(tiling, "margin", lambda *_, **__: margin - 4)
    cut = tiling.reconstruct(encoder, decoder, images, side=32)
    assert np.abs(cut - whole).max() > 100 * TOLERANCE * np.abs(whole).max()


@pytest.mark.parametrize("shape", [(1, 20, 32, 3), (1, 16, 24, 3), (2, 16, 32, 3)])
def test_a_result_goes_into_an_array_of_the_pictures_shape_alone(shape):
    images = pictures(16, 32)
    with pytest.raises(ValueError, match=r"`out` must have the shape \(1, 16, 32, 3\)"):
        tiling.reconstruct(*halves(LAYERS[0]), images, out=np.empty(shape, np.uint8))
    with pytest.raises(ValueError, match="must not share memory with `images`"):
        tiling.reconstruct(*halves(LAYERS[0]), images, out=images)


def test_tiles_are_cut_from_switches_and_not_from_indices():
    encoder, decoder = halves(LAYERS[1])
    with pytest.raises(ValueError, match=r"`inputs` must be features and switches.*\(8192, 4\)"):
        tiling.decode(decoder, [tensor.numpy() for tensor in encoder(pictures(16, 32))])
