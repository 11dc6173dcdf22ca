"""Writes a module as a reusable TF2 SavedModel, the same bytes every time."""

import os
import re

import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

from unpooling.checks import hide_shape
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder
from unpooling.errors import UserError

__all__ = ["save"]


def save(module: Encoder | Decoder, directory: str) -> None:
    """Writes a module as a SavedModel into `directory`, which need not exist.

    The loaded object has

      * the module's methods: of an encoder `__call__(images)`, `compact(images)` and
        `features(images)`; of a decoder `__call__(inputs)`, for indices of both dtypes and for
        switches;
      * `variables`, `trainable_variables`, `regularization_losses`: the reusable SavedModel
        interface that `hub.KerasLayer(..., trainable=True)` expects, see
        https://www.tensorflow.org/hub/reusable_saved_models;
      * the module's `signatures`, with named inputs and outputs.

    Args:
      module: what to save.
      directory: where to. TensorFlow takes it for a pattern: no `[`, `*` or `?`.

    Raises:
      UserError: if the files cannot be written.
    """
    root = tf.train.Checkpoint()  # An object with nothing but the attributes that follow.
    methods = {}
    for name, (function, alternatives) in module.methods.items():
        # One input: the loaded method then takes whatever converts to it.
        signature = alternatives if len(alternatives) == 1 else None
        method = tf.function(function, input_signature=signature, autograph=False)
        for inputs in alternatives:
            method.get_concrete_function(*([inputs] if signature is None else []))
        methods[name] = method
        setattr(root, name, method)
    signatures = {
        name: _named(methods[method], inputs, outputs)
        for name, (method, inputs, outputs) in module.signatures.items()
    }
    root.variables = list(module.variables)
    root.trainable_variables = list(module.trainable_variables)
    root.regularization_losses = []
    try:
        tf.saved_model.save(root, directory, signatures=signatures)
    except tf.errors.OpError as error:  # A full disk, for example.
        raise UserError(f"the SavedModel cannot be written: {error.message}") from error
    _remove_traces_of_the_process(os.path.join(directory, "saved_model.pb"))
    # It holds a random number. TensorFlow loads a SavedModel without it.
    os.remove(os.path.join(directory, "fingerprint.pb"))


def _named(method, inputs, outputs):
    """A signature: a method with named inputs and outputs.

    It is traced when it is saved, like the methods, so that both call the same functions.
    """

    def serve(*tensors):
        tensors = [hide_shape(tensor) for tensor in tensors]
        results = method(tensors if len(tensors) > 1 else tensors[0])
        results = results if isinstance(results, list) else [results]
        return dict(zip(outputs, results, strict=True))

    return tf.function(serve, input_signature=inputs, autograph=False)


# What TensorFlow numbers: functions, branches, custom gradients, captured tensors.
_NUMBERED = re.compile(
    r"""("__inference_\w+_|"\w+_branch\d+_|"CustomGradient-|"""
    r'''key: "_user_specified_name"\s+value {\s+s: ")(\d+)"''',
    re.ASCII,
)


def _remove_traces_of_the_process(path):
    """Removes from a SavedModel what depends on the process that wrote it.

    The numbers that TensorFlow draws from one counter of the process become 0, 1, 2, ..., and the
    settings of the session in each call of a function (devices, threads) go. This function can go
    once https://github.com/tensorflow/tensorflow/issues/54067 is resolved.
    """
    model = saved_model_pb2.SavedModel()
    with open(path, "rb") as file:
        model.ParseFromString(file.read())
    text = text_format.MessageToString(model)
    numbers = sorted({int(number) for _, number in _NUMBERED.findall(text)})
    new = {str(number): index for index, number in enumerate(numbers)}
    text = _NUMBERED.sub(lambda match: f'{match[1]}{new[match[2]]}"', text)
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
