"""Builds the decoder that mirrors an unpooling encoder.

    python build_decoder.py --layer=block2_conv2

writes into OUTPUT_DIR/vgg19-block2-conv2-decoder/, only when every check has passed:

    decoder.tar.gz          the reusable TF2 SavedModel
    decoder.md              the card for a hub
    decoder.png             the architecture diagram
    decoder.manifest.json   what it was made of, with the hashes of all parts
    SHA256SUMS              the checksums of these four
"""

from absl import flags

from export import cli
from unpooling import vgg19

FLAGS = flags.FLAGS

flags.DEFINE_enum("layer", "block5_conv2", vgg19.LAYERS, "The layer at which its encoder ends.")
flags.DEFINE_string(
    "weights",
    "pretrained",
    "`pretrained`, for the decoders that ship, of blocks 1 to 3; the path of the .h5 file that "
    "train_decoder.py wrote; or `random` for an untrained decoder.",
)
flags.register_validator("weights", bool, message="must not be empty")
cli.define_seed_flag()
cli.define_publication_flags()
cli.define_output_flags()
cli.check_weights_flags(known=["pretrained", "random"])
flags.adopt_module_key_flags(cli)  # So that --help lists them.


def main() -> None:
    from export.build import build_decoder
    from export.spec import Spec

    folder = build_decoder(
        Spec("decoder", FLAGS.layer),
        FLAGS.weights,
        seed=FLAGS.seed,
        output_dir=FLAGS.output_dir,
        publication=cli.publication(),
        overwrite=FLAGS.overwrite,
    )
    print(f"done: {folder}")


if __name__ == "__main__":
    cli.run("build_decoder", main)
