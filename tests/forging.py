"""Good modules with something changed, for the tests of what must refuse them."""

import pathlib
import struct
import tempfile
import zlib

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from export.archive import pack
from unpooling.archive import read

GRAPH = "saved_model.pb"
VARIABLES = "variables/variables"
DATA = f"{VARIABLES}.data-00000-of-00001"


def files_of(folder, kind="encoder"):
    """The files in the archive of an artifact's folder: {name: bytes}."""
    return read(str(pathlib.Path(folder, f"{kind}.tar.gz"))).members


def write(files, directory):
    """Writes the files of a module into a folder."""
    for name, content in files.items():
        path = pathlib.Path(directory, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def packed(files, path):
    """Packs the files of a module as the builder does, and returns the path."""
    with tempfile.TemporaryDirectory() as directory:
        write(files, directory)
        pack(directory, str(path))
    return str(path)


def in_gzip(tar, *, level=9, flags=0, time=0, end=b"\x02\xff", extra=b""):
    """These bytes in gzip, byte by byte as RFC 1952 has it, by default as `pack` does."""
    header = b"\x1f\x8b\x08" + bytes([flags]) + struct.pack("<I", time) + end + extra
    deflate = zlib.compressobj(level, wbits=-zlib.MAX_WBITS)
    sums = struct.pack("<II", zlib.crc32(tar), len(tar))
    return header + deflate.compress(tar) + deflate.flush() + sums


def with_graph(files, change):
    """Files whose graph is changed by `change(meta_graph)`."""
    model = saved_model_pb2.SavedModel.FromString(files[GRAPH])
    change(model.meta_graphs[0])
    return {**files, GRAPH: model.SerializeToString(deterministic=True)}


def with_weights(files, change):
    """Files whose variables, {"variables/0": array}, are changed in place by `change(values)`."""
    ending = "/.ATTRIBUTES/VARIABLE_VALUE"
    with tempfile.TemporaryDirectory() as directory:
        write(files, directory)
        prefix = f"{directory}/{VARIABLES}"
        reader = tf.train.load_checkpoint(prefix)
        tensors = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        change({n.removesuffix(ending): tensors[n] for n in tensors if n.startswith("variables/")})
        names = sorted(tensors)
        tensors = [tensors[name] for name in names]
        slices = [""] * len(names)
        tf.raw_ops.SaveV2(
            prefix=prefix, tensor_names=names, shape_and_slices=slices, tensors=tensors
        )
        return {name: pathlib.Path(directory, name).read_bytes() for name in files}


def functions(meta_graph, role):
    """The functions that are named so: "serve", "features", "_traced_save", "_traced_restore"."""
    prefix = f"__inference_{role}_" if role else ""
    library = meta_graph.graph_def.library.function
    found = [function for function in library if function.signature.name.startswith(prefix)]
    assert found
    return found


def nodes(meta_graph, role, op):
    """The nodes of one kind in the functions that are named so."""
    found = [n for f in functions(meta_graph, role) for n in f.node_def if n.op == op]
    assert found
    return found


def replace(role, op, other):
    """A change of a graph: another operation with the same inputs in some functions."""

    def change(meta_graph):
        for node in nodes(meta_graph, role, op):
            node.op = other

    return change


def stack_otherwise(role, order):
    """A change of a graph: as many tensors stacked along the last axis, in another order."""

    def change(meta_graph):
        stacks = [n for n in nodes(meta_graph, role, "Pack") if n.attr["axis"].i != 0]
        stacks = [node for node in stacks if len(node.input) == len(order)]
        assert stacks
        for node in stacks:
            node.input[:] = [node.input[i] for i in order]

    return change


def set_constants(role, matches, value):
    """A change of a graph: another value of the constants for which `matches(array)`."""

    def change(meta_graph):
        tensors = [node.attr["value"].tensor for node in nodes(meta_graph, role, "Const")]
        found = [tensor for tensor in tensors if matches(tf.make_ndarray(tensor))]
        assert found
        for tensor in found:
            array = tf.make_ndarray(tensor)
            made = tf.make_tensor_proto(np.full(array.shape, value, array.dtype))
            tensor.CopyFrom(made)

    return change
