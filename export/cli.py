"""What the commands share: flags, and one line for what a user can mend."""

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from export import licenses
from export.spec import Publication, hub_tags
from unpooling.errors import UserError, one_line
from unpooling.options import SEEDS, SOURCES

__all__ = [
    "check_weights_flags",
    "define_dataset_flag",
    "define_output_flags",
    "define_publication_flags",
    "define_seed_flag",
    "define_weights_flags",
    "fail",
    "publication",
    "run",
]

FLAGS = flags.FLAGS

# What the system refuses, as opposed to what a program does wrong.
_REFUSED = {
    getattr(errno, name)
    for name in "EACCES EDQUOT EFBIG EIO ENAMETOOLONG ENOSPC EPERM EROFS EADDRINUSE".split()
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def define_weights_flags() -> None:
    """Defines --weights and --seed of an encoder."""
    flags.DEFINE_string(
        "weights",
        "imagenet",
        "The encoder's: `imagenet` (downloaded by keras.applications), `random`, or the path of "
        "a file that Keras wrote for VGG19 (.h5, .weights.h5, .keras).",
    )
    flags.register_validator("weights", bool, message="must not be empty")
    define_seed_flag()


def define_seed_flag() -> None:
    """Defines --seed."""
    flags.DEFINE_integer(
        "seed", 0, "The seed for --weights=random.", lower_bound=0, upper_bound=SEEDS
    )


def define_dataset_flag(name: str, meaning: str) -> None:
    """Defines a flag that takes a dataset tag of the hub."""
    flags.DEFINE_string(name, "other", meaning)
    flags.register_validator(
        name,
        lambda value: value in hub_tags()["dataset"],
        message="must be a dataset tag of the hub; assets/hub_tags.json lists them",
    )


def define_publication_flags() -> None:
    """Defines the flags of `Publication`."""
    define_dataset_flag(
        "dataset",
        "What the weights of a file were trained on, as a dataset tag of the hub, for the card.",
    )
    flags.DEFINE_enum(
        "license",
        None,
        licenses.NAMES,
        "The license of the weights of a file; by default it follows from their source.",
    )
    default = Publication()
    flags.DEFINE_string(
        "publisher", default.publisher, "The publisher's name on the hub, for the card."
    )
    flags.DEFINE_integer(
        "model_version", default.model_version, "The module's version, for the card.", lower_bound=1
    )
    flags.DEFINE_string(
        "asset_url",
        default.asset_url,
        "Where the artifact's folder will be published, for the card.",
    )


def define_output_flags() -> None:
    """Defines --output_dir and --overwrite."""
    flags.DEFINE_string("output_dir", "dist", "The folder in which the artifact's folder is made.")
    flags.DEFINE_bool("overwrite", False, "Whether to replace an existing artifact.")


def publication(**changes: object) -> Publication:
    """Returns the `Publication` that the flags describe.

    Args:
      **changes: fields that have other values than their flags.
    """
    names = ("publisher", "model_version", "asset_url", "dataset", "license")
    return Publication(**{name: FLAGS[name].value for name in names} | changes)


def check_weights_flags(known: Sequence[str] = SOURCES[:2]) -> None:
    """Refuses --seed, --dataset and --license beside --weights that they do not go with.

    Args:
      known: the values of --weights of which all is known; others are paths.
    """
    flags.register_multi_flags_validator(
        ["weights", "seed"],
        lambda values: values["weights"] == "random" or not FLAGS["seed"].present,
        message="--seed goes with --weights=random only",
    )
    for name in ("dataset", "license"):
        flags.register_multi_flags_validator(
            ["weights", name],
            lambda values, name=name: values["weights"] not in known or not FLAGS[name].present,
            message=f"--{name} goes with --weights=PATH only; for other weights it is known",
        )


def run(
    name: str,
    main: Callable[..., int | None],
    interrupted: str = "no partial output was left.",
    files: bool = False,
) -> None:
    """Parses the flags, runs `main` and exits.

    The exit status is what `main` returns, 0 for None. What the user can mend (a `UserError`, a
    full disk, a file that may not be read) is one line on stderr, `NAME: REASON`, and status 1.
    Any other exception is a bug: it ends the process with its traceback.

    Args:
      name: what the command is called in its messages.
      main: does the work; called only if the flags are right and there are no other arguments. It
        imports what needs TensorFlow, so that a wrong flag is reported at once.
      interrupted: what the line says after SIGINT, SIGTERM or SIGHUP.
      files: whether arguments that are not flags are allowed; `main` is then called with a list of
        them.
    """
    logging.set_verbosity(logging.WARNING)
    # Weights come and go as NumPy arrays; no other backend of Keras need be installed.
    os.environ["KERAS_BACKEND"] = "tensorflow"

    def parse(arguments):
        try:
            return FLAGS(arguments)
        except flags.Error as error:
            sys.exit(fail(name, error))

    def checked(arguments):
        if arguments[1:] and not files:
            received = " ".join(arguments[1:])
            return fail(name, f"only flags are allowed. Received: {received}.")
        signals = []

        def interrupt(number, frame):
            signals.append(number)
            raise KeyboardInterrupt

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, interrupt)
        try:
            return main(arguments[1:]) if files else main()
        except BaseException as error:
            if signals:  # Within TensorFlow, another error may come of it.
                return fail(name, f"interrupted; {interrupted}")
            if isinstance(error, (UserError, flags.Error)):
                return fail(name, error)
            if isinstance(error, OSError) and error.errno in _REFUSED:
                advice = "Make room, or choose" if error.errno in _FULL else "Choose"
                return fail(name, f"{error}. {advice} another folder.")
            raise

    app.run(checked, flags_parser=parse)


def fail(name: str, reason: object) -> int:
    """Prints one line on stderr, `NAME: REASON`, and returns the exit status for it."""
    print(f"{name}: {one_line(reason)}", file=sys.stderr)
    return 1
