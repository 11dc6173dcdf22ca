"""Builds an unpooling encoder.

    python build_encoder.py --layer=block5_conv2 --weights=imagenet

writes into OUTPUT_DIR/vgg19-block5-conv2/, only when every check has passed:

    encoder.tar.gz          the reusable TF2 SavedModel
    encoder.md              the card for a hub
    encoder.png             the architecture diagram
    encoder.manifest.json   what it was made of, with the hashes of all parts
    SHA256SUMS              the checksums of these four

The work goes flags -> weights -> encoder -> SavedModel -> archive -> card -> manifest -> verify.
"""

import os

from absl import flags

from export import cli, spec
from unpooling import vgg19

FLAGS = flags.FLAGS
_NAME = "build_encoder"

flags.DEFINE_enum("layer", "block5_conv2", vgg19.LAYERS, "The layer at which the encoder ends.")
flags.DEFINE_string(
    "weights",
    "imagenet",
    "`imagenet` (downloaded by keras.applications), `random`, or the path of an .h5 file in the "
    "layout of Keras' published VGG19 files that holds at least the layers up to --layer.",
)
flags.DEFINE_integer(
    "seed", 0, "The seed for --weights=random.", lower_bound=0, upper_bound=2**64 - 1
)
flags.DEFINE_enum("index_dtype", "int64", spec.INDEX_DTYPES, "The dtype of the index tuples.")
flags.DEFINE_enum(
    "pooling",
    "argmax",
    spec.ENGINES,
    "What finds the maxima: tf.nn.max_pool_with_argmax, or operations that XLA can compile.",
)
cli.define_artifact_flags()
flags.adopt_module_key_flags(cli)  # So that --help tells them.

flags.register_validator("weights", bool, message="must not be empty")
cli.check_weights_flags(("imagenet", "random"), "; for other weights it is known")


def main() -> int:
    return cli.build(_NAME, build, spec.files("encoder"))


def build() -> str:
    """Builds what the flags ask for and returns the artifact's folder."""
    from export import build, saved_model, staging
    from unpooling import weights
    from unpooling.encoder import Encoder

    directory = os.path.join(FLAGS.output_dir, vgg19.artifact_name(FLAGS.layer, "encoder"))
    with staging.staged(directory, spec.files("encoder"), FLAGS.overwrite) as staging:
        print(f"weights: {FLAGS.weights}", flush=True)
        loaded = weights.load(FLAGS.weights, FLAGS.layer, FLAGS.seed)

        print(
            f"encoder: {FLAGS.layer}, {FLAGS.index_dtype} indices, {FLAGS.pooling} pooling",
            flush=True,
        )
        encoder = Encoder(FLAGS.layer, loaded.layers, FLAGS.index_dtype, FLAGS.pooling)

        build.assemble(
            staging,
            "encoder",
            layer=FLAGS.layer,
            weights=loaded,
            save=lambda path: saved_model.save(encoder, path),
            page=cli.page_flags(),
            flags=cli.shaping_flags(),
            index_dtype=FLAGS.index_dtype,
            pooling=FLAGS.pooling,
        )
    return directory


if __name__ == "__main__":
    cli.run(_NAME, main)
