"""What the commands have in common: flags, and one line for what went wrong."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from export import hub_page, spec
from unpooling import text

__all__ = [
    "build",
    "check_weights_flags",
    "define_artifact_flags",
    "define_dataset_flag",
    "define_weights_flags",
    "fail",
    "page_flags",
    "run",
    "run_tensorflow",
    "shaping_flags",
    "step",
]

FLAGS = flags.FLAGS

_PAGE = ("publisher", "model_version", "asset_url", "dataset")

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def define_artifact_flags() -> None:
    """Defines the flags of every command that builds an artifact, with their checks."""
    define_dataset_flag(
        "dataset",
        "What the weights of a file were trained on, as a dataset tag of the hub, for the card.",
    )
    flags.DEFINE_string("output_dir", "dist", "The folder in which the artifact's folder is made.")
    flags.DEFINE_string("publisher", "emilutz", "The publisher's name on the hub, for the card.")
    flags.DEFINE_integer("model_version", 1, "The module's version, for the card.", lower_bound=1)
    flags.DEFINE_string(
        "asset_url",
        "https://storage.googleapis.com/vgg19-with-unpooling",
        "Where the artifact's folder will be published, for the card.",
    )
    flags.DEFINE_bool("overwrite", False, "Whether to replace an existing artifact.")
    flags.register_validator(
        "publisher",
        lambda value: re.fullmatch(spec.PUBLISHER, value, re.ASCII),
        message="must consist of lower-case letters, digits and hyphens",
    )
    flags.register_validator(
        "asset_url",
        lambda value: re.fullmatch(spec.ASSET_URL, value, re.ASCII),
        message="must be an http or https URL",
    )


def define_dataset_flag(name: str, meaning: str) -> None:
    """Defines a flag that takes a dataset tag of the hub."""
    flags.DEFINE_string(name, "other", meaning)
    flags.register_validator(
        name,
        lambda value: value in hub_page.tags()["dataset"],
        message="must be a dataset tag of the hub; assets/hub_tags.json lists them",
    )


def check_weights_flags(known: Sequence[str], reason: str = "") -> None:
    """Refuses --seed and --dataset beside --weights that they do not go with.

    Args:
      known: the values of --weights for which --dataset says nothing; others are paths.
      reason: what the message adds on that.
    """
    flags.register_multi_flags_validator(
        ["weights", "seed"],
        lambda values: values["weights"] == "random" or not FLAGS["seed"].present,
        message="--seed goes with --weights=random only",
    )
    flags.register_multi_flags_validator(
        ["weights", "dataset"],
        lambda values: values["weights"] not in known or not FLAGS["dataset"].present,
        message=f"--dataset goes with --weights=PATH only{reason}",
    )


def define_weights_flags() -> None:
    """Defines the flags that say which encoder it is about: --weights and --seed."""
    flags.DEFINE_string(
        "weights",
        "imagenet",
        "The encoder's: `imagenet` (downloaded by keras.applications), `random`, or the path of "
        "an .h5 file in the layout of Keras' published VGG19 files.",
    )
    flags.DEFINE_integer(
        "seed", 0, "The seed for --weights=random.", lower_bound=0, upper_bound=2**63 - 1
    )
    flags.register_validator("weights", bool, message="must not be empty")


def page_flags() -> dict[str, object]:
    """Returns the flags that only the card shows, by name."""
    return {name: FLAGS[name].value for name in _PAGE}


def shaping_flags() -> dict[str, object]:
    """Returns what a stranger would have to pass to get the same artifact, without any folder."""
    names = ("layer", "weights", "index_dtype", "pooling", *_PAGE)
    shaping = {name: FLAGS[name].value for name in names if name in FLAGS}
    if FLAGS.weights in ("imagenet", "random"):
        del shaping["dataset"]
    else:
        shaping["weights"] = os.path.basename(FLAGS.weights)
    if FLAGS.weights == "random":
        shaping["seed"] = FLAGS.seed
    return shaping


def build(name: str, make: Callable[[], str], files: Sequence[str]) -> int:
    """Builds an artifact and returns the exit status.

    Args:
      name: what the command is called in its messages.
      make: builds it, once TensorFlow can be imported, and returns the artifact's folder.
      files: the names of its files.
    """

    def work():
        directory = make()
        print(f"done: {', '.join(os.path.join(directory, file) for file in files)}")

    return run_tensorflow(name, work)


def run_tensorflow(
    name: str, work: Callable[[], None], interrupted: str = "nothing is half-written."
) -> int:
    """Does what needs TensorFlow and returns the exit status; what goes wrong gets one line.

    Args:
      name: what the command is called in its messages.
      work: does it, once TensorFlow can be imported.
      interrupted: what is to be known after SIGINT, SIGTERM or SIGHUP.
    """
    logging.set_verbosity(logging.WARNING)
    # Weights come and go as NumPy arrays; no other backend need be installed.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        # Loading TensorFlow takes seconds; a wrong flag should not have to wait for it.
        import tensorflow as tf

        try:
            work()
        except (ValueError, OSError, tf.errors.OpError) as error:
            return fail(name, _reason(error))
    except KeyboardInterrupt:
        return fail(name, f"interrupted; {interrupted}")
    return 0


def _reason(error: Exception) -> str:
    # TensorFlow puts the operation that failed in front of what went wrong, and lists where in the
    # program it stands.
    reason = re.sub(r"^\{\{function_node .*?\}\} ", "", str(error))
    where = ("Graph execution error", "Detected at node", "File ")
    lines = (line.strip() for line in reason.splitlines())
    reason = " ".join(line for line in lines if line and not line.startswith(where))
    if "output_dir" in FLAGS and re.search("No space left|File too large|Disk quota", reason):
        reason += f". Make room in {FLAGS.output_dir}, or choose another --output_dir."
    return reason


def step(script: str, *arguments: str) -> None:
    """Runs another command of this repository, once it has been shown.

    Args:
      script: its file, such as "build_encoder.py".
      arguments: its flags.

    Raises:
      ValueError: if it fails; it has said why then.
    """
    print(f"$ {shlex.join(['python', script, *arguments])}", flush=True)
    # In a session of its own, so that Ctrl-C does not come twice: from the terminal and from here.
    with subprocess.Popen(
        [sys.executable, os.path.join(_ROOT, script), *arguments], start_new_session=True
    ) as child:
        try:
            status = child.wait()
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            raise
    if status:
        raise ValueError(f"{script} ended with status {status}; what it says above is the reason.")


def fail(name: str, reason: str) -> int:
    """Prints one line on stderr, `NAME: REASON`, and returns the exit status for it."""
    print(f"{name}: {text.one_line(reason)}", file=sys.stderr)
    return 1


def run(name: str, main: Callable[[], int]) -> None:
    """Parses the flags, runs `main` and exits with the status that it returns.

    Args:
      name: what the command is called in its messages.
      main: does the work; called only if the flags are right and no other arguments came.
    """

    def parse(argv):
        try:
            return FLAGS(argv)
        except flags.Error as error:
            sys.exit(fail(name, str(error)))

    def checked(argv):
        if len(argv) > 1:
            received = " ".join(argv[1:])
            return fail(name, f"no arguments but flags are taken. Received: {received}.")
        return main()

    app.run(checked, flags_parser=parse)
