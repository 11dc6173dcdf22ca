"""Wrong input is refused with a message that says what came and what is needed, however called."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub

from tests import descriptors
from tests.descriptors import Descriptor

ENCODER = descriptors.ENGINES[0]
DECODER = Descriptor("decoder", "block3_conv2")
REFUSED = tf.errors.InvalidArgumentError


# --- Encoders.


def shape_message(minimum_side, shape):
    """A pattern of what is needed, what to do and the shape that came."""
    needed = re.escape(
        "`images` must have the shape (B, H, W, 3), B at least 1, H and W at least "
        f"{minimum_side}: add a batch axis to a single picture, enlarge or pad a small one."
    )
    # Called directly, TensorFlow separates the numbers by commas; in a graph, by spaces.
    came = r",? ".join(map(str, shape))
    return rf"(?s){needed} Received: shape=\W*\b{came}\b(?!,? \d)"


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        # No batch axis, no channels, an axis too many, channels first, sides too small, no picture.
        *(("block1_conv2", shape) for shape in ((8, 9, 3), (2, 8, 9, 1), (1, 0, 9, 3))),
        *(("block2_conv2", shape) for shape in ((8, 9), (1, 2, 8, 9, 3), (2, 3, 8, 9))),
        *(("block2_conv2", shape) for shape in ((1, 1, 9, 3), (1, 9, 1, 3), (0, 8, 9, 3))),
        ("block3_conv2", (1, 4, 3, 3)),
    ],
)
def test_a_wrong_shape_is_refused(layer, shape):
    encoder = Descriptor("encoder", layer).make()
    message = shape_message(2 ** (int(layer[5]) - 1), shape)
    unknown, known = tf.TensorSpec(None, tf.float32), tf.TensorSpec(shape, tf.float32)
    for call in (encoder, encoder.compact, encoder.features):
        for function in (call, tf.function(call, input_signature=[unknown])):
            with pytest.raises(REFUSED, match=message):
                function(np.zeros(shape, np.float32))
        with pytest.raises(ValueError, match=message):  # While tracing.
            tf.function(call).get_concrete_function(known)


def test_an_unknown_static_shape_is_accepted_while_tracing():
    encoder = ENCODER.make()
    for shape in (None, (None, None, None, None), (None, 2, None, None), (3, None, 2, 3)):
        tf.function(encoder).get_concrete_function(tf.TensorSpec(shape, tf.float32))


@pytest.mark.parametrize("dtype", ["uint8", "float64", "float16", "int32"])
def test_a_wrong_dtype_is_refused(dtype):
    encoder = ENCODER.make()
    message = re.escape(
        "`images` must be float32, RGB, values in [0, 255]: convert with "
        f"tf.cast(images, tf.float32). Received: dtype={dtype}."
    )
    for call in (encoder, encoder.compact, encoder.features, tf.function(encoder)):
        with pytest.raises(ValueError, match=message):
            call(tf.zeros((1, 8, 9, 3), dtype))


LOADERS = {
    "call": lambda loaded, _: loaded,
    "compact": lambda loaded, _: loaded.compact,
    "signature": lambda loaded, _: loaded.signatures["serving_default"],
    "compact signature": lambda loaded, _: loaded.signatures["compact"],
    "features signature": lambda loaded, _: loaded.signatures["features"],
    "hub.KerasLayer": lambda _, folder: hub.KerasLayer(folder),
    "TFSMLayer": lambda _, folder: keras.layers.TFSMLayer(folder, call_endpoint="serving_default"),
    "TFSMLayer call": lambda _, folder: keras.layers.TFSMLayer(folder, call_endpoint="__call__"),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("descriptor", descriptors.ENGINES[::3], ids=str)
def test_however_an_encoder_is_loaded_wrong_input_is_explained(descriptor, loader, saved_model):
    loaded = descriptors.module(descriptor, "loaded", saved_model)
    call = LOADERS[loader](loaded, descriptor.directory(saved_model))
    for shape in ((1, 1, 32, 3), (2, 32, 1, 3), (0, 32, 32, 3)):
        with pytest.raises(REFUSED, match=shape_message(2, shape)):
            call(tf.zeros(shape))
    needed = r"\(B, H, W, 3\)|\(None, None, None, 3\)|float tensor|\[\?,\?,\?,3\]"
    for wrong, received in (
        (tf.zeros((32, 32, 3)), "32[, ]+32[, ]+3"),
        (tf.zeros((1, 32, 32, 1)), "1[, ]+32[, ]+32[, ]+1"),
        (tf.zeros((1, 32, 32, 3), tf.uint8), "uint8"),
    ):
        with pytest.raises((TypeError, REFUSED), match=f"(?s){received}") as error:
            call(wrong)
        assert re.search(needed, str(error.value))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("encoder", "x"), "`layer` must be one of block1_conv2, "),
        (("decoder", "x"), "Received: 'x'."),
        (("encoder", ENCODER.layer, "foo"), "`index_dtype` must be int64 or int32. Received: foo."),
        (("encoder", ENCODER.layer, "int64", "x"), "`engine` must be one of argmax, xla. Received"),
    ],
)
def test_another_layer_index_dtype_or_engine_is_refused(arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Descriptor(*arguments).make(ENCODER.weights)


# --- Decoders: what does not fit together.

FIT = "do not fit `features`, which need those of a pooled map"
PAD = "the sides of the picture were not multiples of 4: pad it before it is encoded"
LYING, STANDING, SQUARE = (1, 8, 16, 3), (1, 16, 8, 3), (1, 8, 8, 3)


@pytest.fixture(scope="module")
def outputs():
    """Returns the outputs of an encoder for pictures of a shape, as a list."""
    encoder = Descriptor("encoder", DECODER.layer).make()
    return lambda shape, method="__call__": getattr(encoder, method)(descriptors.images(shape))


def joined(outputs):
    """Two batches, joined as Keras' `predict` joins them."""
    return [tf.concat([each, each], 0) for each in outputs]


def swapped(rows):
    """All rows but the first and the last in reverse."""
    return tf.concat([rows[:1], rows[-2:0:-1], rows[-1:]], 0)


# What is made of the outputs of an encoder, and words of the message.
MISFITS = {
    # As many rows, but of a picture on its side.
    "of another picture": (lambda o: [o(LYING)[0], *o(STANDING)[1:]], "block1_indices` " + FIT),
    "switches": (lambda o: [o(LYING)[0], *o(STANDING, "compact")[1:]], "block1_switches` " + FIT),
    "of another layer": (lambda o: [o(LYING)[i] for i in (0, 2, 1)], "block1_indices` " + FIT),
    "of another layer, too": (lambda o: [o(LYING)[i] for i in (0, 1, 1)], "block2_indices` " + FIT),
    "odd height": (lambda o: o((1, 10, 16, 3)), PAD),
    "odd width": (lambda o: o((1, 16, 14, 3)), PAD),
    "odd height, switches": (lambda o: o((2, 11, 8, 3), "compact"), PAD),
    "joined batches": (lambda o: joined(o((2, 8, 8, 3))), "joined from several batches"),
    "another order": (
        lambda o: [o(SQUARE)[0], swapped(o(SQUARE)[1]), o(SQUARE)[2]],
        "the rows of `block1_indices` are not in the order in which an encoder returns them",
    ),
    "a missing row": (lambda o: [o(SQUARE)[0], o(SQUARE)[1][1:], o(SQUARE)[2]], "`block1_indices`"),
    "no rows": (
        lambda o: [*o(SQUARE)[:2], o(SQUARE)[2][:0]],
        "`block2_indices` must be indices of shape (N, 4), N at least 1. Received: shape",
    ),
    "no pictures": (lambda o: [o(SQUARE)[0][:0], *o(SQUARE)[1:]], "(B, h, w, 256), none of them 0"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_refused_in_a_graph_of_any_size_and_loaded(case, outputs, saved_model):
    make, words = MISFITS[case]
    inputs = make(outputs)
    decoder = descriptors.module(DECODER, "python", saved_model)
    loaded = descriptors.module(DECODER, "loaded", saved_model)
    specs = [tf.TensorSpec([None] * (len(x.shape) - 1) + [x.shape[-1]], x.dtype) for x in inputs]
    graph = tf.function(lambda *inputs: decoder(list(inputs)), input_signature=specs)
    form, signature = "indices", "serving_default"
    if inputs[1].dtype == tf.uint8:
        form, signature = "switches", "compact"
    named = dict(zip(["features", f"block1_{form}", f"block2_{form}"], inputs, strict=True))
    for call in (
        lambda: decoder(inputs),
        lambda: graph(*inputs),
        lambda: loaded(inputs),
        lambda: loaded.signatures[signature](**named),
    ):
        with pytest.raises(REFUSED, match=f"(?s){re.escape(words)}.*"):
            call()


def test_switches_of_joined_batches_are_decoded(outputs):
    assert DECODER.make()(joined(outputs((2, 8, 8, 3), "compact"))).shape == (4, 8, 8, 3)


def cast(tensors, dtype):
    return [tf.cast(tensor, dtype) for tensor in tensors]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f, *i: [f], r"takes the list \[features, block1_indices, block2_indices\]"),
        (lambda f, *i: [f, *i, i[0]], "Received: 4 tensors"),
        (lambda f, *i: (f, i[0]), "Received: 2 tensors"),
        (lambda f, *i: [f[..., :64], *i], "`features` must be"),
        (lambda f, *i: [f, i[0], i[1][:, :3]], "`block2_indices` must be"),
        (lambda f, *i: [f, *cast(i, tf.uint8)], "`block1_(indices` must be|switches` do not fit)"),
        *(
            (lambda f, *i, d=dtype: [tf.cast(f, d), *i], f"float32, shape .* Received: {dtype}")
            for dtype in ("float16", "bfloat16", "float64", "int32", "int64")
        ),
        (lambda f, *i: (f.numpy().astype(float), *cast(i, "int32")), "float32, .* float64"),
        (lambda f, *i: [tf.cast(f, "half"), *cast(i, "uint8")], "float32, .* Received: float16"),
        (lambda f, *i: cast([f, *i], tf.float64), "float32, .* Received: float64"),
        *(
            (lambda f, *i, d=dtype: (f, *cast(i, d)), f"int64 or int32 .* Received: {dtype}")
            for dtype in ("float16", "float32", "float64", "int8", "int16", "uint16")
        ),
    ],
)
def test_tensors_of_another_kind_are_refused(outputs, saved_model, change, words):
    decoder = descriptors.module(DECODER, "python", saved_model)
    inputs = change(*outputs(SQUARE))
    loaded = descriptors.module(DECODER, "loaded", saved_model)
    for call in (decoder, tf.function(decoder), loaded, tf.function(loaded)):
        with pytest.raises((ValueError, REFUSED), match=f"(?s){words}"):
            call(inputs)


def test_block1_says_that_it_takes_the_bare_features(saved_model):
    features = descriptors.DECODERS[0].inputs()
    for form in ("python", "loaded"):
        decoder = descriptors.module(descriptors.DECODERS[0], form, saved_model)
        with pytest.raises((ValueError, REFUSED), match=r"the bare features, .* 2 tensors"):
            decoder([features, np.zeros((8, 4), int)])
        with pytest.raises((ValueError, REFUSED), match=r"float32, .* Received: float64"):
            decoder(features.astype(float))
