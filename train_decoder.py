"""Trains the decoder of an unpooling encoder.

    python train_decoder.py --layer=block3_conv2 --weights=imagenet --photos=FOLDER

writes into OUTPUT_DIR/vgg19-block3-conv2-decoder/:

    decoder.h5       the weights, how they were trained, and how good they are
    history.csv      losses and metrics of each epoch
    tensorboard/     the same as curves, if the package tensorboard is installed
    samples/         held-out pictures above their reconstructions
    run.json         what the run was asked for

Interrupted and started again with the same flags, it is resumed after the last finished epoch.
"""

import dataclasses
import typing
from collections.abc import Sequence

from absl import flags

from export import cli
from training import config
from training.console import say
from unpooling.errors import UserError

FLAGS = flags.FLAGS
_FIELDS = dataclasses.fields(config.TrainConfig)


def define_flags(values: flags.FlagValues = FLAGS) -> None:
    """Defines a flag for each field of `TrainConfig`."""
    cli.define_weights_flag(values)
    define = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float}
    for field in (field for field in _FIELDS if "help" in field.metadata):
        kind = (typing.get_args(field.type) or (field.type,))[0]
        default = None if field.default is dataclasses.MISSING else field.default
        arguments = field.name, default, field.metadata["help"]
        if choices := field.metadata.get("choices"):
            flags.DEFINE_enum(*arguments[:2], choices, arguments[2], flag_values=values)
        else:
            define.get(kind, flags.DEFINE_string)(*arguments, flag_values=values)


def parse(arguments: Sequence[str]) -> dict[str, object]:
    """Returns the fields of `TrainConfig` that flags such as --precision=bfloat16 set.

    Raises:
      UserError: if there is no such flag, or its value is of another type.
    """
    values = flags.FlagValues()
    define_flags(values)
    try:
        _, *rest = values(["train_decoder", *arguments])
    except flags.Error as error:
        raise UserError(str(error)) from error
    if rest:
        raise UserError(f"only flags are allowed. Received: {' '.join(rest)}.")
    return {name: values[name].value for name in values if values[name].present}


def main() -> None:
    wanted = config.TrainConfig(**{field.name: FLAGS[field.name].value for field in _FIELDS})

    from training.train import train

    say(f"done: {train(wanted)}")


if __name__ == "__main__":
    define_flags()
    flags.adopt_module_key_flags(cli)  # So that --help lists them.
    cli.run("train_decoder", main, interrupted="the same flags resume after the last epoch.")
