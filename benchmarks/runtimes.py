"""The same modules in every runtime of docs/runtimes.md, each in a process of its own, in turn."""

import contextlib
import dataclasses
import importlib.util
import itertools
import multiprocessing
import os
import statistics
import time

import numpy as np

from benchmarks.names import progress

LAYERS = ("block3_conv2", "block5_conv2")
WHAT = ("encoder", "pair")

TENSORFLOW = "TensorFlow"
_JAX, _TORCH = "Keras on JAX", "Keras on PyTorch"
RUNTIMES = (TENSORFLOW, "TensorFlow, XLA", _JAX, _TORCH, "ONNX Runtime", "OpenVINO", "LiteRT")
_BACKENDS = {_JAX: "jax", _TORCH: "torch"}
_TOLERANCE = 1e-3  # of a decoded value's mean magnitude: near-ties move single pixels


def write_modules(layer, folder):
    """Makes the modules of a layer, with seeded weights, in every format."""
    from export import archive, formats, saved_model
    from export.formats import source
    from unpooling import Decoder, Encoder

    modules = {
        "encoder": Encoder.load(layer, "random"),
        "decoder": Decoder.load(layer, "random"),
        "xla": Encoder.load(layer, "random", engine="xla"),
    }
    for name, module in modules.items():
        saved = os.path.join(folder, name)
        saved_model.save(module, saved)
        if name != "xla":
            archive.pack(saved, f"{saved}.tar.gz")
            read = dataclasses.replace(source.read(f"{saved}.tar.gz"), license="none")
            for each in ("keras", "onnx", "litert"):
                formats.module_of(each).write(read, f"{saved}{formats.FORMATS[each]}")


def time_runtimes(folder, side, rounds):
    """Returns {runtime: {"encoder": seconds, "pair": seconds}}, medians for one square picture."""
    names = [n for n in RUNTIMES if n != _TORCH or importlib.util.find_spec("torch")]
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(_worker(name, folder, side)) for name in names}
        seconds = {name: {what: [] for what in WHAT} for name in names}
        magnitudes = {}
        for number, name, what in itertools.product(range(rounds + 1), names, WHAT):
            progress(f"{name}: {what}, round {number} of {rounds}")
            workers[name].send(what)
            taken, magnitude = workers[name].recv()
            if number:  # The first round compiles.
                seconds[name][what].append(taken)
            expected = magnitudes.setdefault(what, magnitude)
            if not abs(magnitude - expected) <= _TOLERANCE * expected:
                raise AssertionError(f"{name}: {what} gives {magnitude}, not {expected}.")
    return {
        name: {what: statistics.median(each) for what, each in figures.items()}
        for name, figures in seconds.items()
    }


@contextlib.contextmanager
def _worker(name, folder, side):
    """A process that loads the modules and runs what it is sent, one call for each message."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, name, folder, side), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(10)
        process.kill()


def _serve(connection, name, folder, side):
    if name in _BACKENDS:
        os.environ["KERAS_BACKEND"] = _BACKENDS[name]
    images = np.random.default_rng(0).uniform(0, 255, (1, side, side, 3)).astype(np.float32)
    encode, decode = _LOADERS.get(name, _keras)(folder)
    while True:
        try:
            what = connection.recv()
        except EOFError:  # That was all.
            return
        start = time.perf_counter()
        result = encode(images)
        if what == "pair":
            result = decode(result)
        first = np.asarray(result[0] if isinstance(result, list) else result)
        seconds = time.perf_counter() - start
        connection.send((seconds, float(np.abs(first).mean(dtype=np.float64))))


def _tensorflow(folder):
    import tensorflow as tf

    encoder, decoder = (tf.saved_model.load(f"{folder}/{kind}") for kind in ("encoder", "decoder"))
    return lambda images: encoder.compact(images), decoder  # Keeps the encoder alive.


def _xla(folder):
    import tensorflow as tf

    encoder, decoder = (tf.saved_model.load(f"{folder}/{kind}") for kind in ("xla", "decoder"))
    functions = lambda images: encoder.compact(images), lambda encoded: decoder(encoded)
    return tuple(tf.function(each, jit_compile=True) for each in functions)


def _keras(folder):
    import keras

    import unpooling.layers  # noqa: F401, registers the layers

    return tuple(
        keras.saving.load_model(f"{folder}/{kind}.keras").predict_on_batch
        for kind in ("encoder", "decoder")
    )


def _onnx_runtime(folder):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # Others are timed.
    sessions = [
        onnxruntime.InferenceSession(f"{folder}/{kind}.onnx", options)
        for kind in ("encoder", "decoder")
    ]

    def run(session, arrays):
        names = [each.name for each in session.get_inputs()]
        return session.run(None, dict(zip(names, arrays, strict=True)))

    encoder, decoder = sessions
    return lambda images: run(encoder, [images]), lambda encoded: run(decoder, encoded)


def _openvino(folder):
    import openvino

    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    models = [
        core.compile_model(f"{folder}/{kind}.onnx", "CPU", precise)
        for kind in ("encoder", "decoder")
    ]

    def run(model, arrays):
        return list(model(dict(enumerate(arrays))).values())

    encoder, decoder = models
    return lambda images: run(encoder, [images]), lambda encoded: run(decoder, encoded)


def _litert(folder):
    from ai_edge_litert.interpreter import Interpreter

    interpreters = [
        Interpreter(f"{folder}/{kind}.tflite", num_threads=os.cpu_count())
        for kind in ("encoder", "decoder")
    ]
    encode, decode = (each.get_signature_runner("compact") for each in interpreters)
    names = sorted(encode.get_output_details(), key=lambda name: (name != "features", name))

    def run(images):
        outputs = encode(images=images)
        return [outputs[name] for name in names]

    return run, lambda encoded: decode(**dict(zip(names, encoded, strict=True)))["images"]


_LOADERS = {
    TENSORFLOW: _tensorflow,
    "TensorFlow, XLA": _xla,
    "ONNX Runtime": _onnx_runtime,
    "OpenVINO": _openvino,
    "LiteRT": _litert,
}
