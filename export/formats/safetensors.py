"""safetensors: the weights alone, under the names of the archive."""

import json
from collections.abc import Callable, Iterator

import numpy as np

from export.formats.source import Source
from unpooling import vgg19
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder
from unpooling.errors import UserError

__all__ = ["runtimes", "write"]

_LAYOUT = {
    "names": "LAYER/kernel and LAYER/bias of each convolution, LAYER as in "
    "keras.applications.VGG19, a decoder's with decoder_ in front; after an unpooling one or two "
    "more, with the next numbers, the highest first",
    "layout": "kernel (3, 3, in, out), bias (out,), float32; stride 1, a border of one zero, ReLU "
    "after all but the last of a decoder",
    "preprocessing": "an encoder's input is BGR, 0 to 255, less "
    + ", ".join(map(str, vgg19.MEAN_BGR)),
}


def write(source: Source, path: str) -> None:
    """Writes a module's weights as a .safetensors file.

    The format is described in https://huggingface.co/docs/safetensors. The package `safetensors`
    would order the header at random.

    Args:
      source: which module.
      path: the file to write.
    """
    header, data = {"__metadata__": {**source.metadata, **_LAYOUT}}, bytearray()
    for name, pair in source.layers.items():
        for part, array in zip(("kernel", "bias"), pair, strict=True):
            start = len(data)
            data += np.ascontiguousarray(array, "<f4").tobytes()
            header[f"{name}/{part}"] = {
                "dtype": "F32",
                "shape": array.shape,
                "data_offsets": (start, len(data)),
            }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # Aligned, as the package aligns it.
    with open(path, "xb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)


def runtimes(source: Source, path: str) -> Iterator[tuple[str, Callable]]:
    """Yields what must run the file: its name, and a function of inputs by name."""
    from safetensors.numpy import load_file

    arrays = load_file(path)
    layers = {name: (arrays[f"{name}/kernel"], arrays[f"{name}/bias"]) for name in source.layers}
    for name, pair in layers.items():
        if not all(map(np.array_equal, pair, source.layers[name])):
            raise UserError(f"{path}: the weights of {name} are not those of the archive.")
    if source.spec.kind == "encoder":
        call = Encoder(source.spec.layer, layers).compact
    else:
        call = Decoder(source.spec.layer, layers)

    def run(inputs):
        tensors = [inputs[name] for name in source.inputs]
        outputs = call(tensors if len(tensors) > 1 else tensors[0])
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return dict(zip(source.outputs, map(np.asarray, outputs), strict=True))

    yield "unpooling with these weights", run
