"""The modules that have to keep each promise: one test file per property runs over this list."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from tests import oracle
from unpooling import vgg19
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder

# Of odd sides, so that poolings drop rows and columns.
SHAPE = (2, 37, 53, 3)


@dataclasses.dataclass(frozen=True)
class Descriptor:
    """One kind of module."""

    kind: str
    layer: str
    index_dtype: str = "int64"
    engine: str = "argmax"

    def __str__(self):
        return "-".join(dataclasses.astuple(self)[: 4 if self.kind == "encoder" else 2])

    @property
    def block(self) -> int:
        """The last block, so that there is one pooling less."""
        return int(self.layer[len("block")])

    @property
    def weights(self):
        return random_weights(self.kind, self.layer)

    def make(self, weights=None) -> Encoder | Decoder:
        """Returns the module as a Python object, with random weights and biases."""
        weights = self.weights if weights is None else weights
        if self.kind == "decoder":
            return Decoder(self.layer, weights)
        return Encoder(self.layer, weights, self.index_dtype, self.engine)

    def load(self, saved_model, weights=None):
        """Returns the module as its SavedModel, loaded, with the same weights and biases."""
        loaded = tf.saved_model.load(self.directory(saved_model))
        arrays = tf.nest.flatten(list((weights or self.weights).values()))
        for variable, array in zip(loaded.variables, arrays, strict=True):
            variable.assign(array)
        return loaded

    def directory(self, saved_model) -> str:
        return saved_model(self.layer, self.index_dtype, self.engine, kind=self.kind)

    def inputs(self, form=None):
        """Returns an example input: pictures; for a decoder features and positions in a form."""
        if self.kind == "encoder":
            return images()
        features, switches, indices = decoder_inputs(self.layer)
        positions = switches if form == "switches" else [i.astype(form or "int64") for i in indices]
        return [features, *positions] if positions else features


ENGINES = [
    Descriptor("encoder", "block2_conv2", index_dtype, engine)
    for index_dtype in ("int64", "int32")
    for engine in ("argmax", "xla")
]
ENCODERS = [Descriptor("encoder", "block1_conv2"), *ENGINES]
DECODERS = [Descriptor("decoder", "block1_conv2"), Descriptor("decoder", "block2_conv2")]
MODULES = [*ENCODERS, *DECODERS]

# Where depth matters.
DEEPEST_ENCODER = Descriptor("encoder", "block5_conv2")
DEEPEST_DECODER = Descriptor("decoder", "block5_conv2")


def every(modules, *deepest):
    """Parametrises with each module as a Python object and loaded; the deepest as the former."""
    cases = [(d, form) for d in modules for form in ("python", "loaded")]
    cases += [(d, "python") for d in deepest]
    return pytest.mark.parametrize(("descriptor", "form"), cases, ids=str)


@functools.cache
def module(descriptor: Descriptor, form: str, saved_model):
    """Returns a module that no test may change: a Python object or a loaded SavedModel."""
    return descriptor.make() if form == "python" else descriptor.load(saved_model)


def as_list(outputs) -> list[np.ndarray]:
    """Returns outputs as NumPy arrays, the bare tensor of block1 as a list of one."""
    return [np.asarray(o) for o in (outputs if isinstance(outputs, list) else [outputs])]


def images(shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(7).uniform(0, 255, shape).astype(np.float32)


@functools.cache
def decoder_inputs(layer):
    """Random features and positions: (features, [switches], [indices]), of two pictures."""
    random = np.random.default_rng(8)
    channels = dict(enumerate((64, 128, 256, 512, 512), start=1))
    last = int(layer[len("block")])
    height, width = (2, 3) if last > 2 else (7, 9)
    features = random.uniform(0, 10, (2, height, width, channels[last])).astype(np.float32)
    switches, indices = [], []
    for block in range(1, last):
        scale = 2 ** (last - 1 - block)
        shape = (2, height * scale, width * scale, channels[block])
        switches.append(random.integers(0, 4, shape, np.uint8))
        batch, y, x, channel = np.indices(shape)
        y, x = 2 * y + switches[-1] // 2, 2 * x + switches[-1] % 2
        indices.append(np.stack([batch, y, x, channel], axis=-1).reshape(-1, 4))
    return features, switches, indices


@functools.cache
def random_weights(kind, layer):
    """He-normal kernels, and biases of about a tenth of the activations, no two alike.

    A bias that is left out, or added to the wrong channel, shows.
    """
    random = np.random.default_rng(11)
    return {
        c.name: (
            random.normal(0, np.sqrt(2 / np.prod(c.kernel_shape[:3])), c.kernel_shape).astype("f4"),
            random.normal(0, 10, c.out_channels).astype("f4"),
        )
        for c in vgg19.convolutions(layer, kind)
    }


@functools.cache
def whole_weights(kind, layer):
    """Weights that are small whole numbers: three of +-1 in each kernel, and a bias of -2 to 3.

    On whole numbers every sum is a whole number below 2^24, which float32 holds: no rounding
    anywhere, whatever the order of the sums. What ties then, ties exactly.
    """
    random = np.random.default_rng(5)
    layers = {}
    for c in vgg19.convolutions(layer, kind):
        kernel = np.zeros((np.prod(c.kernel_shape[:3]), c.out_channels), np.float32)
        for channel in range(c.out_channels):
            chosen = random.choice(len(kernel), size=3, replace=False)
            kernel[chosen, channel] = random.choice([-1, 1, 1], size=3)
        bias = random.integers(-2, 4, c.out_channels).astype(np.float32)
        layers[c.name] = (kernel.reshape(c.kernel_shape), bias)
    return layers


def whole_images(shape=SHAPE) -> np.ndarray:
    """Pictures of whole numbers, 0 to 3, once the mean is subtracted: exactly, these are so few."""
    above_mean = np.random.default_rng(2).integers(0, 4, shape)
    return np.float32(oracle.MEAN_BGR[::-1]) + np.float32(above_mean)
