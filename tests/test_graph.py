"""What a graph may hold: all that our modules use, and nothing else, wherever it hides."""

import functools
import itertools
import pathlib
import shutil
from unittest import mock

import keras
import pytest
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.protobuf import saved_model_pb2

from export import fingerprint, saved_model, spec, verify
from unpooling import archive, graph, weights
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder

# Every kind of encoder up to block3; block1 pools nothing, so it is the same in any case. And
# decoders.
KINDS = [
    ("block1_conv2", "int64", "argmax"),
    *itertools.product(["block2_conv2", "block3_conv2"], spec.INDEX_DTYPES, spec.ENGINES),
    ("block1_conv2", None, None),
    ("block3_conv2", None, None),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Saves an encoder, or without a dtype a decoder, and returns its folder; each only once."""

    @functools.cache
    def save(layer="block2_conv2", index_dtype="int64", engine="argmax"):
        directory = str(tmp_path_factory.mktemp("model") / "model")
        if index_dtype is None:
            decoder = Decoder(layer, weights.load_decoder("random", layer).layers)
            saved_model.save_decoder(decoder, directory)
        else:
            layers = weights.load("random", layer, 0).layers
            saved_model.save(Encoder(layer, layers, index_dtype, engine), directory)
        return directory

    return save


def read(directory):
    content = pathlib.Path(directory, "saved_model.pb").read_bytes()
    return saved_model_pb2.SavedModel.FromString(content)


def roles(meta_graph):
    """The nodes by where they stand: {"top", "computing", "saving", "restoring": [nodes]}."""
    top = {node.name: node for node in meta_graph.graph_def.node}
    saver = meta_graph.saver_def
    saving = top[saver.save_tensor_name.removesuffix(":0")].attr["f"].func.name
    restoring = top[saver.restore_op_name].attr["f"].func.name
    found = {"top": list(top.values()), "computing": [], "saving": [], "restoring": []}
    for function in meta_graph.graph_def.library.function:
        role = {saving: "saving", restoring: "restoring"}.get(function.signature.name, "computing")
        found[role].extend(function.node_def)
    return found


@pytest.mark.parametrize(("layer", "index_dtype", "engine"), KINDS)
def test_every_kind_of_module_passes(model, layer, index_dtype, engine):
    directory = model(layer, index_dtype, engine)
    (meta_graph,) = read(directory).meta_graphs
    count = sum(map(len, roles(meta_graph).values()))
    functions = len(meta_graph.graph_def.library.function)

    assert graph.check(directory) == (
        f"{count:,} operations in {functions} functions, each of a kind that is known here"
    )


def test_the_lists_hold_what_modules_use_and_nothing_else(model):
    used = {"top": set(), "computing": set(), "saving": set(), "restoring": set()}
    for kind in KINDS:
        for role, nodes in roles(read(model(*kind)).meta_graphs[0]).items():
            used[role] |= {node.op for node in nodes}

    assert used["top"] == graph._TOP
    assert used["computing"] == graph._COMPUTING
    assert used["saving"] == graph._SAVING
    assert used["restoring"] == graph._RESTORING


def test_the_kinds_of_objects_are_those_that_modules_use_and_nothing_else(model):
    kinds, classes = set(), set()
    for kind in KINDS:
        for node in read(model(*kind)).meta_graphs[0].object_graph_def.nodes:
            if node.WhichOneof("kind") == "user_object":
                classes.add(node.user_object.identifier)
            else:
                kinds.add(node.WhichOneof("kind"))

    assert kinds == graph._OBJECTS
    assert classes == graph._CLASSES


def test_no_operation_that_computes_touches_files_or_the_network_or_python():
    # In words, lest a list grows by what a later TensorFlow happens to write.
    for op in graph._TOP | graph._COMPUTING:
        for word in "File Save Restore Read Write Merge Send Recv Py Print Debug Dataset".split():
            assert word not in op or op == "ReadVariableOp", op


# Models made with TensorFlow itself, encoders but for one operation.


@pytest.fixture
def hostile_model(tmp_path, monkeypatch):
    """Saves an encoder whose root has been tampered with; returns the folder."""
    save = tf.saved_model.save

    def make(tamper):
        def save_tampered(root, directory, signatures):
            tamper(root)
            save(root, directory, signatures=signatures)

        monkeypatch.setattr(tf.saved_model, "save", save_tampered)
        layers = weights.load("random", "block1_conv2", 0).layers
        saved_model.save(Encoder("block1_conv2", layers), str(tmp_path / "model"))
        return str(tmp_path / "model")

    return make


def along(operation):
    """Tampering that runs `operation` on the features of a call, and forgets what it returns."""

    def tamper(root):
        call = root.__call__

        def hostile(images):
            features = call(images)
            operation(features)
            return features

        root.__call__ = tf.function(hostile, input_signature=call.input_signature, autograph=False)

    return tamper


@tf.custom_gradient
def write_in_the_gradient(values):
    def gradient(upstream):
        tf.io.write_file("gradient", "")
        return upstream

    return tf.identity(values), gradient


def in_one_tensor(op, x, **arguments):
    return op(prefix="outside", tensor_names=["x"], shape_and_slices=[""], **arguments)


HOSTILE = {
    # What it does: (how, the operation that is named).
    "reads a file": (lambda x: tf.io.read_file("secret"), "ReadFile"),
    "writes a file": (lambda x: tf.io.write_file("outside", "evil"), "WriteFile"),
    "lists files": (lambda x: tf.io.matching_files("/*"), "MatchingFiles"),
    "reads records": (lambda x: tf.raw_ops.WholeFileReaderV2(), "WholeFileReaderV2"),
    "writes a checkpoint": (
        lambda x: in_one_tensor(tf.raw_ops.SaveV2, x, tensors=[x]),
        "SaveV2",
    ),
    "reads a checkpoint": (
        lambda x: in_one_tensor(tf.raw_ops.RestoreV2, x, dtypes=[tf.float32]),
        "RestoreV2",
    ),
    "writes a summary": (lambda x: tf.raw_ops.SummaryWriter(), "SummaryWriter"),
    "dumps a tensor": (
        lambda x: tf.raw_ops.DebugIdentityV2(input=x, debug_urls=["file://outside"]),
        "DebugIdentityV2",
    ),
    "calls Python": (lambda x: tf.py_function(lambda v: v, [x], tf.float32), "EagerPyFunc"),
    "calls NumPy": (lambda x: tf.numpy_function(lambda v: v, [x], tf.float32), "PyFunc"),
    "prints": (lambda x: tf.raw_ops.PrintV2(input="evil", output_stream="stderr"), "PrintV2"),
    "prints a tensor": (tf.print, "StringFormat"),
    "receives": (
        lambda x: tf.raw_ops.Recv(
            tensor_type=tf.float32,
            tensor_name="x",
            send_device="/job:evil",
            send_device_incarnation=0,
            recv_device="/job:here",
        ),
        "_HostRecv|_Recv|Recv",
    ),
    "talks to other hosts": (
        lambda x: tf.raw_ops.CollectiveReduce(
            input=x,
            group_size=2,
            group_key=1,
            instance_key=1,
            merge_op="Add",
            final_op="Id",
            subdiv_offsets=[0],
        ),
        "CollectiveReduce",
    ),
    "asks a data service": (
        lambda x: tf.raw_ops.RegisterDatasetV2(
            dataset=tf.data.Dataset.range(1)._variant_tensor,
            address="evil:1",
            protocol="grpc",
            external_state_policy=0,
        ),
        "RangeDataset",  # It stands in front of RegisterDatasetV2.
    ),
    "reads a data set": (lambda x: tf.data.TextLineDataset("secret"), "TextLineDataset"),
    "decodes a picture": (lambda x: tf.io.decode_png(tf.constant(b"")), "DecodePng"),
    "decodes a tensor": (lambda x: tf.io.parse_tensor(tf.constant(b""), tf.int32), "ParseTensor"),
    "loops": (
        lambda x: tf.while_loop(lambda i: True, lambda i: [i + 1], [tf.constant(0)]),
        "StatelessWhile",
    ),
    "branches": (lambda x: tf.cond(x[0, 0, 0, 0] > 0, lambda: x, lambda: -x), "Greater"),
    "draws lots": (lambda x: tf.random.uniform([3]), "RandomUniform"),
    "writes in the gradient": (write_in_the_gradient, "WriteFile"),
}


@pytest.mark.parametrize(("operation", "name"), HOSTILE.values(), ids=HOSTILE)
def test_a_model_that_does_more_is_refused_by_the_operation(hostile_model, operation, name):
    with pytest.raises(ValueError, match=rf"^__inference_\w*\W*\w* holds the operation ({name}), "):
        graph.check(hostile_model(along(operation)))


def test_what_is_added_to_the_call_of_these_models_is_what_is_refused(hostile_model):
    assert "each of a kind" in graph.check(hostile_model(along(tf.nn.relu)))


def add_a_table(root):
    keys, values = tf.constant(["a"]), tf.constant([1])
    root.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), 0)


def add_a_table_from_a_file(root, path):
    path.write_text("words\n")
    initializer = tf.lookup.TextFileInitializer(
        str(path),
        tf.string,
        tf.lookup.TextFileIndex.WHOLE_LINE,
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    root.table = tf.lookup.StaticHashTable(initializer, 0)


def add_an_asset(root, path):
    path.write_text("words\n")
    root.asset = tf.saved_model.Asset(str(path))


def test_a_model_with_a_table_is_refused(hostile_model):
    with pytest.raises(ValueError, match=r"made of variables, functions and lists.*: resource"):
        graph.check(hostile_model(add_a_table))


@pytest.mark.parametrize("add", [add_an_asset, add_a_table_from_a_file])
def test_a_model_with_an_asset_is_refused(hostile_model, tmp_path, add):
    with pytest.raises(ValueError, match=r"a module has no asset files\. Received: words\.txt"):
        graph.check(hostile_model(lambda root: add(root, tmp_path / "words.txt")))


def test_a_model_that_holds_a_constant_from_outside_is_refused(hostile_model):
    constant = tf.range(1000)
    with pytest.raises(ValueError, match=r"made of variables, functions and lists.*: constant"):
        graph.check(hostile_model(along(lambda x: constant + 1)))


def test_a_keras_model_is_refused(tmp_path):
    tf.saved_model.save(
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), str(tmp_path / "model")
    )
    with pytest.raises(ValueError, match=r"loaded object must be made of|holds the operation"):
        graph.check(str(tmp_path / "model"))


# A good model's protocol buffer, changed by hand.


def functions(meta_graph, role):
    """The functions that begin so: "serve", "features", "_traced_save", "_traced_restore"."""
    prefix = f"__inference_{role}_"
    found = [
        f for f in meta_graph.graph_def.library.function if f.signature.name.startswith(prefix)
    ]
    assert found
    return found


def saver_nodes(meta_graph):
    """The names of the nodes that save and restore."""
    saver = meta_graph.saver_def
    return saver.save_tensor_name.removesuffix(":0"), saver.restore_op_name


def add_call(nodes, name, attribute="f"):
    node = nodes.add(name="hostile", op="StatefulPartitionedCall")
    node.attr[attribute].func.name = name


def put(op, role):
    """An operation in a function, or at the top of the graph."""

    def change(meta_graph):
        place = (
            meta_graph.graph_def.node if role == "top" else functions(meta_graph, role)[0].node_def
        )
        place.add(name="hostile", op=op)

    return change


def call(callee, caller):
    """A call of one function in another, or at the top of the graph."""

    def change(meta_graph):
        place = (
            meta_graph.graph_def.node
            if caller == "top"
            else functions(meta_graph, caller)[0].node_def
        )
        found = functions(meta_graph, callee)[0].signature.name if callee[0] != "!" else callee[1:]
        add_call(place, found)

    return change


def call_in_a_list(meta_graph):
    node = functions(meta_graph, "features")[0].node_def.add(name="hostile", op="Identity")
    node.attr["branches"].list.func.add(
        name=functions(meta_graph, "_traced_save")[0].signature.name
    )


def call_beside_an_operation(meta_graph):
    node = functions(meta_graph, "features")[0].node_def[0]
    node.attr["hostile"].func.name = functions(meta_graph, "_traced_save")[0].signature.name


def return_from(number, signature):
    def change(meta_graph):
        (info,) = list(meta_graph.signature_def[signature].outputs.values())[:1]
        info.name = f"{saver_nodes(meta_graph)[number]}:0"

    return change


def return_in_parts(meta_graph):
    (info,) = meta_graph.signature_def["features"].outputs.values()
    info.name = ""
    info.coo_sparse.values_tensor_name = f"{saver_nodes(meta_graph)[0]}:0"


def edge_from(number, form):
    def change(meta_graph):
        (info,) = meta_graph.signature_def["features"].outputs.values()
        (node,) = [n for n in meta_graph.graph_def.node if n.name == info.name.partition(":")[0]]
        node.input.append(form.format(saver_nodes(meta_graph)[number]))

    return change


def return_by_control(meta_graph):
    (info,) = meta_graph.signature_def["features"].outputs.values()
    info.name = f"^{saver_nodes(meta_graph)[0]}"


def call_within_an_attribute(meta_graph):
    node = functions(meta_graph, "serve")[0].node_def[0]
    node.attr["f"].func.name = functions(meta_graph, "features")[0].signature.name
    node.attr["f"].func.attr["g"].func.name = functions(meta_graph, "_traced_save")[
        0
    ].signature.name


def start_with(number, key, form="{}"):
    """What loads by TensorFlow 1's rules, as TensorFlow Serving does, runs this node first."""

    def change(meta_graph):
        del meta_graph.signature_def["__saved_model_init_op"]
        meta_graph.collection_def.clear()
        name = form.format(saver_nodes(meta_graph)[number])
        meta_graph.collection_def[key].node_list.value.append(name)

    return change


def offer(role):
    """The loaded object has the function that saves or restores."""

    def change(meta_graph):
        name = functions(meta_graph, role)[0].signature.name
        objects = meta_graph.object_graph_def
        node = next(n for n in objects.nodes if n.WhichOneof("kind") == "function")
        node.function.concrete_functions.append(name)

    return change


def offer_bare(role):
    def change(meta_graph):
        name = functions(meta_graph, role)[0].signature.name if role != "gone" else "gone"
        node = meta_graph.object_graph_def.nodes.add()
        node.bare_concrete_function.concrete_function_name = name

    return change


def list_as_concrete(meta_graph):
    name = functions(meta_graph, "_traced_save")[0].signature.name
    meta_graph.object_graph_def.concrete_functions[name].SetInParent()


def capture_from(meta_graph):
    node = meta_graph.object_graph_def.nodes.add()
    node.captured_tensor.concrete_function = functions(meta_graph, "_traced_save")[0].signature.name


def derive_by(role):
    def change(meta_graph):
        gradient = meta_graph.graph_def.library.registered_gradients[0]
        gradient.gradient_func = (
            functions(meta_graph, role)[0].signature.name if role != "gone" else "gone"
        )

    return change


def derive_by_the_old_rules(meta_graph):
    meta_graph.graph_def.library.gradient.add(
        function_name=functions(meta_graph, "features")[0].signature.name,
        gradient_func=functions(meta_graph, "_traced_save")[0].signature.name,
    )


def call_in_a_ring(meta_graph):
    one, two = functions(meta_graph, "serve")[:2]
    add_call(one.node_def, two.signature.name)
    add_call(two.node_def, one.signature.name)


def call_in_a_ring_out_of_reach(meta_graph):
    # Nothing leads here from any signature, yet whoever loads the graph gets it.
    ring = [f"__inference_{number}" for number in range(3)]
    for name, callee in zip(ring, [*ring[1:], ring[0]], strict=True):
        function = meta_graph.graph_def.library.function.add()
        function.signature.name = name
        add_call(function.node_def, callee)


def add_object(kind):
    def change(meta_graph):
        getattr(meta_graph.object_graph_def.nodes.add(), kind).SetInParent()

    return change


def add_class(**fields):
    def change(meta_graph):
        node = meta_graph.object_graph_def.nodes.add(
            **{key: value for key, value in fields.items() if key != "identifier"}
        )
        node.user_object.identifier = fields.get("identifier", "_generic_user_object")

    return change


def shadow(op):
    """The function that saves takes the name of an operation, which loading turns into a call."""

    def change(meta_graph):
        top = {node.name: node for node in meta_graph.graph_def.node}
        top[saver_nodes(meta_graph)[0]].attr["f"].func.name = op
        functions(meta_graph, "_traced_save")[0].signature.name = op

    return change


def stand_in(meta_graph):
    """TensorFlow's optimizer may put the one function in the place of the other."""
    for role in ("features", "_traced_save"):
        function = functions(meta_graph, role)[0]
        function.attr["api_implements"].s = b"features"
        function.attr["api_preferred_device"].s = b"CPU"


NO_ENCODER = "which no module uses there"
FILES = "which saves or restores variables"
DEPENDS = "what a signature returns depends on saving or restoring variables"
OBJECT = "the loaded object must be made of variables, functions and lists alone. Received: "


CHANGES = {
    # What was done: (how, the words that say so).
    **{
        f"{op} in {role}": (put(op, role), f"holds the operation {op}, {NO_ENCODER}")
        for role, ops in {
            "top": "SaveV2 RestoreV2 ReadFile AssignVariableOp MergeV2Checkpoints Conv2D If Relu",
            "features": "SaveV2 RestoreV2 AssignVariableOp MergeV2Checkpoints ShardedFilename "
            "VarHandleOp Placeholder PartitionedCall SymbolicGradient WriteFile",
            "_traced_save": "RestoreV2 AssignVariableOp WriteFile ReadFile Conv2D "
            "StatefulPartitionedCall",
            "_traced_restore": "SaveV2 MergeV2Checkpoints ReadFile Conv2D StatefulPartitionedCall",
        }.items()
        for op in ops.split()
    },
    "an operation without a name": (put("", "features"), f"holds the operation , {NO_ENCODER}"),
    "a call of saving": (call("_traced_save", "features"), FILES),
    "a call of restoring": (call("_traced_restore", "features"), FILES),
    "a call of saving at the top": (call("_traced_save", "top"), "the graph calls __inference_"),
    "a call of restoring at the top": (call("_traced_restore", "top"), FILES),
    "a call of saving in a list": (call_in_a_list, FILES),
    "a call of saving beside an operation": (call_beside_an_operation, FILES),
    "a call of nothing": (call("!gone", "features"), "calls gone, which is not there"),
    "a call of nothing at the top": (
        call("!gone", "top"),
        "the graph calls gone, which is not there",
    ),
    "saving returned": (return_from(0, "features"), DEPENDS),
    "restoring returned": (return_from(1, "serving_default"), DEPENDS),
    "saving on loading": (return_from(0, "__saved_model_init_op"), DEPENDS),
    "saving before an output": (edge_from(0, "^{}"), DEPENDS),
    "restoring before an output": (edge_from(1, "^{}"), DEPENDS),
    "saving as an input": (edge_from(0, "{}"), DEPENDS),
    "saving as a numbered input": (edge_from(0, "{}:0"), DEPENDS),
    "saving offered": (offer("_traced_save"), "the loaded object calls __inference__traced_save_"),
    "restoring offered": (offer("_traced_restore"), FILES),
    "saving offered bare": (offer_bare("_traced_save"), FILES),
    "nothing offered bare": (offer_bare("gone"), "calls gone, which is not there"),
    "saving listed": (list_as_concrete, FILES),
    "saving captured from": (capture_from, FILES),
    "saving as a gradient": (derive_by("_traced_save"), "a gradient calls __inference__traced_sav"),
    "nothing as a gradient": (derive_by("gone"), "a gradient calls gone, which is not there"),
    "a call of itself": (call("features", "features"), "calls itself"),
    "calls in a ring": (call_in_a_ring, "calls itself"),
    "calls in a ring out of reach": (call_in_a_ring_out_of_reach, "calls itself"),
    "an asset": (
        lambda m: m.asset_file_def.add(filename="words.txt"),
        "a module has no asset files. Received: words.txt",
    ),
    "a call within an attribute": (call_within_an_attribute, "attributes within attributes"),
    "a place for an attribute": (
        lambda m: m.graph_def.node[0].attr["x"].MergeFrom(AttrValue(placeholder="T")),
        "attributes within attributes",
    ),
    "another collection": (
        lambda m: m.collection_def["queue_runners"].bytes_list.value.append(b"x"),
        "a module has no collection queue_runners",
    ),
    "a collection of bytes": (
        lambda m: m.collection_def["saved_model_main_op"].bytes_list.value.append(b"x"),
        "a module has no collection saved_model_main_op",
    ),
    "an object that is an asset": (add_object("asset"), f"{OBJECT}asset"),
    "an object that is a resource": (add_object("resource"), f"{OBJECT}resource"),
    "an object that is a constant": (add_object("constant"), f"{OBJECT}constant"),
    "an object that is nothing": (lambda m: m.object_graph_def.nodes.add(), f"{OBJECT}nothing"),
    "an object of Keras": (
        add_class(identifier="_tf_keras_layer"),
        f"{OBJECT}_tf_keras_layer",
    ),
    "an object of an optimizer": (add_class(identifier="optimizer"), f"{OBJECT}optimizer"),
    "a registered class": (
        add_class(registered_name="Package.Class"),
        f"{OBJECT}_generic_user_object Package.Class",
    ),
    "a registered saver": (
        add_class(registered_saver="Package.saver"),
        f"{OBJECT}_generic_user_object Package.saver",
    ),
    "a function twice": (
        lambda m: m.graph_def.library.function.add().CopyFrom(functions(m, "features")[0]),
        "the graph defines a function twice",
    ),
    "no object": (
        lambda m: m.ClearField("object_graph_def"),
        "there must be an object to load: this is a model of TensorFlow 1",
    ),
    "another tag": (
        lambda m: m.meta_info_def.tags.append("train"),
        "there must be one graph, tagged `serve`. Received: [['serve', 'train']]",
    ),
    "no tag": (
        lambda m: m.meta_info_def.ClearField("tags"),
        "there must be one graph, tagged `serve`. Received: [[]]",
    ),
}

# The function that writes files, reached by another way than the node that is there for it.
HIDDEN = {
    "as a control output of a signature": return_by_control,
    "by an edge of the main operation": start_with(0, "saved_model_main_op", "^{}"),
    "as the main operation": start_with(0, "saved_model_main_op"),
    "as the main operation of old": start_with(0, "legacy_init_op"),
    "in the place of an operation": shadow("Relu"),
    "in the place of a function": stand_in,
    "as a gradient of old": derive_by_the_old_rules,
    "as a part of what is returned": return_in_parts,
}


@pytest.fixture
def edited(model, tmp_path):
    """Changes the graph of a good model and returns a folder with all of its files."""

    def edit(change):
        directory = tmp_path / "model"
        shutil.copytree(model(), directory)
        content = read(directory)
        change(content.meta_graphs[0])
        (directory / "saved_model.pb").write_bytes(content.SerializeToString(deterministic=True))
        return str(directory)

    return edit


def test_a_model_that_is_written_anew_still_passes(edited):
    assert "each of a kind" in graph.check(edited(lambda meta_graph: None))


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_a_graph_that_was_changed_is_refused_in_words(edited, change, words):
    with pytest.raises(ValueError) as caught:
        graph.check(edited(change))
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("change", HIDDEN.values(), ids=HIDDEN)
def test_saving_by_a_back_door_is_refused(edited, change):
    with pytest.raises(ValueError):
        graph.check(edited(change))


@pytest.mark.parametrize("copies", [0, 2, 3])
def test_any_number_of_graphs_but_one_is_refused(model, tmp_path, copies):
    one = read(model())
    several = saved_model_pb2.SavedModel(meta_graphs=list(one.meta_graphs) * copies)
    (tmp_path / "saved_model.pb").write_bytes(several.SerializeToString())
    with pytest.raises(ValueError) as caught:
        graph.check(str(tmp_path))
    found = [["serve"]] * copies
    assert str(caught.value) == f"there must be one graph, tagged `serve`. Received: {found}"


@pytest.mark.parametrize(
    "content",
    [b"\xff" * 100, b"no graph", bytes(1), b"\x12\x7f"],
    ids=["bytes", "text", "zero", "cut short"],
)
def test_what_is_no_protocol_buffer_is_refused(tmp_path, content):
    (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(ValueError, match=r"^saved_model\.pb is not a SavedModel \("):
        graph.check(str(tmp_path))


def test_a_graph_cut_short_anywhere_is_refused(model, tmp_path):
    content = pathlib.Path(model(), "saved_model.pb").read_bytes()
    for kept in range(0, len(content), len(content) // 50):
        (tmp_path / "saved_model.pb").write_bytes(content[:kept])
        with pytest.raises(ValueError):
            graph.check(str(tmp_path))


def test_a_long_chain_of_calls_does_not_break_the_search(edited):
    def call_in_a_row(meta_graph):
        for number in range(3000):
            function = meta_graph.graph_def.library.function.add()
            function.signature.name = f"__inference_{number}"
            add_call(function.node_def, f"__inference_{(number + 1) % 3000}")

    with pytest.raises(ValueError, match="calls itself"):
        graph.check(edited(call_in_a_row))


# The same by the command's own way: nothing of such an archive is loaded.


def checks_without_loading(directory, tmp_path):
    """Packs a model, its fingerprint made to fit, and returns the checks it goes through."""
    fingerprint.write(directory)
    archive.pack(directory, str(tmp_path / "encoder.tar.gz"))
    with mock.patch.object(tf.saved_model, "load") as load:
        checks = list(verify.verify(str(tmp_path / "encoder.tar.gz")))
    load.assert_not_called()
    return checks


@pytest.mark.parametrize("name", ["reads a file", "calls Python", "asks a data service"])
def test_an_archive_that_does_more_is_refused_before_it_is_loaded(hostile_model, tmp_path, name):
    operation, words = HOSTILE[name]
    checks = checks_without_loading(hostile_model(along(operation)), tmp_path)
    assert [check.name for check in checks if not check.passed] == ["graph"]
    assert checks[-1].name == "graph"
    assert f"holds the operation {words}, which" in checks[-1].detail


@pytest.mark.parametrize(
    "name",
    ["a call of saving", "a call of itself", "an object of Keras", "no object", "another tag"],
)
def test_an_archive_with_a_changed_graph_is_refused_before_it_is_loaded(edited, tmp_path, name):
    change, words = CHANGES[name]
    checks = checks_without_loading(edited(change), tmp_path)
    assert [check.name for check in checks if not check.passed] == ["graph"]
    assert checks[-1].name == "graph"
    assert words in checks[-1].detail
