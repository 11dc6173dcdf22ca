"""How the decoders of the collection are trained."""

from unpooling import vgg19

__all__ = ["flags"]

# What the published decoders were trained to do is more than to have a small error; these flags go
# for the error alone, which docs/decoders.md measures against the published figures.
_COMMON = (
    "--optimizer=muon",
    "--final_learning_rate=0",
    "--warm_up=0.03",
    "--l2_weight=0",
    "--ms_ssim_weight=0",
    "--perceptual_weight=0",
    "--steps_per_epoch=500",
)

# Side of the crops, and epochs. Nobody has trained those of block 4 and 5 with these numbers.
_CROP_AND_EPOCHS = {
    "block1_conv2": (96, 12),
    "block2_conv2": (96, 24),
    "block3_conv2": (128, 20),
    "block4_conv2": (128, 40),
    "block5_conv2": (128, 60),
}


def flags(layer: str, shallower: str | None) -> list[str]:
    """Returns the flags of train_decoder.py that shape a decoder of the collection.

    Args:
      layer: one of `vgg19.LAYERS`.
      shallower: the decoder.h5 of the layer before, to begin with, or None.

    Raises:
      ValueError: if `layer` is not one of those.
    """
    vgg19.blocks_up_to(layer)
    crop, epochs = _CROP_AND_EPOCHS[layer]
    begun = [] if shallower is None else [f"--initial_weights={shallower}"]
    return [f"--layer={layer}", *_COMMON, f"--crop={crop}", f"--epochs={epochs}", *begun]
