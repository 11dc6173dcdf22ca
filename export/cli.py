"""What the commands share: flags, and one line for what a user can mend."""

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from export import licenses
from export.spec import Publication
from unpooling.errors import UserError, one_line
from unpooling.options import SEEDS, SOURCES

__all__ = [
    "check_weights_flags",
    "define_dataset_flag",
    "define_output_flags",
    "define_pairs_flags",
    "define_publication_flags",
    "define_seed_flag",
    "define_weights_flag",
    "define_weights_flags",
    "fail",
    "pairs",
    "publication",
    "run",
]

FLAGS = flags.FLAGS

_PUBLICATION = {
    "dataset": "What the weights of a file were trained on, as a dataset tag of the hub, for the "
    "card.",
    "license": f"The license of the weights of a file, one of {', '.join(licenses.NAMES)}; by "
    "default it follows from their source.",
    "publisher": "The publisher's name on the hub, for the card.",
    "model_version": "The module's version, for the card.",
    "asset_url": "Where the artifact's folder will be published, for the card.",
}

# What the system refuses, as opposed to what a program does wrong, and what helps.
_REFUSED = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Make room, or choose"),
    errno.EACCES: "Choose",
    errno.EEXIST: "Choose",  # a file in the place of a folder
    errno.ENOTDIR: "Choose",  # below a file
    errno.EISDIR: "Choose",  # a folder in the place of a file
    errno.EIO: "Choose",
    errno.ENAMETOOLONG: "Choose",
    errno.EPERM: "Choose",
    errno.EROFS: "Choose",
}


def define_weights_flags() -> None:
    """Defines --weights and --seed of an encoder."""
    define_weights_flag()
    define_seed_flag()


def define_weights_flag(values: flags.FlagValues = FLAGS) -> None:
    """Defines --weights of an encoder."""
    flags.DEFINE_string(
        "weights",
        "imagenet",
        "The encoder's: `imagenet` (downloaded by keras.applications), `random`, or the path of "
        "a file that Keras wrote for VGG19 (.h5, .weights.h5, .keras).",
        flag_values=values,
    )
    flags.register_validator("weights", bool, message="must not be empty", flag_values=values)


def define_pairs_flags() -> None:
    """Defines the flags that say which pairs style transfer takes: see `unpooling.style`."""
    define_weights_flag()
    flags.DEFINE_string(
        "decoders",
        "pretrained",
        "`pretrained`, for those that ship; a folder with others, block1_conv2.h5 and so on or "
        "what training leaves; or `random`.",
    )
    flags.DEFINE_string(
        "modules", None, "A folder or an address of exported modules, instead of both."
    )
    flags.DEFINE_integer("depth", 3, "How many levels there are.", 1, 5)
    for name in ("weights", "decoders"):
        flags.register_multi_flags_validator(
            ["modules", name],
            lambda values, name=name: values["modules"] is None or not FLAGS[name].present,
            message=f"--{name} does not go with --modules, which have weights of their own",
        )


def pairs() -> tuple[tuple[object, object], ...]:
    """Returns the pairs that the flags of `define_pairs_flags` describe, block1 first."""
    from unpooling.style import load_modules, load_pairs

    if FLAGS.modules is not None:
        return load_modules(FLAGS.modules, FLAGS.depth)
    return load_pairs(FLAGS.depth, FLAGS.weights, FLAGS.decoders)


def define_seed_flag() -> None:
    """Defines --seed."""
    flags.DEFINE_integer(
        "seed", 0, "The seed for --weights=random.", lower_bound=0, upper_bound=SEEDS
    )


def define_dataset_flag(name: str, meaning: str) -> None:
    """Defines a flag that takes a dataset tag of the hub."""
    _define_field("dataset", meaning, name)


def define_publication_flags() -> None:
    """Defines a flag for each field of `Publication`."""
    for field, meaning in _PUBLICATION.items():
        _define_field(field, meaning, field)


def _define_field(field, meaning, name):
    """Defines a flag for a field of `Publication`, which says what values are allowed."""

    def check(value):
        try:
            Publication(**{field: value})
        except UserError as error:
            raise flags.ValidationError(str(error)) from error
        return True

    default = getattr(Publication(), field)
    define = flags.DEFINE_integer if isinstance(default, int) else flags.DEFINE_string
    define(name, default, meaning)
    flags.register_validator(name, check)


def define_output_flags() -> None:
    """Defines --output_dir and --overwrite."""
    flags.DEFINE_string("output_dir", "dist", "The folder in which the artifact's folder is made.")
    flags.DEFINE_bool("overwrite", False, "Whether to replace an existing artifact.")


def publication() -> Publication:
    """Returns the `Publication` that the flags describe."""
    return Publication(**{name: FLAGS[name].value for name in _PUBLICATION})


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
            rest = FLAGS(arguments)
        except flags.Error as error:
            sys.exit(fail(name, error))
        if rest[1:] and not files:
            sys.exit(fail(name, f"only flags are allowed. Received: {' '.join(rest[1:])}."))
        return rest

    def call(arguments):
        signals = []

        def interrupt(number, frame):
            signals.append(number)
            raise KeyboardInterrupt

        def again(ignored):
            """Python drops what is raised in a destructor: a timer raises it once more."""
            if ignored.exc_type is KeyboardInterrupt:
                signal.setitimer(signal.ITIMER_REAL, 0.1)
            else:
                sys.__unraisablehook__(ignored)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, interrupt)
        sys.unraisablehook = again
        try:
            return main(arguments[1:]) if files else main()
        except BaseException as error:
            if signals:  # Within TensorFlow, another error may come of it.
                return fail(name, f"interrupted; {interrupted}")
            if isinstance(error, (UserError, flags.Error)):
                return fail(name, error)
            if isinstance(error, OSError) and error.errno in _REFUSED:
                return fail(name, f"{error}. {_REFUSED[error.errno]} another folder.")
            raise

    app.run(call, flags_parser=parse)


def fail(name: str, reason: object) -> int:
    """Prints one line on stderr, `NAME: REASON`, and returns the exit status for it."""
    print(f"{name}: {one_line(reason)}", file=sys.stderr)
    return 1
