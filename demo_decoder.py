"""Shows that pooling can be undone: trains a small decoder on the spot, and decodes a photograph.

    python demo_decoder.py --output_dir=dist/demo

It takes photographs that scikit-image brings along, and runs the commands that a user would type:
build_encoder.py, train_decoder.py, build_decoder.py. Then it loads the two archives, gives a
photograph that training did not see to the encoder, what comes out to the decoder, and draws both.
"""

import os
import tempfile

from absl import flags

from export import cli, spec
from unpooling import vgg19

FLAGS = flags.FLAGS
_NAME = "demo_decoder"

flags.DEFINE_string("output_dir", "dist/demo", "The folder for all that is made.")
flags.DEFINE_enum("layer", "block2_conv2", vgg19.LAYERS, "The layer at which the encoder ends.")
flags.DEFINE_string("weights", "random", "The encoder's, as for build_encoder.py.")
flags.DEFINE_integer("steps", 300, "How many batches of 8 crops it learns from.", lower_bound=1)

# By the hash of its name, the last one is held out from training.
_PHOTOGRAPHS = ("astronaut", "cat", "motorcycle", "retina", "rocket", "coffee")


def main() -> int:
    return cli.run_tensorflow(_NAME, demonstrate)


def demonstrate() -> None:
    """Builds, trains, decodes, draws, and prints the error."""
    from training import recipe, run_folder

    photos = os.path.join(FLAGS.output_dir, "photographs")
    shown = _write_photographs(photos)
    output = ["--overwrite", f"--output_dir={FLAGS.output_dir}"]
    runs = os.path.join(FLAGS.output_dir, "runs")

    cli.step("build_encoder.py", f"--layer={FLAGS.layer}", f"--weights={FLAGS.weights}", *output)
    cli.step(
        "train_decoder.py",
        *recipe.flags(FLAGS.layer, shallower=None),
        f"--weights={FLAGS.weights}",
        f"--photos={photos}",
        f"--output_dir={runs}",
        "--overwrite",
        "--learning_rate=2e-3",
        "--epochs=3",
        f"--steps_per_epoch={-(-FLAGS.steps // 3)}",
    )
    cli.step(
        "build_decoder.py",
        f"--layer={FLAGS.layer}",
        f"--weights={run_folder.Run(runs, FLAGS.layer).decoder}",
        *output,
    )
    _show(shown, os.path.join(FLAGS.output_dir, "reconstruction.png"))


def _write_photographs(folder):
    """Writes scikit-image's photographs as files, and returns the path of the one to be shown."""
    from PIL import Image
    from skimage import data

    os.makedirs(folder, exist_ok=True)
    for name in _PHOTOGRAPHS:
        pixels = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
        path = os.path.join(folder, f"{name}.jpg")
        Image.fromarray(pixels).save(path, quality=95)
    return path


def _show(photograph, path):
    """Encodes and decodes a photograph with the two archives, and draws it and what came out."""
    import numpy as np
    import tensorflow as tf
    import tensorflow_hub as hub

    from training import data, draw
    from unpooling import archive, padding

    loaded = {}
    for kind in spec.KINDS:
        folder = os.path.join(FLAGS.output_dir, vgg19.artifact_name(FLAGS.layer, kind))
        with tempfile.TemporaryDirectory() as directory:
            archive.unpack(os.path.join(folder, f"{kind}.tar.gz"), directory)
            loaded[kind] = hub.load(directory)
    picture = padding.cut(data.decode_picture(photograph).numpy(), vgg19.downsampling(FLAGS.layer))

    images = tf.constant(picture[np.newaxis], tf.float32)  # (1, H, W, 3)
    decoded = loaded["decoder"](loaded["encoder"](images))[0].numpy()

    draw.reconstructions(path, picture, {"reconstruction": decoded}, (265, 320))
    error = np.mean(np.abs(decoded - picture))
    print(f"mean absolute error of {os.path.basename(photograph)}, 0 to 255: {error:.3f}")
    print(f"picture: {path}")


if __name__ == "__main__":
    cli.run(_NAME, main)
