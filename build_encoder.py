"""Builds an unpooling encoder.

    python build_encoder.py --layer=block5_conv2 --weights=imagenet

writes into OUTPUT_DIR/vgg19-block5-conv2/, only when every check has passed:

    encoder.tar.gz          the reusable TF2 SavedModel
    encoder.md              the card for a hub
    encoder.png             the architecture diagram
    encoder.manifest.json   what it was made of, with the hashes of all parts
    SHA256SUMS              the checksums of these four
"""

from absl import flags

from export import cli
from unpooling import options, vgg19

FLAGS = flags.FLAGS

flags.DEFINE_enum("layer", "block5_conv2", vgg19.LAYERS, "The layer at which the encoder ends.")
flags.DEFINE_enum("index_dtype", "int64", options.INDEX_DTYPES, "The dtype of the indices.")
flags.DEFINE_enum(
    "pooling",
    "argmax",
    options.ENGINES,
    "What finds the maxima: tf.nn.max_pool_with_argmax, or operations that XLA can compile.",
)
cli.define_weights_flags()
cli.define_publication_flags()
cli.define_output_flags()
cli.check_weights_flags()
flags.adopt_module_key_flags(cli)  # So that --help lists them.


def main() -> None:
    from export.build import build_encoder
    from export.spec import Spec

    folder = build_encoder(
        Spec("encoder", FLAGS.layer, FLAGS.index_dtype, FLAGS.pooling),
        FLAGS.weights,
        seed=FLAGS.seed,
        output_dir=FLAGS.output_dir,
        publication=cli.publication(),
        overwrite=FLAGS.overwrite,
    )
    print(f"done: {folder}")


if __name__ == "__main__":
    cli.run("build_encoder", main)
