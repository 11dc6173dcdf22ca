"""Converts an encoder or a decoder for another runtime.

    python convert.py --archive=encoder.tar.gz --format=onnx --output=encoder.onnx

The file is written only when a fresh process has held it against the archive. docs/runtimes.md says
how to load each format.
"""

from absl import flags

from export import cli, formats, licenses

FLAGS = flags.FLAGS

flags.DEFINE_string("archive", None, "The encoder.tar.gz or decoder.tar.gz to convert.")
flags.DEFINE_enum("format", None, list(formats.FORMATS), "What to make of it.")
flags.DEFINE_string(
    "output",
    None,
    "The file to write: .keras, .onnx, .tflite or .safetensors; for --format=keras also a folder.",
)
flags.DEFINE_bool(
    "float16", False, "Of --format=litert: whether to store weights in half the size."
)
flags.DEFINE_enum(
    "license",
    None,
    licenses.NAMES,
    "The license of the weights, for an archive without its manifest.",
)
flags.DEFINE_bool("overwrite", False, "Whether to replace an existing file.")
flags.mark_flags_as_required(["archive", "format", "output"])


def main() -> None:
    formats.convert(
        FLAGS.archive,
        FLAGS.format,
        FLAGS.output,
        float16=FLAGS.float16,
        license=FLAGS.license,
        overwrite=FLAGS.overwrite,
    )
    print(f"done: {FLAGS.output}")


if __name__ == "__main__":
    cli.run("convert", main)
