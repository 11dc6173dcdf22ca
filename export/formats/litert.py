"""LiteRT, which was TensorFlow Lite: the Keras model, in built-in operations alone."""

import tempfile
from collections.abc import Callable, Iterator

import tensorflow as tf

from export.formats import keras
from export.formats.source import Source

__all__ = ["runtimes", "write"]


def write(source: Source, path: str, float16: bool = False) -> None:
    """Writes a module as a .tflite file: the signature `compact`, an encoder's also `features`.

    Args:
      source: which module.
      path: the file to write.
      float16: whether to store the weights in half the bytes.
    """
    model = keras.model_of(source)
    # As variables, they would not be in the file.
    weights = [tf.constant(variable.numpy()) for variable in model.trainable_variables]
    specs = [tf.TensorSpec(i.shape, i.dtype, name=i.name) for i in model.inputs]

    def call(names):
        def serve(*tensors):
            inputs = list(tensors) if len(tensors) > 1 else tensors[0]
            outputs, _ = model.stateless_call(weights, [], inputs)
            outputs = outputs if isinstance(outputs, list) else [outputs]
            return dict(zip(names, outputs, strict=False))

        return tf.function(serve, input_signature=specs, autograph=False)

    signatures = {"compact": call(source.outputs)}
    if source.spec.kind == "encoder":
        signatures["features"] = call(source.outputs[:1])
    with tempfile.TemporaryDirectory() as directory:
        tf.saved_model.save(tf.Module(), directory, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            directory, signature_keys=list(signatures)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if float16:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        content = converter.convert()
    with open(path, "xb") as file:
        file.write(content)


def runtimes(source: Source, path: str) -> Iterator[tuple[str, Callable]]:
    """Yields what must run the file: its name, and a function of inputs by name."""
    import importlib.metadata

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    run = interpreter.get_signature_runner("compact")
    version = importlib.metadata.version("ai-edge-litert")
    yield f"LiteRT {version}", lambda inputs: run(**inputs)
