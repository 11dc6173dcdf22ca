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

from export import command, options, vgg19

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
command.define_artifact_flags()
flags.adopt_module_key_flags(command)  # So that --help tells them.

flags.register_validator(
    "weights", bool, message="must be given: the path of a decoder's .h5 file, or `random`"
)
flags.register_multi_flags_validator(
    ["weights", "seed"],
    lambda values: values["weights"] == "random" or not FLAGS["seed"].present,
    message="--seed goes with --weights=random only",
)
flags.register_multi_flags_validator(
    ["weights", "dataset"],
    lambda values: values["weights"] != "random" or not FLAGS["dataset"].present,
    message="--dataset goes with --weights=PATH only",
)


def main() -> int:
    return command.build(_NAME, build, options.files("decoder"))


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
    from export.decoder import Decoder

    directory = os.path.join(FLAGS.output_dir, vgg19.artifact_name(FLAGS.layer, "decoder"))
    files = options.files("decoder")
    with artifact.staged(directory, files, FLAGS.overwrite) as staging:
        path = {name: os.path.join(staging, name) for name in (*files, "saved_model")}

        print(f"weights: {FLAGS.weights}", flush=True)
        loaded = weights.load_decoder(FLAGS.weights, FLAGS.layer, FLAGS.seed)

        print(f"decoder: {FLAGS.layer}", flush=True)
        decoder = Decoder(FLAGS.layer, loaded.layers)

        print("archive: SavedModel, decoder.tar.gz", flush=True)
        saved_model.save_decoder(decoder, path["saved_model"])
        archive.pack(path["saved_model"], path["decoder.tar.gz"])

        print("card: decoder.md, decoder.png", flush=True)
        diagram.draw(FLAGS.layer, path["decoder.png"], "decoder")
        text = card.render_decoder(
            layer=FLAGS.layer,
            weights=loaded,
            archive_path=path["decoder.tar.gz"],
            publisher=FLAGS.publisher,
            model_version=FLAGS.model_version,
            asset_url=FLAGS.asset_url,
            dataset=FLAGS.dataset,
        )
        with open(path["decoder.md"], "w", encoding="utf-8", newline="\n") as file:
            file.write(text)

        print("manifest: decoder.manifest.json, SHA256SUMS", flush=True)
        content = manifest.make(
            kind="decoder",
            layer=FLAGS.layer,
            weights=loaded,
            archive_path=path["decoder.tar.gz"],
            flags=_shaping_flags(),
        )
        manifest.write(content, path["decoder.manifest.json"])
        checksums.write(staging, files[:-1])

        print("verify:", flush=True)
        verify.run_in_fresh_process(path["decoder.tar.gz"])
    return directory


def _shaping_flags() -> dict[str, object]:
    """The flags that a stranger would have to pass to get the same artifact, without any folder."""
    shaping = {
        name: FLAGS[name].value
        for name in ("layer", "weights", "publisher", "model_version", "asset_url")
    }
    if FLAGS.weights == "random":
        shaping["seed"] = FLAGS.seed
    else:
        shaping["weights"] = os.path.basename(FLAGS.weights)
        shaping["dataset"] = FLAGS.dataset
    return shaping


if __name__ == "__main__":
    command.run(_NAME, main)
