"""Writes an encoder as a reusable TF2 SavedModel on disk, the same bytes every time."""

import hashlib
import os

import tensorflow as tf
from tensorflow.core.protobuf import fingerprint_pb2

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
        return tf.function(function, input_signature=[encoder.input_spec])

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
    _derive_uuid(os.path.join(directory, "fingerprint.pb"))


def _derive_uuid(path):
    """Replaces the random UUID of a fingerprint by one that follows from its other fields.

    It is the only part of a SavedModel that differs between two runs, see
    https://github.com/tensorflow/tensorflow/issues/54067.
    """
    fingerprint = fingerprint_pb2.FingerprintDef()
    with open(path, "rb") as file:
        fingerprint.ParseFromString(file.read())
    fingerprint.ClearField("uuid")
    content = fingerprint.SerializeToString(deterministic=True)
    fingerprint.uuid = str(int.from_bytes(hashlib.sha256(content).digest()[:8], "big"))
    with open(path, "wb") as file:
        file.write(fingerprint.SerializeToString(deterministic=True))
