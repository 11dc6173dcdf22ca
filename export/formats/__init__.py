"""The same module for other runtimes: Keras 3 on any backend, ONNX, LiteRT, safetensors.

Each module named after a format has `write`, which writes a file, and `runtimes`, which runs it.
`check` holds the result against the archive. Nothing here needs TensorFlow until it is converted.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator

from export.staging import staged
from unpooling.errors import UserError

__all__ = ["FORMATS", "convert", "module_of"]

# What a file's name must end in.
FORMATS = {"keras": ".keras", "onnx": ".onnx", "litert": ".tflite", "safetensors": ".safetensors"}

# What is needed to write and to check a file, beside TensorFlow.
_PACKAGES = {
    "onnx": ("onnx", "onnxruntime", "openvino"),
    "litert": ("ai_edge_litert",),
    "safetensors": ("safetensors",),
}

# What a .keras file holds. `keras.saving.load_model("hf://...")` reads it from a folder.
_KERAS_FILES = ("config.json", "metadata.json", "model.weights.h5")


def module_of(format: str) -> types.ModuleType:
    """Returns the module that writes and runs a format."""
    return importlib.import_module(f"export.formats.{format}")


def convert(
    archive: str,
    format: str,
    output: str,
    *,
    float16: bool = False,
    license: str | None = None,
    overwrite: bool = False,
) -> None:
    """Converts the module in an archive, and puts the result in place once it has been checked.

    Args:
      archive: an encoder.tar.gz or a decoder.tar.gz.
      format: one of `FORMATS`.
      output: the file to write, with the ending of its format. For "keras", a name without an
        ending is that of a folder for the files that a .keras file holds.
      float16: of "litert", whether to store the weights in half the bytes.
      license: of the weights, for an archive without its manifest, one of `licenses.NAMES`.
      overwrite: whether to replace an existing file.

    Raises:
      UserError: if the archive or the output cannot be used, a package is missing, or the result is
        not the module in the archive. Nothing is left then.
    """
    if format not in FORMATS:
        raise UserError(f"`format` must be one of {', '.join(FORMATS)}. Received: {format}.")
    missing = [p for p in _PACKAGES.get(format, ()) if importlib.util.find_spec(p) is None]
    if missing:
        raise UserError(f'--format={format} needs {", ".join(missing)}: pip install ".[{format}]"')
    if float16 and format != "litert":
        raise UserError(f"--float16 goes with --format=litert only. Received: {format}.")
    folder = format == "keras" and not os.path.splitext(output)[1]
    if not folder and not output.endswith(FORMATS[format]):
        raise UserError(f"--output must end in {FORMATS[format]}. Received: {output}.")
    if folder:
        place = staged(output, _KERAS_FILES, overwrite, flag="--output")
    else:
        place = _staged_file(output, overwrite)
    with place as path:
        from export.formats import source as sources

        print(f"archive: {archive}", flush=True)
        source = sources.read(archive)
        source = dataclasses.replace(source, license=sources.license_of(archive, license))
        print(f"convert: {source.spec} to {format}", flush=True)
        options = {"float16": True} if float16 else {}
        module_of(format).write(source, path, **options)
        print("check:", flush=True)
        _check_in_fresh_process(archive, format, path, float16)


@contextlib.contextmanager
def _staged_file(output: str, overwrite: bool) -> Iterator[str]:
    """Yields the path of a temporary file that becomes `output`: whole or not at all."""
    output = os.path.realpath(output)
    parent, name = os.path.split(output)

    def refuse_existing():
        if os.path.lexists(output) and not (overwrite and os.path.isfile(output)):
            advice = "choose another --output" if overwrite else "pass --overwrite to replace it"
            raise UserError(f"{output} already exists: {advice}.")

    refuse_existing()
    try:
        temporary = tempfile.TemporaryDirectory(prefix=f".{name}.partial-", dir=parent)
    except OSError as error:
        raise UserError(f"{output} cannot be made ({error.strerror}).") from error
    with temporary as directory:
        path = os.path.join(directory, name)
        yield path
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        refuse_existing()
        os.replace(path, output)


def _check_in_fresh_process(archive, format, path, float16):
    command = [sys.executable, "-m", "export.formats", os.path.abspath(archive), format, path]
    with subprocess.Popen(
        command + ["float16"] * float16,
        cwd=pathlib.Path(__file__).parent.parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        reason = "the check did not come to its end"
        for line in process.stdout:
            print(f"  {line}", end="", flush=True)
            if line.startswith("FAILED"):
                reason = line.removeprefix("FAILED").strip()
    if process.returncode != 0:
        raise UserError(f"the converted module is not that of the archive: {reason}")
