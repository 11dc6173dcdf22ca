"""What a training run is asked for: a field for each flag of train_decoder.py. No TensorFlow."""

import dataclasses
import os
import sys
import typing

from unpooling import vgg19
from unpooling.errors import UserError
from unpooling.options import SEEDS

__all__ = ["SPLITS", "TrainConfig", "recipe"]

SPLITS = ("train", "validation", "test")

_TERMS = ("l1", "l2", "ms_ssim", "perceptual")  # of the loss

# The least side of a crop for MS-SSIM: five scales, the smallest as large as the filter of 11.
_MULTI_SCALE_CROP = 11 * 2**4


def _field(default, help, **rules):
    """A field with the help text of its flag, and `choices`, `least`, `most` if it has limits."""
    return dataclasses.field(default=default, metadata={"help": help, **rules})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run. Every field is checked when the object is made.

    The metadata of each field have the `help` text of its flag. --weights has its own in
    `export.cli`, for all commands.

    Raises:
      UserError: if a value is of another type, out of range, or does not go with the others.
    """

    layer: str = _field("block5_conv2", "Where the encoder ends.", choices=vgg19.LAYERS)
    weights: str = "imagenet"
    seed: int = _field(
        0,
        "The seed of order, crops and flips, of --initial_kernels=he_normal, and of the encoder's "
        "weights with --weights=random.",
        least=0,
        most=SEEDS,
    )
    photos: str = _field(dataclasses.MISSING, "The folder with the photographs.")
    output_dir: str = _field("runs", "The folder in which the run's folder is made.")
    epochs: int = _field(10, "The number of epochs.", least=1)
    steps_per_epoch: int | None = _field(
        None, "The number of batches in an epoch. Default: each photograph once.", least=1
    )
    batch_size: int = _field(8, "The number of photographs in a batch.", least=1)
    crop: int = _field(256, "The side, in pixels, of the random part of each photograph.", least=1)
    optimizer: str = _field(
        "adam",
        "Adam with default parameters, or SOAP, which is Adam in better coordinates.",
        choices=("adam", "soap"),
    )
    learning_rate: float = _field(1e-3, "The learning rate at the start.", least=0)
    final_learning_rate: float = _field(2e-4, "The learning rate at the end.", least=0)
    warm_up: float = _field(
        0.0, "The part of all steps in which the learning rate first rises from 0.", least=0, most=1
    )
    l1_weight: float = _field(10.0, "The weight of the mean absolute error.", least=0)
    l2_weight: float = _field(1.0, "The weight of the mean squared error.", least=0)
    ms_ssim_weight: float = _field(1000.0, "The weight of 1 - MS-SSIM.", least=0)
    perceptual_weight: float = _field(
        0.1, "The weight of the mean squared difference of the pictures' features.", least=0
    )
    precision: str = _field(
        "float32",
        "That of the decoder's convolutions in a training step.",
        choices=("float32", "bfloat16"),
    )
    initial_kernels: str = _field(
        "mirrored",
        "The kernels to start from: the encoder's, transposed and scaled (and the identity after "
        "an unpooling), or random ones.",
        choices=("mirrored", "he_normal"),
    )
    initial_weights: str | None = _field(
        None,
        "A decoder.h5 to start from, of this layer or another: convolutions of the same names are "
        "copied, the others are as --initial_kernels says.",
    )
    strategy: str = _field(
        "one",
        "One device, all devices of this machine, or the workers that TF_CONFIG names.",
        choices=("one", "mirrored", "multi_worker"),
    )
    evaluation_pictures: int = _field(
        100, "How many held-out photographs are measured, the test split's first.", least=1
    )
    overwrite: bool = _field(False, "Whether to replace a finished run, or one with other flags.")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, os.PathLike):
                object.__setattr__(self, field.name, os.fspath(value))
            elif expected := _expected(field, value):
                raise UserError(f"--{field.name} must be {expected}. Received: {value!r}.")
        multiple = vgg19.downsampling(self.layer)
        if self.crop % multiple:
            expected = f"a multiple of {multiple} for --layer={self.layer}"
        elif self.ms_ssim_weight and self.crop < _MULTI_SCALE_CROP:
            expected = f"at least {_MULTI_SCALE_CROP} for MS-SSIM, or pass --ms_ssim_weight=0"
        elif self.loss_weights:
            return
        else:
            raise UserError(f"one of {', '.join(f'--{t}_weight' for t in _TERMS)} must be above 0.")
        raise UserError(f"--crop must be {expected}. Received: {self.crop}.")

    @property
    def loss_weights(self) -> dict[str, float]:
        """{term of the loss: its weight}, of those above 0; the others are not computed."""
        weights = {term: getattr(self, f"{term}_weight") for term in _TERMS}
        return {term: weight for term, weight in weights.items() if weight}


def _expected(field, value):
    """What the value of a field must be, or None if it is that."""
    rules, kind = field.metadata, (typing.get_args(field.type) or (field.type,))[0]
    if value is None and field.default is None:
        return None
    if "choices" in rules:
        return None if value in rules["choices"] else f"one of {', '.join(rules['choices'])}"
    if kind is str:
        return None if isinstance(value, str) and value else "a name or a path, not empty"
    if kind is bool:
        return None if isinstance(value, bool) else "true or false"
    is_number = isinstance(value, (int, kind)) and not isinstance(value, bool)
    if is_number and rules["least"] <= value <= rules.get("most", sys.float_info.max):
        return None
    number = "a whole number" if kind is int else "a finite number"
    most = f" and at most {rules['most']}" if "most" in rules else ""
    return f"{number} of at least {rules['least']}{most}"


# The recipe aims at a small error alone; it is how the decoders that ship began, then without the
# convolutions after unpoolings. The defaults above are those of the published decoders, which were
# trained for more than that. Nobody has trained blocks 4 and 5 with these numbers.
_RECIPE = {
    "batch_size": 4,
    "steps_per_epoch": 1000,
    "optimizer": "soap",
    "initial_kernels": "he_normal",
    "learning_rate": 1.5e-3,
    "final_learning_rate": 0.0,
    "warm_up": 0.03,
    "l2_weight": 0.0,
    "ms_ssim_weight": 0.0,
    "perceptual_weight": 0.0,
}
_SIZES = {
    "block1_conv2": {"crop": 96, "epochs": 24},
    "block2_conv2": {"crop": 96, "epochs": 38},
    "block3_conv2": {"crop": 112, "epochs": 21},
    "block4_conv2": {"crop": 128, "epochs": 40},
    "block5_conv2": {"crop": 128, "epochs": 60},
}


def recipe(layer: str, **changes: object) -> TrainConfig:
    """Returns how the collection trains the decoder of a layer.

    Args:
      layer: one of `LAYERS`.
      **changes: further fields of `TrainConfig`, such as `photos`; they win over the recipe.

    Raises:
      UserError: as `TrainConfig`.
    """
    return TrainConfig(layer=layer, **{**_RECIPE, **_SIZES.get(layer, {}), **changes})
