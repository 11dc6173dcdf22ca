"""What a graph may hold: all that modules use, and nothing else, wherever it hides."""

import pathlib
from unittest import mock

import pytest
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue, NameAttrList
from tensorflow.core.protobuf import saved_model_pb2

from export.verify.checks import verify
from tests import forging
from tests.forging import functions
from unpooling import graph
from unpooling.errors import UserError

MODULES = [
    ("block1_conv2",),
    *(
        ("block2_conv2", dtype, engine)
        for dtype in ("int64", "int32")
        for engine in ("argmax", "xla")
    ),
    ("block1_conv2", None, None, "decoder"),
    ("block2_conv2", None, None, "decoder"),
]


def read(directory):
    content = pathlib.Path(directory, "saved_model.pb").read_bytes()
    return saved_model_pb2.SavedModel.FromString(content)


def saver_nodes(meta_graph):
    """The names of the nodes that save and restore."""
    saver = meta_graph.saver_def
    return saver.save_tensor_name.removesuffix(":0"), saver.restore_op_name


@pytest.mark.parametrize("which", MODULES)
def test_every_kind_of_module_passes(saved_model, which):
    directory = saved_model(*which)
    (meta_graph,) = read(directory).meta_graphs
    library = meta_graph.graph_def.library.function
    count = sum(len(f.node_def) for f in library) + len(meta_graph.graph_def.node)
    found = f"{count:,} operations in {len(library)} functions, each of a known kind"
    assert graph.check(directory) == found


def test_the_lists_hold_nothing_that_no_module_uses(saved_model):
    used = {"top": set(), "computing": set()}
    for which in MODULES:
        (meta_graph,) = read(saved_model(*which)).meta_graphs
        used["top"] |= {node.op for node in meta_graph.graph_def.node}
        for function in meta_graph.graph_def.library.function:
            used["computing"] |= {node.op for node in function.node_def}
    assert used["top"] >= graph._TOP
    assert used["computing"] >= graph._COMPUTING | graph._SAVING | graph._RESTORING


# Models made with TensorFlow itself.


@tf.custom_gradient
def write_in_the_gradient(values):
    return tf.identity(values), lambda upstream: (tf.io.write_file("gradient", ""), upstream)[1]


HOSTILE = {
    "holds the operation EagerPyFunc": lambda x: tf.py_function(lambda v: v, [x], tf.float32),
    "holds the operation WriteFile": write_in_the_gradient,
    "variables, functions and lists alone. Received: constant": lambda x: x[:0] + CONSTANT,
    "of a known kind": tf.identity,
}
CONSTANT = tf.range(1000.0)[:0]


@pytest.mark.parametrize("words", HOSTILE)
def test_a_model_that_does_more_is_refused(tmp_path, words):
    def call(x):
        HOSTILE[words](x)
        return x * root.v

    root = tf.train.Checkpoint(v=tf.Variable(1.0))
    specs = [tf.TensorSpec((None,), tf.float32)]
    root.__call__ = tf.function(call, input_signature=specs, autograph=False)
    tf.saved_model.save(root, str(tmp_path))
    try:
        found = graph.check(str(tmp_path))
    except UserError as error:
        found = str(error)
    assert words in found


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


def change_node(change):
    """Changes the first node of a function; change(node, the name of the function that saves)."""
    return lambda m: change(place(m, "features")[0], name_of(m, "_traced_save"))


def change_output(form, signature="features", number=0):
    """A signature returns what saves (0) or restores (1)."""

    def change(meta_graph):
        info = next(iter(meta_graph.signature_def[signature].outputs.values()))
        info.name = form.format(saver_nodes(meta_graph)[number])

    return change


def return_in_parts(meta_graph):
    info = meta_graph.signature_def["features"].outputs["features"]
    info.coo_sparse.values_tensor_name = f"{saver_nodes(meta_graph)[0]}:0"


def edge(form, number):
    """A call at the top of the graph depends on what saves (0) or restores (1)."""

    def change(meta_graph):
        node = next(n for n in meta_graph.graph_def.node if n.op == "StatefulPartitionedCall")
        node.input.append(form.format(saver_nodes(meta_graph)[number]))

    return change


def start_with(key, form="{}"):
    """What loads by TensorFlow 1's rules, as TensorFlow Serving does, saves first."""

    def change(meta_graph):
        del meta_graph.signature_def["__saved_model_init_op"]
        meta_graph.collection_def.clear()
        name = form.format(saver_nodes(meta_graph)[0])
        meta_graph.collection_def[key].node_list.value.append(name)

    return change


def offer(add, role="_traced_save"):
    """The loaded object holds a function: add(its nodes, the function's name)."""
    return lambda m: add(m.object_graph_def.nodes, name_of(m, role))


def offer_as_function(nodes, name):
    next(n for n in nodes if n.HasField("function")).function.concrete_functions.append(name)


def offer_bare(nodes, name):
    nodes.add().bare_concrete_function.concrete_function_name = name


def offer_as_capture(nodes, name):
    nodes.add().captured_tensor.concrete_function = name


def derive_by(role):
    def change(meta_graph):
        gradient = meta_graph.graph_def.library.registered_gradients[0]
        gradient.gradient_func = name_of(meta_graph, role)

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


def add_object(kind):
    return lambda m: getattr(m.object_graph_def.nodes.add(), kind).SetInParent()


def add_class(identifier="_generic_user_object", **fields):
    def change(meta_graph):
        meta_graph.object_graph_def.nodes.add(**fields).user_object.identifier = identifier

    return change


def shadow(meta_graph):
    """The function that saves takes the name of an operation, which loading turns into a call."""
    top = {node.name: node for node in meta_graph.graph_def.node}
    top[saver_nodes(meta_graph)[0]].attr["f"].func.name = "Relu"
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
    "a call of saving in a list": (
        change_node(lambda node, name: node.attr["branches"].list.func.add(name=name)),
        FILES,
    ),
    "a call of nothing": (call("gone", "features"), "calls gone, which does not exist"),
    "a call of nothing at the top": (call("gone", "top"), "the graph calls gone, which does not"),
    "a call within an attribute": (
        change_node(
            lambda node, name: node.attr["f"].func.attr["g"].func.MergeFrom(NameAttrList(name=name))
        ),
        NESTED,
    ),
    "a place for an attribute": (
        change_node(lambda node, _: node.attr["x"].MergeFrom(AttrValue(placeholder="T"))),
        NESTED,
    ),
    "saving returned": (change_output("{}:0"), DEPENDS),
    "saving returned by control": (change_output("^{}"), DEPENDS),
    "saving returned in parts": (return_in_parts, "something other than plain tensors"),
    "restoring returned": (change_output("{}:0", "serving_default", 1), DEPENDS),
    "saving on loading": (change_output("{}:0", "__saved_model_init_op"), DEPENDS),
    "saving before an output": (edge("^{}", 0), DEPENDS),
    "restoring before an output": (edge("^{}", 1), DEPENDS),
    "saving as an input": (edge("{}:0", 0), DEPENDS),
    "saving as the main operation": (start_with("saved_model_main_op"), DEPENDS),
    "saving before the main operation": (start_with("saved_model_main_op", "^{}"), DEPENDS),
    "saving as the main operation of old": (start_with("legacy_init_op"), "no collection legacy_"),
    "saving offered": (
        offer(offer_as_function),
        "the loaded object calls __inference__traced_save",
    ),
    "restoring offered": (offer(offer_as_function, "_traced_restore"), FILES),
    "saving offered bare": (offer(offer_bare), FILES),
    "nothing offered bare": (offer(offer_bare, "gone"), "calls gone, which does not exist"),
    "saving listed": (
        lambda m: m.object_graph_def.concrete_functions[name_of(m, "_traced_save")].SetInParent(),
        FILES,
    ),
    "saving captured from": (offer(offer_as_capture), FILES),
    "saving as a gradient": (derive_by("_traced_save"), "a gradient calls __inference__traced_sav"),
    "nothing as a gradient": (derive_by("gone"), "a gradient calls gone, which does not exist"),
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
    "an object that is nothing": (lambda m: m.object_graph_def.nodes.add(), f"{OBJECT}nothing"),
    "an object of Keras": (add_class("_tf_keras_layer"), f"{OBJECT}_tf_keras_layer"),
    "a registered class": (add_class(registered_name="P.Class"), " P.Class"),
    "a registered saver": (add_class(registered_saver="P.saver"), " P.saver"),
    "no object": (lambda m: m.ClearField("object_graph_def"), "a model of TensorFlow 1"),
    "another tag": (
        lambda m: m.meta_info_def.tags.append("train"),
        "there must be one graph, tagged `serve`. Received: [['serve', 'train']]",
    ),
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


def test_two_graphs_are_refused(saved_model, tmp_path):
    one = read(saved_model("block1_conv2"))
    several = saved_model_pb2.SavedModel(meta_graphs=list(one.meta_graphs) * 2)
    (tmp_path / "saved_model.pb").write_bytes(several.SerializeToString())
    with pytest.raises(UserError, match=r"there must be one graph, tagged `serve`\. Received: \["):
        graph.check(str(tmp_path))


@pytest.mark.parametrize("content", [b"no graph", b"\x12\x7f"])
def test_what_is_no_protocol_buffer_is_refused(tmp_path, content):
    (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(UserError, match=r"^saved_model\.pb is not a SavedModel \("):
        graph.check(str(tmp_path))


def test_a_graph_cut_short_anywhere_is_refused(files, tmp_path):
    content = files["encoder"][forging.GRAPH]
    for kept in range(0, len(content), len(content) // 50):
        (tmp_path / "saved_model.pb").write_bytes(content[:kept])
        with pytest.raises(UserError):
            graph.check(str(tmp_path))


def test_an_archive_with_a_changed_graph_is_refused_before_it_is_loaded(files, tmp_path):
    change, words = CHANGES["WriteFile in features"]
    path = forging.packed(forging.with_graph(files["encoder"], change), tmp_path / "encoder.tar.gz")
    with mock.patch.object(tf.saved_model, "load") as load:
        *_, last = verify(path)
    load.assert_not_called()
    assert (last.name, last.outcome, words in last.detail) == ("graph", "failed", True)
