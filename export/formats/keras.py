"""Keras: `unpooling.layers`, as a .keras file or as the folder of the same files."""

import itertools
import json
import os
import re
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator

import keras

from export.formats.source import Source
from unpooling import layers

__all__ = ["model_of", "runtimes", "write"]


def model_of(source: Source) -> keras.Model:
    """Returns the Keras model of a module."""
    make = layers.encoder_model if source.spec.kind == "encoder" else layers.decoder_model
    return make(source.spec.layer, source.layers)


def write(source: Source, path: str) -> None:
    """Writes a module as a .keras file, or its files into the folder `path`: the same bytes always.

    Args:
      source: which module.
      path: the file to write, or a folder that exists.
    """
    with tempfile.TemporaryDirectory() as directory:
        saved = os.path.join(directory, "model.keras")
        model_of(source).save(saved)
        with zipfile.ZipFile(saved) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
    numbers = defaultdict(itertools.count().__next__)  # In place of addresses in the memory.
    contents["config.json"] = re.sub(
        rb'(?<="shared_object_id": )\d+',
        lambda match: str(numbers[match[0]]).encode(),
        contents["config.json"],
    )
    metadata = json.loads(contents["metadata.json"])
    del metadata["date_saved"]
    contents["metadata.json"] = json.dumps(metadata).encode()
    if os.path.isdir(path):
        for name, content in contents.items():
            with open(os.path.join(path, name), "xb") as file:
                file.write(content)
        return
    with zipfile.ZipFile(path, "x") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # ZipInfo's date is that of 1980.


def runtimes(source: Source, path: str) -> Iterator[tuple[str, Callable]]:
    """Yields what must run the file: its name, and a function of inputs by name."""
    model = keras.saving.load_model(path)

    def run(inputs):
        tensors = [inputs[name] for name in source.inputs]
        outputs = model(tensors if len(tensors) > 1 else tensors[0])
        outputs = outputs if isinstance(outputs, list) else [outputs]
        arrays = map(keras.ops.convert_to_numpy, outputs)
        return dict(zip(source.outputs, arrays, strict=True))

    yield f"Keras {keras.__version__} on {keras.backend.backend()}", run
