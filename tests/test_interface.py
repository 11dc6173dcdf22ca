"""What a module looks like from outside: outputs, variables, signatures, static shapes."""

import pytest
import tensorflow as tf

from tests import descriptors
from tests.descriptors import DEEPEST_DECODER, DEEPEST_ENCODER, as_list
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder

LASTS = (2, 2, 4, 4, 2)
NAMES = [f"block{b}_conv{n}" for b, last in enumerate(LASTS, 1) for n in range(1, last + 1)]
AFTER_UNPOOLING = [f"block{b}_conv{last + 1}" for b, last in enumerate(LASTS[:-1], 1)]
CHANNELS = (64, 128, 256, 512, 512)


@descriptors.every(descriptors.MODULES, DEEPEST_ENCODER, DEEPEST_DECODER)
def test_variables_have_keras_names_in_the_order_of_the_layers(descriptor, form, saved_model):
    names = [name for name in NAMES if name <= descriptor.layer]
    if descriptor.kind == "decoder":
        # More convolutions take what is unpooled.
        more = [name for name in AFTER_UNPOOLING if name < descriptor.layer]
        more += ["block1_conv4"] if descriptor.layer == "block2_conv2" else []
        names = sorted([*names, *more])
        names = [f"decoder_{name}" for name in reversed(names)]
    module = descriptors.module(descriptor, form, saved_model)
    for variables in (module.variables, module.trainable_variables):
        assert [v.name for v in variables] == [
            f"{n}/{p}:0" for n in names for p in ("kernel", "bias")
        ]
    arrays = tf.nest.flatten(list(descriptor.weights.values()))
    for variable, array in zip(module.variables, arrays, strict=True):
        assert variable.dtype == tf.float32
        assert (variable.numpy() == array).all()


@pytest.mark.parametrize("descriptor", [*descriptors.ENCODERS, DEEPEST_ENCODER], ids=str)
def test_an_encoder_gives_a_list_and_block1_the_bare_features(descriptor):
    b, h, w, last = 1, 32, 16, descriptor.block
    encoder = descriptor.make()
    scale = 2 ** (last - 1)
    features = [b, h // scale, w // scale, CHANNELS[last - 1]]
    indices = [[b * h * w * rows, 4] for rows in (16, 8, 4, 2)[: last - 1]]
    switches = [[b, h // 2**k, w // 2**k, CHANNELS[k - 1]] for k in range(1, last)]
    for method, names, form, positions in (
        (encoder, encoder.output_names, "indices", indices),
        (encoder.compact, encoder.compact_output_names, "switches", switches),
    ):
        outputs = method(descriptors.images((b, h, w, 3)))
        assert isinstance(outputs, list if last > 1 else tf.Tensor)
        assert [list(o.shape) for o in as_list(outputs)] == [features, *positions]
        assert names == ("features", *(f"block{k}_{form}" for k in range(1, last)))


@descriptors.every(descriptors.MODULES)
def test_one_trace_serves_every_size_and_keeps_the_static_shapes(descriptor, form, saved_model):
    module = descriptors.module(descriptor, form, saved_model)
    encoder, block = descriptor.kind == "encoder", descriptor.block
    spec = tf.TensorSpec((None, None, None, 3 if encoder else 64 * block), tf.float32)
    if not encoder and block > 1:
        spec = [spec, tf.TensorSpec((None, 4), tf.int64)]
    graph = tf.function(module, input_signature=[spec])
    shapes = tf.nest.map_structure(tf.TensorSpec, graph.get_concrete_function().output_shapes)
    shapes = [list(each.shape) for each in tf.nest.flatten(shapes)]
    assert shapes == [[None, None, None, 64 * block if encoder else 3], [None, 4]][: len(shapes)]
    assert len(shapes) == (block if encoder else 1)
    for b, h, w in ((1, 2, 2), (3, 17, 31)):
        inputs = descriptors.images((b, h, w, 3))
        if not encoder:
            inputs = tf.ones((b, h, w, 64 * block))
            rows = tf.where(tf.ones((b, h, w, 64))) * [1, 2, 2, 1]
            inputs = [inputs, rows] if block > 1 else inputs
        sides = (h // block, w // block) if encoder else (h * block, w * block)
        output = as_list(graph(inputs))[0]
        assert output.shape == (b, *sides, shapes[0][-1])
    assert graph.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("descriptor", descriptors.MODULES, ids=str)
def test_signatures_name_inputs_and_outputs_and_return_what_methods_do(descriptor, saved_model):
    module = descriptors.module(descriptor, "loaded", saved_model)
    encoder = descriptor.kind == "encoder"
    expected = {
        "serving_default": (module, "indices"),
        "compact": (module.compact if encoder else module, "switches"),
    }
    if encoder:
        expected["features"] = (module.features, None)
    assert set(module.signatures) == set(expected)
    for name, (method, form) in expected.items():
        names = ["features", *(f"block{k}_{form}" for k in range(1, descriptor.block) if form)]
        takes, returns = (["images"], names) if encoder else (names, ["images"])
        signature = module.signatures[name]
        assert set(signature.structured_input_signature[1]) == set(takes)
        inputs = descriptor.inputs("switches" if form == "switches" else "int64")
        tensors = map(tf.constant, inputs if isinstance(inputs, list) else [inputs])
        outputs = signature(**dict(zip(takes, tensors, strict=True)))
        assert set(outputs) == set(returns)
        for key, wanted in zip(returns, as_list(method(inputs)), strict=True):
            assert (outputs[key].numpy() == wanted).all()


def test_the_features_signature_computes_no_positions(saved_model):
    loaded = descriptors.module(descriptors.ENGINES[0], "loaded", saved_model)
    for name in ("serving_default", "features"):
        graph = loaded.signatures[name].graph.as_graph_def()
        found = {node.op for function in graph.library.function for node in function.node_def}
        assert ("MaxPoolWithArgmax" in found) == (name == "serving_default")


@pytest.mark.parametrize("descriptor", descriptors.MODULES, ids=str)
def test_load_makes_a_module_of_the_seeds_weights_as_the_archive_has_them(descriptor, saved_model):
    kind, options = Decoder, {}
    if descriptor.kind == "encoder":
        kind = Encoder
        options = {"index_dtype": descriptor.index_dtype, "engine": descriptor.engine}
    made = kind.load(descriptor.layer, "random", **options)
    other = kind.load(descriptor.layer, "random", seed=1, **options)
    assert made.layer == descriptor.layer
    assert {name: getattr(made, name) for name in options} == options
    if descriptor == descriptors.ENGINES[0]:
        made = Encoder.load(descriptor.layer, "random")  # The same by default.
        assert {name: getattr(made, name) for name in options} == options
    loaded = tf.saved_model.load(descriptor.directory(saved_model))
    for one, two in zip(made.variables, loaded.variables, strict=True):
        assert (one.numpy() == two.numpy()).all()
    assert (made.variables[0].numpy() != other.variables[0].numpy()).any()
