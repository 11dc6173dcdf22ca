"""Builds the whole family: encoders, trained decoders, and the page of the collection.

    python build_collection.py --weights=vgg19.h5 --photos=FOLDER

For each layer that the weights reach:

    OUTPUT_DIR/vgg19-blockK-conv2/            the encoder
    RUNS/vgg19-blockK-conv2-decoder/          the training run of its decoder, unless it is there
    OUTPUT_DIR/vgg19-blockK-conv2-decoder/    the decoder

and OUTPUT_DIR/hub/, where all of them are laid out as a hub does, with a page that lists them and
the measured errors of the decoders. Interrupted, the same command continues where it was: what is
built is not built again, unless --overwrite says so.
"""

import os
import shlex

from absl import flags

import train_decoder
from export import cli
from unpooling import vgg19

FLAGS = flags.FLAGS

cli.define_weights_flags()
cli.define_publication_flags()
cli.define_output_flags()
cli.check_weights_flags()
flags.DEFINE_multi_enum(
    "layer", None, vgg19.LAYERS, "A layer to build; may be repeated. Default: all in the weights."
)
flags.DEFINE_string("photos", None, "The folder with the photographs for training.")
flags.DEFINE_string("runs", "runs", "The folder of the training runs.")
flags.DEFINE_string(
    "training_flags",
    "",
    "Further flags of train_decoder.py, such as --precision=bfloat16; they win over the recipe. "
    "Not --layer, --weights, --seed, --photos and --output_dir, which follow from other flags.",
)
cli.define_dataset_flag(
    "decoder_dataset",
    "What the photographs are, as a dataset tag of the hub, for the decoders' cards.",
)
flags.adopt_module_key_flags(cli)  # So that --help lists them.
flags.register_validator(
    "photos",
    lambda value: value is None or os.path.isdir(value),
    message="must be a folder with photographs",
)


def main() -> None:
    training = train_decoder.parse(shlex.split(FLAGS.training_flags))

    from publish.collection import build_collection

    built = build_collection(
        FLAGS.weights,
        FLAGS.layer,
        seed=FLAGS.seed,
        photos=FLAGS.photos,
        runs=FLAGS.runs,
        training=training,
        output_dir=FLAGS.output_dir,
        publication=cli.publication(),
        decoder_dataset=FLAGS.decoder_dataset,
        overwrite=FLAGS.overwrite,
    )
    for artifact in built:
        error = "" if artifact.error is None else f", error {artifact.error:.3f}"
        print(f"{artifact.spec.name}: {artifact.archive_bytes:,} bytes{error}")
    print(f"done: {os.path.join(FLAGS.output_dir, 'hub')}")


if __name__ == "__main__":
    cli.run("build_collection", main, interrupted="the same command continues where it was.")
