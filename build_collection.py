"""Builds the whole family: encoders, trained decoders, and the page of the collection.

    python build_collection.py --weights=vgg19.h5 --photos=FOLDER

For each layer that the weights reach:

    build_encoder.py    -> OUTPUT_DIR/vgg19-blockK-conv2/
    train_decoder.py    -> RUNS/vgg19-blockK-conv2-decoder/, unless a trained decoder is there
    build_decoder.py    -> OUTPUT_DIR/vgg19-blockK-conv2-decoder/

and then publish.tree, which lays all of them out in OUTPUT_DIR/hub/, with a page that lists them
and the measured errors of the decoders. Interrupted, the same command goes on where it was.
"""

import os
import shlex

from absl import flags

from export import command, vgg19

FLAGS = flags.FLAGS
_NAME = "build_collection"

flags.DEFINE_string(
    "weights",
    "imagenet",
    "The encoders': `imagenet` (downloaded by keras.applications), `random`, or the path of an "
    ".h5 file in the layout of Keras' published VGG19 files.",
)
flags.DEFINE_integer(
    "seed", 0, "The seed for --weights=random.", lower_bound=0, upper_bound=2**63 - 1
)
flags.DEFINE_multi_enum(
    "layer", None, vgg19.LAYERS, "A layer to build; may be repeated. Default: all in the weights."
)
flags.DEFINE_string("photos", None, "The folder with the photographs for training.")
flags.DEFINE_string("runs", "runs", "The folder of the training runs.")
flags.DEFINE_string(
    "training_flags",
    "",
    "Further flags for train_decoder.py, such as --precision=bfloat16; they win over the recipe.",
)
flags.DEFINE_string(
    "decoder_dataset",
    "other",
    "What the photographs are, as a dataset tag of the hub, for the decoders' cards.",
)
command.define_artifact_flags()
flags.adopt_module_key_flags(command)  # So that --help tells them.

flags.register_validator("weights", bool, message="must not be empty")


def main() -> int:
    return command.run_tensorflow(
        _NAME, build, interrupted="the same command goes on where it was."
    )


def build() -> None:
    """Builds what the flags ask for."""
    from export import weights
    from publish import tree
    from training import recipe

    reached = weights.layers_of(FLAGS.weights)
    layers = [layer for layer in reached if not FLAGS.layer or layer in FLAGS.layer]
    lacking = [layer for layer in FLAGS.layer or () if layer not in reached]
    if lacking:
        raise ValueError(
            f"--weights={FLAGS.weights} reaches to {reached[-1]} only: leave out "
            f"--layer={lacking[0]}, or pass other weights."
        )
    decoders = {layer: _decoder_path(layer) for layer in layers}
    untrained = [layer for layer, path in decoders.items() if not _is_trained(layer, path)]
    if untrained and FLAGS.photos is None:
        raise ValueError(
            f"{FLAGS.runs} holds no trained decoder for {', '.join(untrained)}: pass "
            "--photos=FOLDER to train one, or another --runs."
        )
    print(f"layers: {', '.join(layers)}; to be trained: {', '.join(untrained) or 'none'}")

    source = [f"--weights={FLAGS.weights}"]
    if FLAGS.weights == "random":
        source.append(f"--seed={FLAGS.seed}")
    artifact = [
        f"--output_dir={FLAGS.output_dir}",
        f"--overwrite={str(FLAGS.overwrite).lower()}",
        f"--publisher={FLAGS.publisher}",
        f"--model_version={FLAGS.model_version}",
        f"--asset_url={FLAGS.asset_url}",
    ]
    is_file = FLAGS.weights not in ("imagenet", "random")
    encoder_dataset = [f"--dataset={FLAGS.dataset}"] if is_file else []
    shallower = None
    for layer in layers:
        at = f"--layer={layer}"
        command.step("build_encoder.py", at, *source, *encoder_dataset, *artifact)
        if layer in untrained:
            command.step(
                "train_decoder.py",
                *source,
                f"--photos={FLAGS.photos}",
                f"--output_dir={FLAGS.runs}",
                *recipe.flags(layer, shallower),
                *shlex.split(FLAGS.training_flags),
            )
        shallower = decoders[layer]
        dataset = f"--dataset={FLAGS.decoder_dataset}"
        command.step("build_decoder.py", at, f"--weights={shallower}", dataset, *artifact)
    hub = os.path.join(FLAGS.output_dir, "hub")
    for module in tree.add(FLAGS.output_dir, hub, FLAGS.overwrite):
        error = "" if module.error is None else f", error {module.error:.3f}"
        print(f"{module.page.name}: {module.archive_bytes:,} bytes{error}")
    print(f"done: {hub}")


def _decoder_path(layer):
    return os.path.join(FLAGS.runs, vgg19.artifact_name(layer, "decoder"), "decoder.h5")


def _is_trained(layer, path):
    """Whether there is a trained decoder; ValueError if it is one of other weights."""
    from export import weights

    if not os.path.exists(path):
        return False
    encoder = weights.load(FLAGS.weights, layer, FLAGS.seed)
    weights.check_pair(encoder, weights.load_decoder(path, layer), path)
    return True


if __name__ == "__main__":
    command.run(_NAME, main)
