"""Writes a module as a reusable TF2 SavedModel on disk, the same bytes every time."""

import os
import re

import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

from export import fingerprint, spec
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder

__all__ = ["save", "save_decoder"]


def save(encoder: Encoder, directory: str) -> None:
    """Writes `encoder` as a SavedModel into `directory`, which need not exist.

    The loaded object has

      * `__call__(images)`, `compact(images)` and `features(images)`, as `Encoder` has them;
      * `variables`, `trainable_variables`, `regularization_losses`: the reusable SavedModel
        interface that `hub.KerasLayer(..., trainable=True)` expects, see
        https://www.tensorflow.org/hub/reusable_saved_models;
      * signatures, each with the input `images`: `serving_default` with the outputs `features`,
        `block1_indices`, ...; `compact` with `features`, `block1_switches`, ...; `features` with
        `features`.

    Args:
      encoder: what to save.
      directory: where to.
    """

    def traced(function):
        # The signature makes the loaded object keep one trace for pictures of all sizes.
        return tf.function(function, input_signature=[encoder.input_spec], autograph=False)

    def named(function, names):
        def serve(images):
            outputs = function(images)
            outputs = outputs if isinstance(outputs, list) else [outputs]
            return dict(zip(names, outputs, strict=True))

        return traced(serve)

    call = traced(encoder.__call__)
    compact = traced(encoder.compact)
    features = traced(encoder.features)

    methods = {"__call__": call, "compact": compact, "features": features}
    signatures = {
        "serving_default": named(call, encoder.output_names),
        "compact": named(compact, encoder.compact_output_names),
        "features": named(features, ["features"]),
    }
    _write(directory, encoder.ordered_variables, methods, signatures)


def save_decoder(decoder: Decoder, directory: str) -> None:
    """Writes `decoder` as a SavedModel into `directory`, which need not exist.

    The loaded object has

      * `__call__(inputs)`, as `Decoder` has it, for indices of both dtypes and for switches;
      * the reusable SavedModel interface, as `save` says;
      * signatures with the output `images`: `serving_default` with the inputs `features`,
        `block1_indices`, ..., int64; `compact` with `features`, `block1_switches`, ....

    Args:
      decoder: what to save.
      directory: where to.
    """
    call = tf.function(decoder.__call__, autograph=False)
    for form in (*spec.INDEX_DTYPES, "switches"):
        call.get_concrete_function(decoder.input_spec(form))  # A trace that the loaded object has.

    def named(form):
        specs = decoder.input_spec(form)
        specs = specs if isinstance(specs, list) else [specs]

        def serve(**inputs):
            inputs = [inputs[spec.name] for spec in specs]
            return {"images": call(inputs if len(inputs) > 1 else inputs[0])}

        function = tf.function(serve, autograph=False)
        return function.get_concrete_function(**{spec.name: spec for spec in specs})

    signatures = {"serving_default": named("int64"), "compact": named("switches")}
    _write(directory, decoder.ordered_variables, {"__call__": call}, signatures)


def _write(directory, variables, methods, signatures):
    # `tf.Module` has `variables` and `trainable_variables` as properties, which a SavedModel does
    # not store; this root holds them as attributes.
    root = tf.train.Checkpoint()
    for name, method in methods.items():
        setattr(root, name, method)
    root.variables = variables
    root.trainable_variables = variables
    root.regularization_losses = []
    tf.saved_model.save(root, directory, signatures=signatures)
    _forget_the_process(os.path.join(directory, "saved_model.pb"))
    fingerprint.write(directory)


# What bears a number of TensorFlow's: functions, custom gradients, captured tensors.
_NUMBERED = re.compile(
    r"""("__inference_\w+_|"CustomGradient-|key: "_user_specified_name"\s+value {\s+s: ")(\d+)\"""",
    re.ASCII,
)


def _forget_the_process(path):
    """Takes out of a SavedModel what TensorFlow puts in of the process that wrote it.

    These are the numbers that it draws from the process's one counter, which become 0, 1, 2, ...,
    and the settings of the session in each call of a function: devices, threads. Not needed any
    more once https://github.com/tensorflow/tensorflow/issues/54067 is resolved.
    """
    model = saved_model_pb2.SavedModel()
    with open(path, "rb") as file:
        model.ParseFromString(file.read())
    text = text_format.MessageToString(model)
    numbers = sorted({int(number) for _, number in _NUMBERED.findall(text)})
    text = _NUMBERED.sub(lambda match: f'{match[1]}{numbers.index(int(match[2]))}"', text)
    model = text_format.Parse(text, saved_model_pb2.SavedModel())
    for meta_graph in model.meta_graphs:
        graph = meta_graph.graph_def
        for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
            for node in nodes:
                node.attr.pop("config_proto", None)
        # TensorFlow sorted them by their names, hence by the numbers as they were.
        graph.library.function.sort(key=lambda function: function.signature.name)
    with open(path, "wb") as file:
        file.write(model.SerializeToString(deterministic=True))
