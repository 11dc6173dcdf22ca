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

from export import command, options, vgg19

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
flags.DEFINE_enum("index_dtype", "int64", options.INDEX_DTYPES, "The dtype of the index tuples.")
flags.DEFINE_enum(
    "pooling",
    "argmax",
    options.ENGINES,
    "What finds the maxima: tf.nn.max_pool_with_argmax, or operations that XLA can compile.",
)
command.define_artifact_flags()
flags.adopt_module_key_flags(command)  # So that --help tells them.

flags.register_validator("weights", bool, message="must not be empty")
flags.register_multi_flags_validator(
    ["weights", "seed"],
    lambda values: values["weights"] == "random" or not FLAGS["seed"].present,
    message="--seed goes with --weights=random only",
)
flags.register_multi_flags_validator(
    ["weights", "dataset"],
    lambda values: values["weights"] not in ("imagenet", "random") or not FLAGS["dataset"].present,
    message="--dataset goes with --weights=PATH only; for other weights it is known",
)


def main() -> int:
    return command.build(_NAME, build, options.files("encoder"))


def build() -> str:
    """Builds what the flags ask for and returns the artifact's folder."""
    from export import (
        archive,
        artifact,
        card,
        checksums,
        diagram,
        manifest,
        saved_model,
        verify,
        weights,
    )
    from export.encoder import Encoder

    directory = os.path.join(FLAGS.output_dir, vgg19.artifact_name(FLAGS.layer, "encoder"))
    with artifact.staged(directory, options.files("encoder"), FLAGS.overwrite) as staging:
        path = {
            name: os.path.join(staging, name) for name in (*options.files("encoder"), "saved_model")
        }

        print(f"weights: {FLAGS.weights}", flush=True)
        loaded = weights.load(FLAGS.weights, FLAGS.layer, FLAGS.seed)

        print(
            f"encoder: {FLAGS.layer}, {FLAGS.index_dtype} indices, {FLAGS.pooling} pooling",
            flush=True,
        )
        encoder = Encoder(FLAGS.layer, loaded.layers, FLAGS.index_dtype, FLAGS.pooling)

        print("archive: SavedModel, encoder.tar.gz", flush=True)
        saved_model.save(encoder, path["saved_model"])
        archive.pack(path["saved_model"], path["encoder.tar.gz"])

        print("card: encoder.md, encoder.png", flush=True)
        diagram.draw(FLAGS.layer, path["encoder.png"])
        text = card.render(
            layer=FLAGS.layer,
            index_dtype=FLAGS.index_dtype,
            pooling=FLAGS.pooling,
            weights=loaded,
            archive_path=path["encoder.tar.gz"],
            publisher=FLAGS.publisher,
            model_version=FLAGS.model_version,
            asset_url=FLAGS.asset_url,
            dataset=FLAGS.dataset,
        )
        with open(path["encoder.md"], "w", encoding="utf-8", newline="\n") as file:
            file.write(text)

        print("manifest: encoder.manifest.json, SHA256SUMS", flush=True)
        content = manifest.make(
            layer=FLAGS.layer,
            index_dtype=FLAGS.index_dtype,
            pooling=FLAGS.pooling,
            weights=loaded,
            archive_path=path["encoder.tar.gz"],
            flags=_shaping_flags(),
        )
        manifest.write(content, path["encoder.manifest.json"])
        checksums.write(staging, options.files("encoder")[:-1])

        print("verify:", flush=True)
        verify.run_in_fresh_process(path["encoder.tar.gz"])
    return directory


def _shaping_flags() -> dict[str, object]:
    """The flags that a stranger would have to pass to get the same artifact, without any folder."""
    names = ["layer", "weights", "index_dtype", "pooling", "publisher", "model_version"]
    shaping = {name: FLAGS[name].value for name in [*names, "asset_url"]}
    if FLAGS.weights == "random":
        shaping["seed"] = FLAGS.seed
    elif FLAGS.weights != "imagenet":
        shaping["weights"] = os.path.basename(FLAGS.weights)
        shaping["dataset"] = FLAGS.dataset
    return shaping


if __name__ == "__main__":
    command.run(_NAME, main)
