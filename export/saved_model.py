"""Writes an encoder as a reusable TF2 SavedModel on disk, the same bytes every time."""

import os
import re

import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

from export import fingerprint
from export.encoder import Encoder

__all__ = ["save"]


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

    # `tf.Module` has `variables` and `trainable_variables` as properties, which a SavedModel does
    # not store; this root holds them as attributes.
    root = tf.train.Checkpoint()
    root.__call__ = call
    root.compact = compact
    root.features = features
    root.variables = encoder.ordered_variables
    root.trainable_variables = encoder.ordered_variables
    root.regularization_losses = []
    signatures = {
        "serving_default": named(call, encoder.output_names),
        "compact": named(compact, encoder.compact_output_names),
        "features": named(features, ["features"]),
    }
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
