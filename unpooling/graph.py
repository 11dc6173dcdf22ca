"""What the graph of a module may hold: looked at before anything of a stranger's is loaded.

Whoever loads a SavedModel runs its graph, and TensorFlow has operations that read and write files,
open connections and call Python; see
https://github.com/tensorflow/tensorflow/blob/master/SECURITY.md. Encoders and decoders use none of
them.
"""

import graphlib
import itertools
import os
import re

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

__all__ = ["check"]

# By where they may stand: at the top of the graph, in the functions that are called, and in the
# two with which TensorFlow saves and restores variables, which alone touch files.
_TOP = frozenset(
    "Const NoOp Placeholder ReadVariableOp StatefulPartitionedCall VarHandleOp".split()
)
_COMPUTING = frozenset(
    """
    AddV2 All Assert BiasAdd BitwiseAnd Cast ConcatV2 Const Conv2D EnsureShape Equal Fill FloorDiv
    FloorMod GatherV2 GreaterEqual Identity IdentityN Less LessEqual LogicalAnd MaxPool MaxPoolGrad
    MaxPoolWithArgmax Mul NoOp Pack Pad PlaceholderWithDefault Range ReadVariableOp Relu Reshape
    SelectV2 Shape Size StatefulPartitionedCall StopGradient StridedSlice Sub Tile Unpack ZerosLike
    """.split()
)
_SAVING = frozenset(
    """
    Const DisableCopyOnRead Identity MergeV2Checkpoints NoOp Pack ReadVariableOp SaveV2 Select
    ShardedFilename StaticRegexFullMatch StringJoin
    """.split()
)
_RESTORING = frozenset("AssignVariableOp Const Identity NoOp RestoreV2".split())

# Functions bear names that no operation has, and say nothing that lets TensorFlow's optimizer put
# one of them in the place of another.
_FUNCTION = re.compile(r"__inference_\w+", re.ASCII)
_FUNCTION_ATTRIBUTES = frozenset(["_construction_context", "_input_shapes"])

# What the loaded object is put together from: no assets, tables, or classes of a library.
_OBJECTS = frozenset("bare_concrete_function captured_tensor function variable".split())
_CLASSES = frozenset("_generic_user_object signature_map trackable_list_wrapper".split())


def check(directory: str) -> str:
    """Looks through a SavedModel without loading it.

    Args:
      directory: the SavedModel's folder.

    Returns:
      What was found, in a few words.

    Raises:
      ValueError: names what encoders and decoders never use: an operation, a kind of object, an
        asset, a function that calls itself or is not there.
    """
    model = saved_model_pb2.SavedModel()
    try:
        with open(os.path.join(directory, "saved_model.pb"), "rb") as file:
            model.ParseFromString(file.read())
    except DecodeError as error:
        raise ValueError(f"saved_model.pb is not a SavedModel ({error})") from error
    if len(model.meta_graphs) != 1 or list(model.meta_graphs[0].meta_info_def.tags) != ["serve"]:
        tags = [list(meta_graph.meta_info_def.tags) for meta_graph in model.meta_graphs]
        raise ValueError(f"there must be one graph, tagged `serve`. Received: {tags}")
    (meta_graph,) = model.meta_graphs
    if meta_graph.asset_file_def:
        names = [asset.filename for asset in meta_graph.asset_file_def]
        raise ValueError(f"a module has no asset files. Received: {', '.join(names)}")
    _check_objects(meta_graph.object_graph_def)
    return _check_operations(meta_graph)


def _check_objects(objects):
    if not objects.nodes:
        raise ValueError("there must be an object to load: this is a model of TensorFlow 1")
    for node in objects.nodes:
        kind = node.WhichOneof("kind")
        if kind == "user_object":
            kind = node.user_object.identifier
        if kind not in _OBJECTS | _CLASSES or node.registered_name or node.registered_saver:
            raise ValueError(
                "the loaded object must be made of variables, functions and lists alone. "
                f"Received: {kind or 'nothing'} {node.registered_name}{node.registered_saver}"
            )


def _check_operations(meta_graph):
    graph = meta_graph.graph_def
    functions = {function.signature.name: function for function in graph.library.function}
    if len(functions) < len(graph.library.function) or graph.library.gradient:
        raise ValueError(
            "the graph defines a function twice, or a gradient by TensorFlow 1's rules"
        )
    for_files = _nodes_for_files(meta_graph)
    saving_or_restoring = {
        name: allowed for node, allowed in for_files.values() for name in _called(node)
    }

    def check_calls(where, names):
        for name in sorted(names):
            if name not in functions:
                raise ValueError(f"{where} calls {name}, which is not there")
            if name in saving_or_restoring:
                raise ValueError(f"{where} calls {name}, which saves or restores variables")

    _check_kinds("the graph", graph.node, _TOP)
    others = (node for node in graph.node if node.name not in for_files)
    check_calls("the graph", itertools.chain.from_iterable(map(_called, others)))
    check_calls("the loaded object", _functions_of(meta_graph.object_graph_def))
    check_calls("a gradient", [g.gradient_func for g in graph.library.registered_gradients])
    calls = {}
    for name, function in functions.items():
        _check_kinds(name, function.node_def, saving_or_restoring.get(name, _COMPUTING))
        if not _FUNCTION.fullmatch(name) or not _FUNCTION_ATTRIBUTES.issuperset(function.attr):
            raise ValueError(f"{name} may be taken for another operation or function")
        calls[name] = {called for node in function.node_def for called in _called(node)}
        check_calls(name, calls[name])
    try:
        graphlib.TopologicalSorter(calls).prepare()
    except graphlib.CycleError as error:
        raise ValueError(f"the function {error.args[1][0]} calls itself") from error
    count = len(graph.node) + sum(len(function.node_def) for function in functions.values())
    return f"{count:,} operations in {len(functions)} functions, each of a kind that is known here"


def _check_kinds(where, nodes, allowed):
    for node in nodes:
        if node.op not in allowed:
            raise ValueError(f"{where} holds the operation {node.op}, which no module uses there")


def _nodes_for_files(meta_graph):
    """The two nodes that save and restore variables: {name: (node, what its function may hold)}.

    Whoever restores by TensorFlow 1's rules runs them by name; nothing else may lead to them.
    """
    saver = meta_graph.saver_def
    allowed = {
        saver.save_tensor_name.partition(":")[0]: _SAVING,
        saver.restore_op_name: _RESTORING,
    }
    nodes = {
        node.name: (node, allowed[node.name])
        for node in meta_graph.graph_def.node
        if node.name in allowed
    }
    used = {
        tensor.lstrip("^").partition(":")[0]
        for node in meta_graph.graph_def.node
        for tensor in node.input
    }
    for signature in meta_graph.signature_def.values():
        for info in signature.outputs.values():
            if info.WhichOneof("encoding") != "name":
                raise ValueError("a signature returns something else than plain tensors")
            used.add(info.name.lstrip("^").partition(":")[0])
    for key, collection in meta_graph.collection_def.items():
        if key != "saved_model_main_op" or collection.WhichOneof("kind") != "node_list":
            raise ValueError(f"a module has no collection {key}")
        used.update(name.lstrip("^").partition(":")[0] for name in collection.node_list.value)
    if not used.isdisjoint(nodes):
        raise ValueError("what a signature returns depends on saving or restoring variables")
    return nodes


def _called(node):
    """The names of the functions that a node calls."""
    for attribute in node.attr.values():
        functions = [
            *attribute.list.func,
            *([attribute.func] if attribute.HasField("func") else []),
        ]
        if attribute.placeholder or any(function.attr for function in functions):
            raise ValueError(f"{node.name} has attributes within attributes, as no module has")
        yield from (function.name for function in functions)


def _functions_of(objects):
    """The names of the functions that the loaded object is made of."""
    names = set(objects.concrete_functions)
    for node in objects.nodes:
        names.update(node.function.concrete_functions)
        names.add(node.bare_concrete_function.concrete_function_name)
        names.add(node.captured_tensor.concrete_function)
    return names - {""}
