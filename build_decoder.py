"""Builds the decoder that mirrors an unpooling encoder.

    python build_decoder.py --layer=block2_conv2 --weights=decoder.h5

writes into OUTPUT_DIR/vgg19-block2-conv2-decoder/, only when every check has passed:

    decoder.tar.gz          the reusable TF2 SavedModel
    decoder.md              the card for a hub
    decoder.png             the architecture diagram
    decoder.manifest.json   what it was made of, with the hashes of all parts
    SHA256SUMS              the checksums of these four

The work goes flags -> weights -> decoder -> SavedModel -> archive -> card -> manifest -> verify.
"""

import os

from absl import flags

from export import cli, spec
from unpooling import vgg19

FLAGS = flags.FLAGS
_NAME = "build_decoder"

flags.DEFINE_enum("layer", "block5_conv2", vgg19.LAYERS, "The layer at which its encoder ends.")
flags.DEFINE_string(
    "weights",
    None,
    "The path of the .h5 file that train_decoder.py wrote, or `random` for an untrained decoder.",
)
flags.DEFINE_integer(
    "seed", 0, "The seed for --weights=random.", lower_bound=0, upper_bound=2**64 - 1
)
cli.define_artifact_flags()
flags.adopt_module_key_flags(cli)  # So that --help tells them.

flags.register_validator(
    "weights", bool, message="must be given: the path of a decoder's .h5 file, or `random`"
)
cli.check_weights_flags(("random",))


def main() -> int:
    return cli.build(_NAME, build, spec.files("decoder"))


def build() -> str:
    """Builds what the flags ask for and returns the artifact's folder."""
    from export import build, saved_model, staging
    from unpooling import weights
    from unpooling.decoder import Decoder

    directory = os.path.join(FLAGS.output_dir, vgg19.artifact_name(FLAGS.layer, "decoder"))
    with staging.staged(directory, spec.files("decoder"), FLAGS.overwrite) as staging:
        print(f"weights: {FLAGS.weights}", flush=True)
        loaded = weights.load_decoder(FLAGS.weights, FLAGS.layer, FLAGS.seed)

        print(f"decoder: {FLAGS.layer}", flush=True)
        decoder = Decoder(FLAGS.layer, loaded.layers)

        build.assemble(
            staging,
            "decoder",
            layer=FLAGS.layer,
            weights=loaded,
            save=lambda path: saved_model.save_decoder(decoder, path),
            page=cli.page_flags(),
            flags=cli.shaping_flags(),
        )
    return directory


if __name__ == "__main__":
    cli.run(_NAME, main)
