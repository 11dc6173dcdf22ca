"""Builds the whole family: encoders, trained decoders, and the page of the collection.

    python build_collection.py --weights=vgg19.h5 --photos=FOLDER

For each layer that the weights reach:

    build_encoder.py    -> OUTPUT_DIR/vgg19-blockK-conv2/
    train_decoder.py    -> RUNS/vgg19-blockK-conv2-decoder/, unless a trained decoder is there
    build_decoder.py    -> OUTPUT_DIR/vgg19-blockK-conv2-decoder/

and then publish.tree, which lays all of them out in OUTPUT_DIR/hub/, with a page that lists them
and the measured errors of the decoders. Interrupted, the same command goes on where it was: what
is built is not built again, unless --overwrite says so.
"""

import os
import shlex

from absl import flags

from export import cli
from unpooling import vgg19

FLAGS = flags.FLAGS
_NAME = "build_collection"

cli.define_weights_flags()
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
cli.define_dataset_flag(
    "decoder_dataset",
    "What the photographs are, as a dataset tag of the hub, for the decoders' cards.",
)
cli.define_artifact_flags()
flags.adopt_module_key_flags(cli)  # So that --help tells them.

flags.register_validator(
    "photos",
    lambda value: value is None or os.path.isdir(value),
    message="must be a folder with photographs",
)
cli.check_weights_flags(("imagenet", "random"), "; for other weights it is known")


def main() -> int:
    return cli.run_tensorflow(_NAME, build, interrupted="the same command goes on where it was.")


def build() -> None:
    """Builds what the flags ask for."""
    from publish import tree
    from unpooling import weights

    training_flags = shlex.split(FLAGS.training_flags)
    reached = weights.layers_of(FLAGS.weights)
    lacking = [layer for layer in FLAGS.layer or () if layer not in reached]
    if lacking:
        raise ValueError(
            f"--weights={FLAGS.weights} reaches to {reached[-1]} only: leave out "
            f"--layer={lacking[0]}, or pass other weights."
        )
    layers = [layer for layer in reached if not FLAGS.layer or layer in FLAGS.layer]
    trained = {layer: path for layer in reached if (path := _trained(layer))}
    untrained = [layer for layer in layers if layer not in trained]
    if untrained and FLAGS.photos is None:
        raise ValueError(
            f"{FLAGS.runs} holds no trained decoder for {', '.join(untrained)}: pass "
            "--photos=FOLDER to train one, or another --runs."
        )
    print(f"layers: {', '.join(layers)}; to be trained: {', '.join(untrained) or 'none'}")

    built = []
    for layer in layers:
        built.append(_build("encoder", layer, FLAGS.weights))
        if layer in untrained:
            trained[layer] = _train(layer, trained, training_flags)
        built.append(_build("decoder", layer, trained[layer]))
    hub = os.path.join(FLAGS.output_dir, "hub")
    for module in tree.add(built, hub, FLAGS.overwrite):
        error = "" if module.error is None else f", error {module.error:.3f}"
        print(f"{module.page.name}: {module.archive_bytes:,} bytes{error}")
    print(f"done: {hub}")


def _trained(layer):
    """The path of the trained decoder, or None; ValueError if it is one of other weights."""
    from training import run_folder
    from unpooling import weights

    found = run_folder.Run(FLAGS.runs, layer)
    if not found.is_finished():
        return None
    encoder = weights.load(FLAGS.weights, layer, FLAGS.seed)
    weights.check_pair(encoder, weights.load_decoder(found.decoder, layer), found.decoder)
    return found.decoder


def _train(layer, trained, training_flags):
    """Trains a decoder, from that of the layer before if there is one, and returns its path."""
    from training import recipe, run_folder

    number = vgg19.LAYERS.index(layer)
    before = trained.get(vgg19.LAYERS[number - 1]) if number else None
    cli.step(
        "train_decoder.py",
        *_encoder_flags(),
        f"--photos={FLAGS.photos}",
        f"--output_dir={FLAGS.runs}",
        *recipe.flags(layer, before),
        *training_flags,
    )
    return run_folder.Run(FLAGS.runs, layer).decoder


def _build(kind, layer, weights):
    """Builds an encoder or a decoder, unless it is there already, and returns its folder."""
    folder = os.path.join(FLAGS.output_dir, vgg19.artifact_name(layer, kind))
    page = {name: str(value) for name, value in cli.page_flags().items()}
    if kind == "decoder":
        page["dataset"] = FLAGS.decoder_dataset
    elif FLAGS.weights in ("imagenet", "random"):
        del page["dataset"]  # It is known.
    if not FLAGS.overwrite and _is_built(folder, layer, weights, page):
        print(f"built already: {folder}", flush=True)
        return folder
    cli.step(
        f"build_{kind}.py",
        f"--layer={layer}",
        *(_encoder_flags() if kind == "encoder" else [f"--weights={weights}"]),
        *(f"--{name}={value}" for name, value in page.items()),
        f"--output_dir={FLAGS.output_dir}",
        *(["--overwrite"] if FLAGS.overwrite else []),
    )
    return folder


def _is_built(folder, layer, weights_source, page):
    """Whether a folder holds the complete artifact of these weights, with this on its card."""
    from export import checksums
    from publish import tree
    from unpooling import weights

    if not os.path.isdir(folder):
        return False
    try:
        module = tree.read_module(folder)
    except ValueError:
        return False
    load = weights.load if module.kind == "encoder" else weights.load_decoder
    loaded = load(weights_source, layer, FLAGS.seed)
    digests = {name: checksums.layer_sha256(*pair) for name, pair in loaded.layers.items()}
    stated = module.manifest["flags"]
    return (
        module.manifest["layer"] == layer
        and module.manifest["weights"]["layers"] == digests
        and module.manifest["weights"]["file_sha256"] == loaded.file_sha256
        and all(str(stated.get(name)) == value for name, value in page.items())
    )


def _encoder_flags():
    seed = [f"--seed={FLAGS.seed}"] if FLAGS.weights == "random" else []
    return [f"--weights={FLAGS.weights}", *seed]


if __name__ == "__main__":
    cli.run(_NAME, main)
