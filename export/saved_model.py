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

      * `__call__(images)`, as `Encoder.__call__`, and `features(images)`, as `Encoder.features`;
      * `variables`, `trainable_variables`, `regularization_losses`: the reusable SavedModel
        interface that `hub.KerasLayer(..., trainable=True)` expects, see
        https://www.tensorflow.org/hub/reusable_saved_models;
      * the signature `serving_default`: input `images`, outputs `features`, `block1_indices`, ...;
      * the signature `features`: input `images`, output `features`.

    Args:
      encoder: what to save.
      directory: where to.
    """
    # The signature makes the loaded object keep one trace for pictures of all sizes.
    call = tf.function(encoder.__call__, input_signature=[encoder.input_spec])
    features = tf.function(encoder.features, input_signature=[encoder.input_spec])

    @tf.function(input_signature=[encoder.input_spec])
    def serve(images):
        outputs = call(images)
        if not isinstance(outputs, list):
            outputs = [outputs]
        return dict(zip(encoder.output_names, outputs, strict=True))

    @tf.function(input_signature=[encoder.input_spec])
    def serve_features(images):
        return {"features": features(images)}

    # `tf.Module` has `variables` and `trainable_variables` as properties, which a SavedModel does
    # not store; this root holds them as attributes.
    root = tf.train.Checkpoint()
    root.__call__ = call
    root.features = features
    root.variables = encoder.ordered_variables
    root.trainable_variables = encoder.ordered_variables
    root.regularization_losses = []
    tf.saved_model.save(
        root, directory, signatures={"serving_default": serve, "features": serve_features}
    )
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
