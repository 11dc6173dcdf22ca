"""Which operations the graph of a module may hold, checked before any of it is loaded.

Loading a SavedModel runs its graph, and TensorFlow has operations that read and write files, open
connections and call Python; see
https://github.com/tensorflow/tensorflow/blob/master/SECURITY.md. Encoders and decoders use none of
them.
"""

import graphlib
import os
import re

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from unpooling.errors import UserError

__all__ = ["check"]

# By place: at the top of the graph, in the functions that compute, and in the two functions with
# which TensorFlow saves and restores variables, the only ones that touch files.
_TENSORFLOW = "2.21"  # the latest version whose operations are listed here
_TOP = frozenset(
    "Const NoOp Placeholder ReadVariableOp StatefulPartitionedCall VarHandleOp".split()
)
_COMPUTING = frozenset(
    """
    AddV2 All Assert BiasAdd BitwiseAnd Cast ConcatV2 Const Conv2D DeviceIndex EnsureShape Equal
    Fill FloorDiv FloorMod GatherV2 GreaterEqual Identity IdentityN Less LessEqual LogicalAnd
    LogicalOr MaxPool MaxPoolWithArgmax Mul NoOp Pack PlaceholderWithDefault Range
    ReadVariableOp Relu Reshape SelectV2 Shape Size StatefulPartitionedCall StatelessCase
    StopGradient StridedSlice Sub Tile Unpack ZerosLike
    """.split()
)
_SAVING = frozenset(
    """
    Const DisableCopyOnRead Identity MergeV2Checkpoints NoOp Pack ReadVariableOp SaveV2 Select
    ShardedFilename StaticRegexFullMatch StringJoin
    """.split()
)
_RESTORING = frozenset("AssignVariableOp Const Identity NoOp RestoreV2".split())

# No operation has such a name, and without other attributes TensorFlow's optimizer does not put
# one function in the place of another.
_FUNCTION = re.compile(r"__inference_\w+|switch_case\w*_branch\d+_\d+", re.ASCII)
_FUNCTION_ATTRIBUTES = frozenset(["_construction_context", "_input_shapes"])

# The parts of the loaded object: no assets, tables, or classes of a library.
_OBJECTS = frozenset("bare_concrete_function captured_tensor function variable".split())
_CLASSES = frozenset("_generic_user_object signature_map trackable_list_wrapper".split())


def check(directory: str) -> str:
    """Checks the graph of a SavedModel without loading it.

    Args:
      directory: the SavedModel's folder.

    Returns:
      What was found, in a few words.

    Raises:
      UserError: names what encoders and decoders never use: an operation, a kind of object, an
        asset, a function that calls itself or does not exist.
      OSError: if there is no saved_model.pb that can be read.
    """
    model = saved_model_pb2.SavedModel()
    try:
        with open(os.path.join(directory, "saved_model.pb"), "rb") as file:
            model.ParseFromString(file.read())
    except DecodeError as error:
        raise UserError(f"saved_model.pb is not a SavedModel ({error})") from error
    tags = [list(meta_graph.meta_info_def.tags) for meta_graph in model.meta_graphs]
    if tags != [["serve"]]:
        raise UserError(f"there must be one graph, tagged `serve`. Received: {tags}")
    (meta_graph,) = model.meta_graphs
    if meta_graph.asset_file_def:
        names = [asset.filename for asset in meta_graph.asset_file_def]
        raise UserError(f"a module has no asset files. Received: {', '.join(names)}")
    _check_objects(meta_graph.object_graph_def)
    return _check_operations(meta_graph)


def _check_objects(objects):
    if not objects.nodes:
        raise UserError("there must be an object to load: this is a model of TensorFlow 1")
    for node in objects.nodes:
        kind = node.WhichOneof("kind")
        if kind == "user_object":
            kind = node.user_object.identifier
        if kind not in _OBJECTS | _CLASSES or node.registered_name or node.registered_saver:
            raise UserError(
                "the loaded object must consist of variables, functions and lists alone. "
                f"Received: {kind or 'nothing'} {node.registered_name}{node.registered_saver}"
            )


def _check_operations(meta_graph):
    graph = meta_graph.graph_def
    functions = {function.signature.name: function for function in graph.library.function}
    if len(functions) < len(graph.library.function) or graph.library.gradient:
        raise UserError("the graph defines a function twice, or a gradient by TensorFlow 1's rules")
    file_nodes = _file_nodes(meta_graph)
    file_functions = {
        name: allowed for node, allowed in file_nodes.values() for name in _called(node)
    }

    def check_calls(where, names):
        for name in sorted(names):
            if name not in functions:
                raise UserError(f"{where} calls {name}, which does not exist")
            if name in file_functions:
                raise UserError(f"{where} calls {name}, which saves or restores variables")

    _check_kinds("the graph", graph.node, _TOP)
    for node in graph.node:
        if node.name not in file_nodes:
            check_calls("the graph", _called(node))
    check_calls("the loaded object", _functions_of(meta_graph.object_graph_def))
    check_calls("a gradient", [g.gradient_func for g in graph.library.registered_gradients])
    calls = {}
    for name, function in functions.items():
        _check_kinds(name, function.node_def, file_functions.get(name, _COMPUTING))
        if not _FUNCTION.fullmatch(name) or not _FUNCTION_ATTRIBUTES.issuperset(function.attr):
            raise UserError(f"{name} may be taken for another operation or function")
        calls[name] = {called for node in function.node_def for called in _called(node)}
        check_calls(name, calls[name])
    try:
        graphlib.TopologicalSorter(calls).prepare()
    except graphlib.CycleError as error:
        raise UserError(f"the function {error.args[1][0]} calls itself") from error
    count = len(graph.node) + sum(len(function.node_def) for function in functions.values())
    return f"{count:,} operations in {len(functions)} functions, each of a known kind"


def _check_kinds(where, nodes, allowed):
    for node in nodes:
        if node.op not in allowed:
            raise UserError(
                f"{where} holds the operation {node.op}, which no module uses there, as far as is "
                f"known up to TensorFlow {_TENSORFLOW}"
            )


def _file_nodes(meta_graph):
    """The two nodes that save and restore variables: {name: (node, what its function may hold)}.

    A program that restores by TensorFlow 1's rules runs them by name. Nothing else may depend on
    them.
    """
    saver = meta_graph.saver_def
    allowed = {_node(saver.save_tensor_name): _SAVING, saver.restore_op_name: _RESTORING}
    top = meta_graph.graph_def.node
    nodes = {node.name: (node, allowed[node.name]) for node in top if node.name in allowed}
    used = {_node(tensor) for node in top for tensor in node.input}
    for signature in meta_graph.signature_def.values():
        for info in signature.outputs.values():
            if info.WhichOneof("encoding") != "name":
                raise UserError("a signature returns something other than plain tensors")
            used.add(_node(info.name))
    for key, collection in meta_graph.collection_def.items():
        if key != "saved_model_main_op" or collection.WhichOneof("kind") != "node_list":
            raise UserError(f"a module has no collection {key}")
        used.update(map(_node, collection.node_list.value))
    if not used.isdisjoint(nodes):
        raise UserError("what a signature returns depends on saving or restoring variables")
    return nodes


def _node(tensor):
    """The name of the node that a tensor or a control input comes from."""
    return tensor.lstrip("^").partition(":")[0]


def _called(node):
    """The names of the functions that a node calls."""
    names = set()
    for attribute in node.attr.values():
        functions = [*attribute.list.func]
        if attribute.HasField("func"):
            functions.append(attribute.func)
        if attribute.placeholder or any(function.attr for function in functions):
            raise UserError(f"{node.name} has attributes within attributes, as no module has")
        names.update(function.name for function in functions)
    return names


def _functions_of(objects):
    """The names of the functions that the loaded object consists of."""
    names = set(objects.concrete_functions)
    for node in objects.nodes:
        names.update(node.function.concrete_functions)
        names.add(node.bare_concrete_function.concrete_function_name)
        names.add(node.captured_tensor.concrete_function)
    return names - {""}
