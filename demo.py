"""Shows what an encoder and its decoder do to a photograph, in one picture.

    python demo.py

builds an encoder with seeded random weights, trains a decoder for it for a minute or two, and draws
a photograph that training did not see: the photograph, its features, the positions of its maxima,
and its reconstruction. The photographs are scikit-image's; nothing is downloaded.

    python demo.py --encoder=encoder.tar.gz --decoder=decoder.tar.gz PHOTOGRAPH ...

does the same to your photographs with your archives; --decoder may be left out.
"""

import os

from absl import flags

from export import cli
from unpooling import vgg19

FLAGS = flags.FLAGS

flags.DEFINE_string("encoder", None, "An encoder.tar.gz. Default: one is built.")
flags.DEFINE_string("decoder", None, "The decoder.tar.gz that mirrors it.")
flags.DEFINE_string("output_dir", "dist/demo", "The folder for all that is made.")
flags.DEFINE_enum("layer", "block2_conv2", vgg19.LAYERS, "The layer at which a built encoder ends.")
flags.DEFINE_integer("steps", 180, "How many batches a decoder learns from.", lower_bound=1)
flags.register_multi_flags_validator(
    ["encoder", "decoder"],
    lambda values: values["encoder"] or not values["decoder"],
    message="--decoder goes with --encoder only",
)


def main(photographs: list[str]) -> int:
    from training import demo

    encoder, decoder = FLAGS.encoder, FLAGS.decoder
    if not photographs or not encoder:
        examples = demo.example_photographs(os.path.join(FLAGS.output_dir, "photographs"))
        photographs = photographs or examples[-1:]
    if not encoder:
        folder = os.path.dirname(examples[0])
        encoder, decoder = demo.make_pair(FLAGS.output_dir, folder, FLAGS.layer, FLAGS.steps)
        print("\n4. Encode a photograph that training did not see, decode it, and draw all of it.")
    return 1 if demo.show(encoder, decoder, photographs, FLAGS.output_dir) else 0


if __name__ == "__main__":
    cli.run("demo", main, files=True)
