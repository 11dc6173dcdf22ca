"""What encoders, decoders and their poolings must compute, in slow and obvious NumPy.

Nothing here is shared with `unpooling`: not the list of layers, not the constants, not the loops.
It computes in float64, so that only float32's rounding separates it from the code under test.
"""

import typing

import numpy as np

# How many convolutions each block of VGG19 has.
CONVOLUTIONS = {1: 2, 2: 2, 3: 4, 4: 4, 5: 4}

# ImageNet's mean blue, green and red, as float32 holds them: that is what is subtracted by Keras.
MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32).astype(np.float64)


class Encoding(typing.NamedTuple):
    """Everything that an encoder computes."""

    features: np.ndarray  # (B, H, W, C)
    indices: list[np.ndarray]  # for each pooling the (N, 4) tuples (batch, y, x, channel)
    maps: list[np.ndarray]  # the map before each pooling
    sums: list[np.ndarray]  # the same before its ReLU


def encode(images, layer, weights):
    """Encodes RGB pictures with values in [0, 255] by VGG19 up to `layer`.

    Args:
      images: (B, H, W, 3).
      layer: such as "block3_conv2".
      weights: for each layer its (kernel, bias).
    """
    indices, maps, sums = [], [], []
    x = images[..., ::-1].astype(np.float64) - MEAN_BGR
    for block, count in CONVOLUTIONS.items():
        for number in range(1, count + 1):
            name = f"block{block}_conv{number}"
            before_relu = convolve(x, *weights[name])
            x = relu(before_relu)
            if name == layer:
                return Encoding(x, indices, maps, sums)
        sums.append(before_relu)
        maps.append(x)
        x, block_indices = max_pool_with_indices(x)
        indices.append(block_indices)
    raise ValueError(f"no such layer: {layer}")


def decode(features, indices, layer, weights):
    """Decodes features (B, h, w, C) of `layer` with the indices of each pooling before it."""
    x = features
    last = int(layer[len("block")])
    for block in range(last, 0, -1):
        if block < last:
            batch, height, width, channels = x.shape
            x = unpool(x, indices[block - 1], (batch, 2 * height, 2 * width, channels))
        # More convolutions take what is unpooled.
        more = 2 if last == 2 else 1
        for number in range(2 if block == last else CONVOLUTIONS[block] + more, 0, -1):
            x = relu(x) if x is not features else x
            x = convolve(x, *weights[f"decoder_block{block}_conv{number}"])
    return x


def convolve(x, kernel, bias):
    """A 3x3 convolution of stride 1 over a map with a border of zeros (SAME)."""
    _, height, width, _ = x.shape
    kernel = kernel.astype(np.float64)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    total = bias.astype(np.float64)
    for dy in range(3):
        for dx in range(3):
            total = total + padded[:, dy : dy + height, dx : dx + width, :] @ kernel[dy, dx]
    return total


def relu(x):
    return np.maximum(x, 0)


def max_pool_with_indices(x):
    """2x2 windows, stride 2; an odd last row or column belongs to no window and is dropped.

    The first of a window, row by row, wins until a later one is greater. A comparison with NaN is
    false: a NaN stays the winner if it is the first, and never becomes it later.

    Returns:
      The pooled map and the winners' (batch, y, x, channel), in row-major order of the pooled map.
    """
    batch, height, width, channels = x.shape
    pooled = np.zeros((batch, height // 2, width // 2, channels), x.dtype)
    indices = []
    for b, i, j, c in np.ndindex(*pooled.shape):
        top, left = 2 * i, 2 * j
        winner = (b, top, left, c)
        for later in ((b, top, left + 1, c), (b, top + 1, left, c), (b, top + 1, left + 1, c)):
            if x[later] > x[winner]:
                winner = later
        pooled[b, i, j, c] = x[winner]
        indices.append(winner)
    return pooled, np.array(indices, np.int64).reshape(-1, 4)


def unpool(pooled, indices, shape):
    """Zeros of `shape`, with every value of `pooled` at the place that its tuple names."""
    x = np.zeros(shape, pooled.dtype)
    for value, place in zip(pooled.ravel(), indices, strict=True):
        x[tuple(place)] = value
    return x
