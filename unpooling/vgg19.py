"""The architecture of VGG19: its blocks, its layer names and its preprocessing constants.

K. Simonyan and A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", arXiv 1409.1556, configuration E, with the layer names and the preprocessing of
`keras.applications.vgg19`. Nothing here needs TensorFlow.
"""

import dataclasses
import math

__all__ = [
    "LAYERS",
    "MEAN_BGR",
    "Block",
    "Convolution",
    "UpBlock",
    "after_unpooling",
    "blocks_up_to",
    "convolutions",
    "count_parameters",
    "downsampling",
    "mirror",
    "pooled_blocks",
]

# ImageNet's mean pixel, in the blue, green, red order in which VGG19 was trained.
MEAN_BGR = (103.939, 116.779, 123.68)

# (convolutions, channels) of block 1 to 5. Every convolution is 3x3, stride 1, SAME, then ReLU;
# between two blocks stands a 2x2 max pooling of stride 2.
_TABLE = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))

# An encoder ends at the second convolution of a block.
_LAST_CONVOLUTION = 2

LAYERS = tuple(f"block{number}_conv{_LAST_CONVOLUTION}" for number in range(1, len(_TABLE) + 1))


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One 3x3 convolution with bias and ReLU."""

    name: str
    in_channels: int
    out_channels: int

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """(height, width, in channels, out channels), as TensorFlow orders a kernel."""
        return (3, 3, self.in_channels, self.out_channels)


@dataclasses.dataclass(frozen=True)
class Block:
    """The convolutions of one block, all at one size; `pooled` if a max pooling follows."""

    number: int
    convolutions: tuple[Convolution, ...]
    pooled: bool

    @property
    def channels(self) -> int:
        return self.convolutions[-1].out_channels

    @property
    def pool_name(self) -> str:
        """Keras' name for the max pooling that follows this block."""
        return f"block{self.number}_pool"

    @property
    def indices_name(self) -> str:
        """The name of the output that says where this block's maxima came from."""
        return f"block{self.number}_indices"

    @property
    def switches_name(self) -> str:
        """The name of the same output in its compact form."""
        return f"block{self.number}_switches"


@dataclasses.dataclass(frozen=True)
class UpBlock:
    """The convolutions of one block of a decoder; `unpooled` if an unpooling precedes them.

    An unpooling takes the positions that the pooling after the encoder's block `number` returned.
    """

    number: int
    convolutions: tuple[Convolution, ...]
    unpooled: bool


def blocks_up_to(layer: str) -> tuple[Block, ...]:
    """Returns the blocks of VGG19 up to and including `layer`, one of `LAYERS`.

    Raises:
      ValueError: if `layer` is not one of `LAYERS`.
    """
    if layer not in LAYERS:
        raise ValueError(f"`layer` must be one of {', '.join(LAYERS)}. Received: {layer!r}.")
    last = LAYERS.index(layer) + 1
    blocks = []
    in_channels = 3
    for number, (count, channels) in enumerate(_TABLE[:last], start=1):
        convolutions = []
        for i in range(1, (_LAST_CONVOLUTION if number == last else count) + 1):
            name = f"block{number}_conv{i}"
            convolutions.append(Convolution(name, in_channels, channels))
            in_channels = channels
        blocks.append(Block(number, tuple(convolutions), pooled=number < last))
    return tuple(blocks)


def pooled_blocks(layer: str) -> tuple[Block, ...]:
    """Returns the blocks after which the encoder that ends at `layer` pools: all but the last.

    Raises:
      ValueError: if `layer` is not one of `LAYERS`.
    """
    return tuple(block for block in blocks_up_to(layer) if block.pooled)


def mirror(layer: str) -> tuple[UpBlock, ...]:
    """Returns the blocks of the decoder for `layer`, the deepest first.

    Each holds the convolutions of the encoder's block in reverse order, with input and output
    channels swapped. Where the encoder pools after a block, the decoder unpools before it, and has
    one more convolution, which takes what is unpooled. In block 2's decoder there are two.

    Raises:
      ValueError: if `layer` is not one of `LAYERS`.
    """
    # With two, block 2's decoder became clearly better; for the others nobody has tried.
    count = 2 if layer == LAYERS[1] else 1
    return tuple(
        UpBlock(block.number, (*_more(block, count), *_reversed(block)), unpooled=block.pooled)
        for block in reversed(blocks_up_to(layer))
    )


def after_unpooling(layer: str) -> tuple[Convolution, ...]:
    """Returns the convolutions of the decoder for `layer` that mirror none of the encoder's.

    They stand after its unpoolings, and are given in order.

    Raises:
      ValueError: if `layer` is not one of `LAYERS`.
    """
    mirrored = {f"decoder_{c.name}" for c in convolutions(layer)}
    return tuple(c for c in convolutions(layer, "decoder") if c.name not in mirrored)


def _more(block, count):
    """The convolutions after an unpooling, which leaves 0 in three of four places."""
    if block.pooled:
        last = len(block.convolutions)
        for number in range(last + count, last, -1):
            name = f"decoder_block{block.number}_conv{number}"
            yield Convolution(name, block.channels, block.channels)


def _reversed(block):
    for c in reversed(block.convolutions):
        yield Convolution(f"decoder_{c.name}", c.out_channels, c.in_channels)


def convolutions(layer: str, kind: str = "encoder") -> list[Convolution]:
    """Returns the convolutions of the encoder that ends at `layer`, or of its decoder, in order."""
    blocks = blocks_up_to(layer) if kind == "encoder" else mirror(layer)
    return [convolution for block in blocks for convolution in block.convolutions]


def count_parameters(layer: str, kind: str = "encoder") -> int:
    """Returns how many numbers the kernels and biases of an encoder or a decoder hold."""
    return sum(math.prod(c.kernel_shape) + c.out_channels for c in convolutions(layer, kind))


def downsampling(layer: str) -> int:
    """Returns how many pixels one position of `layer` stands for along each side: 2^(K-1)."""
    return 2 ** (len(blocks_up_to(layer)) - 1)
