"""ONNX: the graph, built from the block table with ONNX's own helpers.

The signature `compact`, and only operations that every runtime has: convolutions, comparisons and
selections. Maps have the channels last outside, as in the archive, and first inside.
"""

from collections.abc import Callable, Iterator

import numpy as np

from export.formats.source import Source
from unpooling import vgg19

__all__ = ["OPSET", "runtimes", "write"]

# The oldest that has all operations as they are used here; old ones are known to more runtimes.
OPSET = 13

_TYPES = {"uint8": "UINT8", "float32": "FLOAT"}
_FIRST, _LAST = (0, 3, 1, 2), (0, 2, 3, 1)  # Where channels go.


def write(source: Source, path: str) -> None:
    """Writes a module as an .onnx file.

    Args:
      source: which module.
      path: the file to write.
    """
    import onnx
    from onnx import helper

    graph = _Graph()
    build = _encoder if source.spec.kind == "encoder" else _decoder
    inputs, outputs = build(graph, source)
    model = helper.make_model(
        helper.make_graph(graph.nodes, source.spec.name, inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        # ONNX has had the IR that goes with an opset since the release of that opset.
        ir_version=helper.OP_SET_ID_VERSION_MAP["ai.onnx", OPSET],
        producer_name="unpooling-encoders",
    )
    helper.set_model_props(model, {**source.metadata, "opset": str(OPSET)})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def runtimes(source: Source, path: str) -> Iterator[tuple[str, Callable]]:
    """Yields each runtime that must run the file: its name, and a function of inputs by name."""
    import onnxruntime
    import openvino

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    yield (
        f"ONNX Runtime {onnxruntime.__version__}",
        lambda inputs: dict(zip(names, session.run(None, inputs), strict=True)),
    )
    # Some processors would compute in bfloat16.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(path, "CPU", settings)
    version = openvino.get_version().partition("-")[0]
    yield (
        f"OpenVINO {version}",
        lambda inputs: {
            name: np.array(array) for name, array in zip(names, model(inputs).values(), strict=True)
        },
    )


class _Graph:
    """Nodes and constants, in the order in which they are added."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def add(self, operation, *inputs, output=None, **attributes):
        """Adds a node with one output and returns the name of that."""
        from onnx import helper

        output = output or f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, inputs, [output], output, **attributes))
        return output

    def constant(self, name, array):
        from onnx import numpy_helper

        if name not in (constant.name for constant in self.constants):
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def numbers(self, *numbers):
        """A constant of int64."""
        name = "_".join(["int64", *map(str, numbers)])
        return self.constant(name, np.array(numbers, np.int64))

    def cast(self, values, dtype, **output):
        import onnx

        return self.add("Cast", values, to=getattr(onnx.TensorProto, _TYPES[dtype]), **output)

    def convolution(self, values, name, pair, relu=True):
        """A convolution of a map (B, C, H, W), and its ReLU."""
        kernel = self.constant(f"{name}/kernel", pair[0].transpose(3, 2, 0, 1))
        bias = self.constant(f"{name}/bias", pair[1])
        values = self.add("Conv", values, kernel, bias, pads=[1, 1, 1, 1], kernel_shape=[3, 3])
        return self.add("Relu", values) if relu else values


def _tensor(name, dtype, channels, scale):
    """An input or an output, (B, H/scale, W/scale, C): the sizes are named after that."""
    import onnx
    from onnx import helper

    sides = [f"{side}_{scale}" if scale > 1 else side for side in ("height", "width")]
    kind = getattr(onnx.TensorProto, _TYPES[dtype])
    return helper.make_tensor_value_info(name, kind, ["batch", *sides, channels])


def _encoded(spec):
    """Features and switches, as outputs of an encoder and inputs of a decoder."""
    return [
        _tensor("features", "float32", spec.channels, spec.downsampling),
        *(_tensor(b.switches_name, "uint8", b.channels, 2**b.number) for b in spec.pooled),
    ]


def _encoder(graph, source):
    values = graph.add("Transpose", "images", perm=_FIRST)
    values = graph.add("Gather", values, graph.numbers(2, 1, 0), axis=1)  # BGR
    mean = np.array(vgg19.MEAN_BGR, np.float32).reshape(1, 3, 1, 1)
    values = graph.add("Sub", values, graph.constant("mean", mean))
    for block in source.spec.blocks:
        for convolution in block.convolutions:
            name = convolution.name
            values = graph.convolution(values, name, source.layers[name])
        if block.pooled:
            values = _pool(graph, values, block)
    graph.add("Transpose", values, perm=_LAST, output="features")
    return [_tensor("images", "float32", 3, 1)], _encoded(source.spec)


def _pool(graph, values, block):
    """Returns the maxima, and makes the output with the switches."""
    greatest = wins = None
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        # Up to the last row, so that an odd one is dropped; of an even number it is not a first.
        ends = [2**31 - 1 if offset else -1 for offset in (dy, dx)]
        bounds = ((dy, dx), ends, (2, 3), (2, 2))  # starts, ends, axes, steps
        candidate = graph.add("Slice", values, *(graph.numbers(*numbers) for numbers in bounds))
        if greatest is None:
            greatest = candidate
            continue
        won = graph.add("Less", greatest, candidate)
        greatest = graph.add("Where", won, candidate, greatest)
        number = graph.constant(f"switch_{2 * dy + dx}", np.array(2 * dy + dx, np.float32))
        other = wins or graph.constant("switch_0", np.array(0, np.float32))
        wins = graph.add("Where", won, number, other)
    wins = graph.cast(graph.add("Transpose", wins, perm=_LAST), "uint8", output=block.switches_name)
    return greatest


def _decoder(graph, source):
    blocks = vgg19.mirror(source.spec.layer)
    values = graph.add("Transpose", "features", perm=_FIRST)
    for block in blocks:
        if block.unpooled:
            values = _unpool(graph, values, source.spec.pooled[block.number - 1])
        for convolution in block.convolutions:
            name, last = convolution.name, convolution is blocks[-1].convolutions[-1]
            values = graph.convolution(values, name, source.layers[name], relu=not last)
    graph.add("Transpose", values, perm=_LAST, output="images")
    return _encoded(source.spec), [_tensor("images", "float32", 3, 1)]


def _unpool(graph, values, block):
    """Puts the values of a map (B, C, h, w) where the switches say: (B, C, 2h, 2w)."""
    switches = graph.cast(block.switches_name, "float32")
    switches = graph.add("Transpose", switches, perm=_FIRST)
    zero = graph.constant("zero", np.array(0, np.float32))
    places = []
    for switch in range(4):
        number = graph.constant(f"switch_{switch}", np.array(switch, np.float32))
        won = graph.add("Equal", switches, number)
        places.append(graph.add("Where", won, values, zero))
    # A block of four channels becomes a window of two by two, in row-major order.
    places = graph.add("Concat", *places, axis=1)
    return graph.add("DepthToSpace", places, blocksize=2, mode="DCR")
