"""A loaded module, and the checks that encoders and decoders share."""

import dataclasses
import re
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from export.spec import Spec
from unpooling import options, vgg19

__all__ = [
    "TOLERANCE",
    "Loaded",
    "check_gradients",
    "check_signatures",
    "check_variables",
    "check_xla",
    "close",
    "expect",
    "expect_refused",
    "load",
]

# Two float32 computations of the same features may differ by rounding: relative to the largest.
TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A loaded SavedModel.

    Attributes:
      module: what `tf.saved_model.load` returned.
      spec: what it is, according to its variables and its graph.
    """

    module: object
    spec: Spec

    @property
    def variables(self) -> dict[str, tf.Variable]:
        return {_name(v): v for v in self.module.variables}

    @property
    def layers(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Kernel and bias of each convolution."""
        values = {name: v.numpy() for name, v in self.variables.items()}
        names = [c.name for c in self.spec.convolutions]
        return {name: (values[f"{name}/kernel"], values[f"{name}/bias"]) for name in names}

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor | list[tf.Tensor]:
        """Calls the module with a list, or with the bare tensor in a list of one."""
        return self.module(inputs if len(inputs) > 1 else inputs[0])


def load(directory: str) -> tuple[str, Loaded]:
    """Loads the SavedModel in `directory`, and says in words what it is.

    Raises:
      ValueError: if it is neither an encoder nor a decoder, or a decoder that an earlier version
        built.
    """
    # On a GPU, TensorFlow would round the inputs of convolutions to 10 bits: see `TOLERANCE`.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    # Whatever the user's keras.json says.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    module = tf.saved_model.load(directory)
    names = [_name(v) for v in module.variables]
    layers = [name.removesuffix("/kernel") for name in names if name.endswith("/kernel")] or [""]
    mirrored = layers[0].removeprefix("decoder_")
    if layers[-1] in vgg19.LAYERS:
        spec = Spec("encoder", layers[-1], *_index_dtype_and_engine(module))
    elif mirrored != layers[0] and mirrored in vgg19.LAYERS:
        spec = Spec("decoder", mirrored)
    else:
        raise ValueError(
            f"the last convolution of an encoder is one of {', '.join(vgg19.LAYERS)}, and so is "
            f"the first of a decoder, after decoder_. Received: {', '.join(layers):.200}"
        )
    if wrong := spec.lacks(layers):
        raise ValueError(wrong)
    return str(spec), Loaded(module, spec)


def _index_dtype_and_engine(module):
    serving = module.signatures["serving_default"]
    dtypes = {s.dtype.name for name, s in serving.structured_outputs.items() if name != "features"}
    expect(len(dtypes) <= 1 and dtypes <= {*options.INDEX_DTYPES}, f"index dtypes {sorted(dtypes)}")
    library = serving.graph.as_graph_def().library
    operations = {node.op for function in library.function for node in function.node_def}
    return (*dtypes, "int64")[0], "argmax" if "MaxPoolWithArgmax" in operations else "xla"


def check_variables(loaded: Loaded) -> str:
    expected = []
    for c in loaded.spec.convolutions:
        expected += [(f"{c.name}/kernel", c.kernel_shape), (f"{c.name}/bias", (c.out_channels,))]
    for attribute in ("variables", "trainable_variables"):
        found = [(_name(v), tuple(v.shape)) for v in getattr(loaded.module, attribute)]
        expect(found == expected, f"{attribute} are {found}")
    for name, variable in loaded.variables.items():
        expect(variable.trainable, f"{name} is not trainable")
        expect(np.isfinite(variable.numpy()).all(), f"{name} holds NaN or infinite values")
    losses = list(loaded.module.regularization_losses)
    expect(losses == [], f"regularization_losses are {losses}")
    return f"{len(expected)} trainable, with the names and shapes of {loaded.spec.kind}s"


def check_signatures(loaded: Loaded) -> str:
    """An encoder makes features and positions of images, a decoder the reverse."""
    spec = loaded.spec
    images = {"images": ("float32", (None, None, None, 3))}
    features = {"features": ("float32", (None, None, None, spec.channels))}
    indices = {b.indices_name: (spec.index_dtype or "int64", (None, 4)) for b in spec.pooled}
    switches = {b.switches_name: ("uint8", (None, None, None, b.channels)) for b in spec.pooled}
    promised = {"serving_default": features | indices, "compact": features | switches}
    if spec.kind == "encoder":
        promised["features"] = features
    signatures = loaded.module.signatures
    expect(set(signatures) == set(promised), f"signatures {sorted(signatures)}")
    for name, encoded in promised.items():
        wanted = [images, encoded] if spec.kind == "encoder" else [encoded, images]
        _, inputs = signatures[name].structured_input_signature
        found = [
            {key: (spec.dtype.name, tuple(spec.shape)) for key, spec in specs.items()}
            for specs in (inputs, signatures[name].structured_outputs)
        ]
        expect(found == wanted, f"{name}: {found[0]} -> {found[1]}, not {wanted[0]} -> {wanted[1]}")
    return "; ".join(f"{name}: {', '.join(encoded)}" for name, encoded in promised.items())


def check_gradients(loaded: Loaded, example: Sequence[tf.Tensor]) -> str:
    """Differentiates a call with the inputs `example` by the first of them and all variables."""
    sources = {"the input": example[0], **loaded.variables}
    with tf.GradientTape() as tape:
        tape.watch(example[0])
        loss = _loss(tf.nest.flatten(loaded.call(example)))
    for name, gradient in tape.gradient(loss, sources).items():
        expect(gradient is not None, f"{name} has no gradient")
        expect(np.isfinite(gradient.numpy()).all(), f"{name} has a gradient that is not finite")
        expect(np.any(gradient.numpy() != 0), f"{name} has a gradient of zeros")
    return f"finite and not zero for the input and all {len(sources) - 1} variables"


def check_xla(loaded: Loaded, example: Sequence[tf.Tensor]) -> str:
    """Compares a training step compiled by XLA with the same step without it."""

    def step(inputs):
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(loaded.call(inputs))
            loss = _loss(outputs)
        return outputs, tape.gradient(loss, loaded.variables)

    outputs, gradients = tf.function(step, autograph=False, jit_compile=True)(example)
    expected_outputs, expected_gradients = step(example)
    for number, (found, expected) in enumerate(zip(outputs, expected_outputs, strict=True)):
        expect(close(found, expected), f"output {number} differs")
    for name, expected in expected_gradients.items():
        expect(close(gradients[name], expected), f"the gradient of {name} differs")
    return "a training step compiles and gives the same outputs and gradients"


def _loss(outputs):
    return tf.reduce_mean(outputs[0] ** 2)


def _name(variable):
    return variable.name.removesuffix(":0")


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def expect_refused(call: Callable[[], object], name: str, what: str, *patterns: str) -> None:
    """Expects `call` to fail with a message in which every regular expression is found."""
    try:
        call()
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        said = all(re.search(pattern, str(error), re.DOTALL) for pattern in patterns)
        expect(said, f"{name} refuses {what} without saying what was received or needed: {error}")
    else:
        raise ValueError(f"{name} accepts {what}")


def close(left, right) -> bool:
    """Whether two arrays are equal, floats up to rounding, and of one dtype and shape."""
    left, right = np.asarray(left), np.asarray(right)
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.kind != "f":
        return np.array_equal(left, right)
    return np.abs(left - right).max() <= TOLERANCE * np.abs(right).max()
