"""What a graph may hold: all that modules use, and nothing else, wherever it hides."""

import pathlib
from unittest import mock

import pytest
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue, NameAttrList
from tensorflow.core.protobuf import saved_model_pb2

from export.verify.checks import verify
from tests import descriptors, forging
from tests.forging import functions
from unpooling import graph
from unpooling.errors import UserError


def read(directory):
    content = pathlib.Path(directory, "saved_model.pb").read_bytes()
    return saved_model_pb2.SavedModel.FromString(content)


@pytest.mark.parametrize("descriptor", descriptors.MODULES, ids=str)
def test_every_kind_of_module_passes(saved_model, descriptor):
    directory = descriptor.directory(saved_model)
    (meta_graph,) = read(directory).meta_graphs
    library = meta_graph.graph_def.library.function
    count = sum(len(f.node_def) for f in library) + len(meta_graph.graph_def.node)
    found = f"{count:,} operations in {len(library)} functions, each of a known kind"
    assert graph.check(directory) == found


# A good module's protocol buffer, changed.


def name_of(meta_graph, role):
    """The name of a function; a role that is no function's stands for itself."""
    return role if role == "gone" else functions(meta_graph, role)[0].signature.name


def place(meta_graph, role):
    """The nodes of a function, or those at the top of the graph."""
    graph_def = meta_graph.graph_def
    return graph_def.node if role == "top" else functions(meta_graph, role)[0].node_def


def put(op, role):
    return lambda m: place(m, role).add(name="hostile", op=op)


def call(callee, caller):
    def change(meta_graph):
        node = place(meta_graph, caller).add(name="hostile", op="StatefulPartitionedCall")
        node.attr["f"].func.name = name_of(meta_graph, callee)

    return change


def attribute(how):
    """The first node of a function calls what saves, by an attribute of another form."""

    def change(meta_graph):
        node, name = place(meta_graph, "features")[0], name_of(meta_graph, "_traced_save")
        if how == "list":
            node.attr["branches"].list.func.add(name=name)
        elif how == "within":
            node.attr["f"].func.attr["g"].func.MergeFrom(NameAttrList(name=name))
        else:
            node.attr["x"].MergeFrom(AttrValue(placeholder="T"))

    return change


def save(meta_graph):
    """The name of the node that saves, as `restore` is that of the node that restores."""
    return meta_graph.saver_def.save_tensor_name.removesuffix(":0")


def restore(meta_graph):
    return meta_graph.saver_def.restore_op_name


def output(form, node=save, signature="features"):
    """What a signature returns is what saves or restores."""

    def change(meta_graph):
        info = next(iter(meta_graph.signature_def[signature].outputs.values()))
        if form == "parts":
            info.coo_sparse.values_tensor_name = f"{node(meta_graph)}:0"
        else:
            info.name = form.format(node(meta_graph))

    return change


def edge(form, node):
    """A call at the top of the graph depends on what saves or restores."""

    def change(meta_graph):
        found = next(n for n in meta_graph.graph_def.node if n.op == "StatefulPartitionedCall")
        found.input.append(form.format(node(meta_graph)))

    return change


def start_with(key, form="{}"):
    """What loads by TensorFlow 1's rules, as TensorFlow Serving does, saves first."""

    def change(meta_graph):
        del meta_graph.signature_def["__saved_model_init_op"]
        meta_graph.collection_def.clear()
        meta_graph.collection_def[key].node_list.value.append(form.format(save(meta_graph)))

    return change


def offer(how, role="_traced_save"):
    """The loaded object holds a function."""

    def change(meta_graph):
        objects, name = meta_graph.object_graph_def, name_of(meta_graph, role)
        if how == "function":
            found = next(n for n in objects.nodes if n.HasField("function"))
            found.function.concrete_functions.append(name)
        elif how == "bare":
            objects.nodes.add().bare_concrete_function.concrete_function_name = name
        elif how == "capture":
            objects.nodes.add().captured_tensor.concrete_function = name
        elif how == "list":
            objects.concrete_functions[name].SetInParent()
        else:
            gradient = meta_graph.graph_def.library.registered_gradients[0]
            gradient.gradient_func = name

    return change


def call_in_a_ring(count):
    """Functions that nothing leads to, but that whoever loads the graph gets."""

    def change(meta_graph):
        for number in range(count):
            function = meta_graph.graph_def.library.function.add()
            function.signature.name = f"__inference_{number}"
            node = function.node_def.add(name="next", op="StatefulPartitionedCall")
            node.attr["f"].func.name = f"__inference_{(number + 1) % count}"

    return change


def add_object(kind="user_object", identifier="_generic_user_object", **fields):
    def change(meta_graph):
        node = meta_graph.object_graph_def.nodes.add(**fields)
        if kind:
            getattr(node, kind).SetInParent()
        if kind == "user_object":
            node.user_object.identifier = identifier

    return change


def shadow(meta_graph):
    """The function that saves takes the name of an operation, which loading turns into a call."""
    top = {node.name: node for node in meta_graph.graph_def.node}
    top[save(meta_graph)].attr["f"].func.name = "Relu"
    functions(meta_graph, "_traced_save")[0].signature.name = "Relu"


def stand_in(meta_graph):
    """TensorFlow's optimizer may put the one function in the place of the other."""
    for role in ("features", "_traced_save"):
        function = functions(meta_graph, role)[0]
        function.attr["api_implements"].s = b"features"
        function.attr["api_preferred_device"].s = b"CPU"


FILES = "which saves or restores variables"
DEPENDS = "what a signature returns depends on saving or restoring variables"
OBJECT = "the loaded object must consist of variables, functions and lists alone. Received: "
NESTED = "attributes within attributes"

CHANGES = {
    # What was done: (how, the words that say so).
    **{
        f"{op} in {role}": (put(op, role), f"holds the operation {op}, which no module uses there")
        for role, ops in {
            "top": "SaveV2 RestoreV2 ReadFile AssignVariableOp MergeV2Checkpoints Relu",
            "features": "SaveV2 RestoreV2 AssignVariableOp VarHandleOp Placeholder PartitionedCall "
            "WriteFile PyFunc _Recv CollectiveReduce RegisterDatasetV2 DecodePng",
            "internal_grad_fn": "SaveV2 ReadFile EagerPyFunc",
            "_traced_save": "RestoreV2 AssignVariableOp WriteFile StatefulPartitionedCall",
            "_traced_restore": "SaveV2 MergeV2Checkpoints ReadFile StatefulPartitionedCall",
        }.items()
        for op in ops.split()
    },
    "an operation without a name": (put("", "features"), "holds the operation , which no module"),
    "a call of saving": (call("_traced_save", "features"), FILES),
    "a call of restoring": (call("_traced_restore", "features"), FILES),
    "a call of saving in a gradient": (call("_traced_save", "internal_grad_fn"), FILES),
    "a call of saving at the top": (call("_traced_save", "top"), "the graph calls __inference_"),
    "a call of restoring at the top": (call("_traced_restore", "top"), FILES),
    "a call of saving in a list": (attribute("list"), FILES),
    "a call of nothing": (call("gone", "features"), "calls gone, which does not exist"),
    "a call of nothing at the top": (call("gone", "top"), "the graph calls gone, which does not"),
    "a call within an attribute": (attribute("within"), NESTED),
    "a place for an attribute": (attribute("place"), NESTED),
    "saving returned": (output("{}:0"), DEPENDS),
    "saving returned by control": (output("^{}"), DEPENDS),
    "saving returned in parts": (output("parts"), "something other than plain tensors"),
    "restoring returned": (output("{}:0", restore, "serving_default"), DEPENDS),
    "saving on loading": (output("{}:0", save, "__saved_model_init_op"), DEPENDS),
    "saving before an output": (edge("^{}", save), DEPENDS),
    "restoring before an output": (edge("^{}", restore), DEPENDS),
    "saving as an input": (edge("{}:0", save), DEPENDS),
    "saving as the main operation": (start_with("saved_model_main_op"), DEPENDS),
    "saving before the main operation": (start_with("saved_model_main_op", "^{}"), DEPENDS),
    "saving as the main operation of old": (start_with("legacy_init_op"), "no collection legacy_"),
    "saving offered": (offer("function"), "the loaded object calls __inference__traced_save"),
    "restoring offered": (offer("function", "_traced_restore"), FILES),
    "saving offered bare": (offer("bare"), FILES),
    "nothing offered bare": (offer("bare", "gone"), "calls gone, which does not exist"),
    "saving listed": (offer("list"), FILES),
    "saving captured from": (offer("capture"), FILES),
    "saving as a gradient": (offer("gradient"), "a gradient calls __inference__traced_sav"),
    "nothing as a gradient": (offer("gradient", "gone"), "a gradient calls gone, which does not"),
    "a gradient of old": (
        lambda m: m.graph_def.library.gradient.add(function_name="x", gradient_func="y"),
        "a gradient by TensorFlow 1's rules",
    ),
    "saving in the place of an operation": (shadow, "Relu may be taken for another operation"),
    "saving in the place of a function": (stand_in, "may be taken for another operation or func"),
    "a call of itself": (call("features", "features"), "calls itself"),
    "calls in a ring": (call_in_a_ring(3000), "calls itself"),
    "a function twice": (
        lambda m: m.graph_def.library.function.add().CopyFrom(functions(m, "features")[0]),
        "the graph defines a function twice",
    ),
    "an asset": (lambda m: m.asset_file_def.add(filename="words.txt"), "no asset files"),
    "a collection of bytes": (
        lambda m: m.collection_def["saved_model_main_op"].bytes_list.value.append(b"x"),
        "a module has no collection saved_model_main_op",
    ),
    "an object that is an asset": (add_object("asset"), f"{OBJECT}asset"),
    "an object that is a resource": (add_object("resource"), f"{OBJECT}resource"),
    "an object that is a constant": (add_object("constant"), f"{OBJECT}constant"),
    "an object that is nothing": (add_object(None), f"{OBJECT}nothing"),
    "an object of Keras": (add_object(identifier="_tf_keras_layer"), f"{OBJECT}_tf_keras_layer"),
    "a registered class": (add_object(registered_name="P.Class"), " P.Class"),
    "a registered saver": (add_object(registered_saver="P.saver"), " P.saver"),
    "no object": (lambda m: m.ClearField("object_graph_def"), "a model of TensorFlow 1"),
    "another tag": (lambda m: m.meta_info_def.tags.append("train"), "Received: [['serve', 'train'"),
    "no tag": (lambda m: m.meta_info_def.ClearField("tags"), "tagged `serve`. Received: [[]]"),
}


@pytest.fixture(scope="module")
def files(build, build_decoder):
    """The files of an encoder, and those of a decoder, which has gradients of its own."""
    folders = {"encoder": build("block2_conv2"), "decoder": build_decoder("block2_conv2")}
    return {kind: forging.files_of(folder, kind) for kind, folder in folders.items()}


@pytest.mark.parametrize("name", ["nothing", *CHANGES])
def test_a_graph_that_was_changed_is_refused_in_words(files, tmp_path, name):
    change, words = CHANGES.get(name, (lambda meta_graph: None, "each of a known kind"))
    changed = forging.with_graph(files["decoder" if "grad" in name else "encoder"], change)
    (tmp_path / forging.GRAPH).write_bytes(changed[forging.GRAPH])
    try:
        found = graph.check(str(tmp_path))
        assert name == "nothing"
    except UserError as error:
        found = str(error)
    assert words in found
    assert found.isprintable()


def test_two_graphs_and_what_is_no_protocol_buffer_are_refused(saved_model, tmp_path):
    (one,) = read(saved_model("block1_conv2")).meta_graphs
    two = saved_model_pb2.SavedModel(meta_graphs=[one, one])
    for content, words in (
        (two.SerializeToString(), r"there must be one graph, tagged `serve`\. Received: \["),
        (b"no graph", r"^saved_model\.pb is not a SavedModel \("),
        (b"\x12\x7f", r"^saved_model\.pb is not a SavedModel \("),
    ):
        (tmp_path / "saved_model.pb").write_bytes(content)
        with pytest.raises(UserError, match=words):
            graph.check(str(tmp_path))


def test_an_archive_with_a_changed_graph_is_refused_before_it_is_loaded(files, tmp_path):
    change, words = CHANGES["WriteFile in features"]
    path = forging.packed(forging.with_graph(files["encoder"], change), tmp_path / "encoder.tar.gz")
    with mock.patch.object(tf.saved_model, "load") as load:
        *_, last = verify(path)
    load.assert_not_called()
    assert (last.name, last.outcome, words in last.detail) == ("graph", "failed", True)
