"""Reloads an archive as a stranger would and holds it against what an encoder promises.

    python -m export.verify PATH/TO/encoder.tar.gz [PATH/TO/encoder.manifest.json]

prints one line for each check; the exit status is 0 only if all of them passed. SHA256SUMS, the
manifest, the card and the diagram are checked too if they lie beside the archive. Nothing of the
archive is loaded before its files and its graph have been looked at. Nothing of this package's own
encoder is used: features and switches are compared with `keras.applications.VGG19` carrying the
archive's weights.
"""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from export import archive, card, checksums, diagram, fingerprint, graph, manifest, text, vgg19

__all__ = ["Check", "run_in_fresh_process", "verify"]

# Two float32 computations of the same features may differ by rounding: relative to the largest.
_TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Check:
    """The outcome of one check: its name, whether it passed, and what was seen."""

    name: str
    passed: bool
    detail: str

    def __str__(self):
        return f"{'ok    ' if self.passed else 'FAILED'} {self.name}: {self.detail}"


def verify(path: str, manifest_path: str | None = None) -> Iterator[Check]:
    """Checks the archive at `path`, and what else of an artifact lies beside it.

    Args:
      path: an `encoder.tar.gz`.
      manifest_path: the manifest to hold it against; by default the one beside it, if any.

    Yields:
      A `Check` for each promise. Once something is wrong with the files or the graph, or the
      SavedModel cannot be loaded, the rest is left out.
    """
    with tempfile.TemporaryDirectory() as directory:
        subject = _Subject(path, manifest_path, directory)
        for name, function, needed in _CHECKS:
            try:
                check = Check(name, True, function(subject))
            except Exception as error:  # Whatever a broken archive makes TensorFlow raise.
                check = Check(name, False, text.one_line(error) or type(error).__name__)
            yield check
            if needed and not check.passed:
                return


def run_in_fresh_process(path: str) -> None:
    """Runs `python -m export.verify` on the archive at `path` and prints its lines as they come.

    Temporary files go into the archive's folder, so that they vanish with it if it is one.

    Raises:
      ValueError: if a check failed; the message names the failed ones.
    """
    root = pathlib.Path(__file__).parent.parent
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "export.verify", os.path.abspath(path)],
            cwd=root,
            env={**os.environ, "TMPDIR": os.path.dirname(os.path.abspath(path))},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        failed = []
        with process:
            for line in process.stdout:
                print(f"  {line}", end="", flush=True)
                if line.startswith("FAILED"):
                    failed.append(line.split(maxsplit=1)[1].strip())
        if process.returncode != 0 and not failed:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["no message"])[-1]
            failed.append(f"the check broke off with status {process.returncode}: {last}")
    if failed:
        raise ValueError(f"the built archive does not keep its contract: {'; '.join(failed)}")


class _Subject:
    """What the checks look at; each check adds what the next ones need."""

    def __init__(self, path, manifest_path, directory):
        self.path = path
        self.manifest_path = manifest_path
        self.directory = directory
        self.manifest = None  # as `manifest.read` returns it
        self.loaded = None  # the loaded SavedModel
        self.layer = None  # one of vgg19.LAYERS
        self.blocks = None
        self.index_dtype = None
        self.pooling = None  # "argmax" or "xla"

    @property
    def convolutions(self):
        return [c for block in self.blocks for c in block.convolutions]

    @property
    def pooled_blocks(self):
        return [block for block in self.blocks if block.pooled]

    def beside(self, name):
        """The path of a file beside the archive, or None if it is not there."""
        path = pathlib.Path(self.path).with_name(name)
        return str(path) if os.path.lexists(path) else None

    def pictures(self):
        """Pictures of several sizes and batches: (name, (B, H, W, 3) float32 in [0, 255])."""
        scale = vgg19.downsampling(self.layer)
        random = np.random.default_rng(0)
        for batch, height, width in (
            (1, 2 * scale, 2 * scale),
            (3, scale, 3 * scale),
            (2, 2 * scale + 5, scale + 3),
            (1, scale, scale),
        ):
            picture = random.uniform(0, 255, (batch, height, width, 3)).astype(np.float32)
            yield f"{batch}x{height}x{width}", picture
        yield "flat", np.full((1, 2 * scale, 2 * scale, 3), 128, np.float32)

    def call(self, images):
        """The outputs of a call as a list of NumPy arrays."""
        outputs = self.loaded(tf.constant(images))
        return [output.numpy() for output in _as_list(outputs)]


def _checksums(subject):
    if not subject.beside(checksums.FILE):
        return "none beside the archive"
    folder, name = os.path.split(os.path.abspath(subject.path))
    return f"{', '.join(checksums.check(folder, needed=name))} as listed"


def _manifest(subject):
    path = subject.manifest_path or subject.beside("encoder.manifest.json")
    if not path:
        return "none beside the archive"
    subject.manifest = manifest.read(path)
    manifest.check_archive(subject.manifest, subject.path)
    return "archive, tar and members have the hashes it states"


def _members(subject):
    archive.unpack(subject.path, subject.directory)
    archive.check_form(subject.path)
    return ", ".join(archive.members())


def _fingerprint(subject):
    return f"fits the files, UUID {fingerprint.check(subject.directory)}"


def _graph(subject):
    return graph.check(subject.directory)


def _loads(subject):
    subject.loaded = tf.saved_model.load(subject.directory)
    names = [_plain(v) for v in subject.loaded.variables]
    layers = [name.split("/")[0] for name in names if name.endswith("/kernel")]
    if not layers or layers[-1] not in vgg19.LAYERS:
        raise ValueError(f"the last convolution is none of {', '.join(vgg19.LAYERS)}")
    subject.layer = layers[-1]
    subject.blocks = vgg19.blocks_up_to(subject.layer)
    serving = subject.loaded.signatures["serving_default"].graph.as_graph_def()
    operations = {node.op for function in serving.library.function for node in function.node_def}
    has_argmax = "MaxPoolWithArgmax" in operations or len(subject.blocks) == 1
    subject.pooling = "argmax" if has_argmax else "xla"
    return f"an encoder up to {subject.layer}, {subject.pooling} pooling"


def _signatures(subject):
    signatures = subject.loaded.signatures
    dtypes = {
        spec.dtype.name
        for name, spec in signatures["serving_default"].structured_outputs.items()
        if name != "features"
    }
    _expect(len(dtypes) <= 1 and dtypes <= {"int64", "int32"}, f"index dtypes {sorted(dtypes)}")
    subject.index_dtype = dtypes.pop() if dtypes else "int64"
    features = {"features": ("float32", (None, None, None, subject.blocks[-1].channels))}
    indices = {b.indices_name: (subject.index_dtype, (None, 4)) for b in subject.pooled_blocks}
    switches = {
        b.switches_name: ("uint8", (None, None, None, b.channels)) for b in subject.pooled_blocks
    }
    promised = {
        "serving_default": {**features, **indices},
        "compact": {**features, **switches},
        "features": features,
    }
    _expect(set(signatures) == set(promised), f"signatures {sorted(signatures)}")
    for name, outputs in promised.items():
        (_, inputs) = signatures[name].structured_input_signature
        found = {key: (spec.dtype.name, tuple(spec.shape)) for key, spec in inputs.items()}
        _expect(found == {"images": ("float32", (None, None, None, 3))}, f"{name} takes {found}")
        found = {
            key: (spec.dtype.name, tuple(spec.shape))
            for key, spec in signatures[name].structured_outputs.items()
        }
        _expect(found == outputs, f"{name} returns {found}, not {outputs}")
    return "; ".join(f"{name}: images -> {', '.join(promised[name])}" for name in promised)


def _variables(subject):
    expected = [
        (f"{c.name}/{part}", shape)
        for c in subject.convolutions
        for part, shape in (("kernel", c.kernel_shape), ("bias", (c.out_channels,)))
    ]
    for attribute in ("variables", "trainable_variables"):
        found = [(_plain(v), tuple(v.shape)) for v in getattr(subject.loaded, attribute)]
        _expect(found == expected, f"{attribute} are {found}")
    _expect(all(v.trainable for v in subject.loaded.variables), "a variable is not trainable")
    _expect(
        all(np.isfinite(v.numpy()).all() for v in subject.loaded.variables),
        "a variable holds NaN or infinite values",
    )
    losses = list(subject.loaded.regularization_losses)
    _expect(losses == [], f"regularization_losses are {losses}")
    return f"{len(expected)} trainable, named after Keras' layers"


def _weights(subject):
    """Holds which encoder it is, and its weights, against the manifest."""
    if subject.manifest is None:
        return "no manifest states them"
    values = {_plain(v): v.numpy() for v in subject.loaded.variables}
    manifest.check_model(
        subject.manifest,
        layer=subject.layer,
        index_dtype=subject.index_dtype,
        pooling=subject.pooling,
        weights={
            c.name: (values[f"{c.name}/kernel"], values[f"{c.name}/bias"])
            for c in subject.convolutions
        },
    )
    source = subject.manifest["weights"]["source"]
    return f"those of {len(subject.convolutions)} layers as stated, source: {source}"


def _outputs(subject):
    sizes = []
    for name, images in subject.pictures():
        batch, height, width, _ = images.shape
        outputs = subject.loaded(tf.constant(images))
        if subject.pooled_blocks:
            _expect(isinstance(outputs, list), f"a call returns a {type(outputs).__name__}")
        else:
            _expect(isinstance(outputs, tf.Tensor), f"a call returns a {type(outputs).__name__}")
            outputs = [outputs]
        expected = []
        for block in subject.pooled_blocks:
            height, width = height // 2, width // 2
            expected.append((subject.index_dtype, (batch * height * width * block.channels, 4)))
        expected.insert(0, ("float32", (batch, height, width, subject.blocks[-1].channels)))
        found = [(output.dtype.name, tuple(output.shape)) for output in outputs]
        _expect(found == expected, f"{name}: {found}, not {expected}")
        served = subject.loaded.signatures["serving_default"](images=tf.constant(images))
        names = ["features", *(block.indices_name for block in subject.pooled_blocks)]
        for key, output in zip(names, outputs, strict=True):
            _expect(_equal(served[key], output), f"{name}: {key} of serving_default differs")
        alone = subject.loaded.signatures["features"](images=tf.constant(images))["features"]
        _expect(_close(alone, outputs[0]), f"{name}: the signature features differs")
        _check_compact(subject, name, images, outputs)
        sizes.append(name)
    return f"shapes and dtypes as promised, also by signature, for {', '.join(sizes)}"


def _check_compact(subject, name, images, outputs):
    """Holds the method and the signature `compact` against the outputs of a call."""
    served = subject.loaded.signatures["compact"](images=tf.constant(images))
    features, *switches = _as_list(subject.loaded.compact(tf.constant(images)))
    _expect(_close(features, outputs[0]), f"{name}: features of compact differ")
    _expect(_equal(served["features"], features), f"{name}: the signature compact differs")
    batch, height, width, _ = images.shape
    for block, found, rows in zip(subject.pooled_blocks, switches, outputs[1:], strict=True):
        height, width = height // 2, width // 2
        rows = rows.numpy()
        expected = (2 * (rows[:, 1] % 2) + rows[:, 2] % 2).astype(np.uint8)
        expected = expected.reshape(batch, height, width, block.channels)
        where = f"{name}: {block.switches_name}"
        _expect(_equal(found, expected), f"{where} do not say the same as the indices")
        _expect(_equal(served[block.switches_name], found), f"{where} of the signature differ")


def _features_and_indices(subject):
    """Compares with Keras, block by block, and unpools."""
    # Whatever the user's keras.json says.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    maps = _keras_maps(subject)
    rows = 0
    for name, images in subject.pictures():
        features, *indices = subject.call(images)
        preprocessed = keras.applications.vgg19.preprocess_input(images)
        *before, expected = (value.numpy() for value in tf.nest.flatten(maps(preprocessed)))
        _expect(_close(features, expected), f"{name}: features differ from Keras' VGG19")
        for block, values, found in zip(subject.pooled_blocks, before, indices, strict=True):
            _check_indices(f"{name}: {block.indices_name}", values, found)
            rows += len(found)
    return f"features equal Keras' VGG19; {rows:,} indices in range, unique, each the maximum's"


def _keras_maps(subject):
    """A Keras model: preprocessed images -> the map before each pooling, and the features."""
    model = keras.applications.VGG19(include_top=False, weights=None)
    for v in subject.loaded.variables:
        layer, part = _plain(v).split("/")
        getattr(model.get_layer(layer), part).assign(v)
    names = [block.convolutions[-1].name for block in subject.blocks]
    return keras.Model(model.input, [model.get_layer(name).output for name in names])


def _check_indices(name, before, indices):
    """Holds (N, 4) index tuples against the map (B, H, W, C) that Keras pools there."""
    batch, height, width, channels = before.shape
    height, width = height // 2, width // 2
    _expect(
        (indices >= 0).all() and (indices < before.shape).all(),
        f"{name} are out of the map's range",
    )
    # The window of each row follows from its place; so no two rows can be equal either.
    place = np.indices((batch, height, width, channels)).reshape(4, -1).T
    _expect(
        (indices // [1, 2, 2, 1] == place).all(), f"{name} do not lie in the windows of their rows"
    )
    windows = before[:, : 2 * height, : 2 * width].reshape(batch, height, 2, width, 2, channels)
    windows = windows.transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4)  # row-major inside a window
    winners = (indices[:, 1] % 2) * 2 + indices[:, 2] % 2
    won = windows[np.arange(len(windows)), winners]
    doubt = np.sort(windows, axis=1)
    doubt = doubt[:, 3] - doubt[:, 2] <= _TOLERANCE * np.abs(before).max()
    _expect(
        ((winners == windows.argmax(axis=1)) | doubt).all(), f"{name} do not point at the maxima"
    )
    # Exact zeros are ties in any arithmetic: ReLU makes them, and the first must win.
    ties = (windows == 0).all(axis=1)
    _expect((winners[ties] == 0).all(), f"{name}: in a tie it is not the first that wins")
    unpooled = tf.scatter_nd(indices, won, before.shape).numpy()
    again = unpooled[:, : 2 * height, : 2 * width].reshape(batch, height, 2, width, 2, channels)
    _expect(
        np.array_equal(again.max(axis=(2, 4)).ravel(), won)
        and np.count_nonzero(unpooled) == np.count_nonzero(won),
        f"{name}: tf.scatter_nd does not put every maximum back",
    )


def _nan(subject):
    scale = vgg19.downsampling(subject.layer)
    shape = (1, 2 * scale, 2 * scale, 3)
    for value in (np.nan, np.inf, -np.inf):
        images = np.full(shape, 128, np.float32)
        images[0, :scale] = value
        _, *indices = subject.call(images)
        height, width = shape[1:3]
        for block, found in zip(subject.pooled_blocks, indices, strict=True):
            limit = (1, height, width, block.channels)
            _expect(((found >= 0) & (found < limit)).all(), f"{block.indices_name} leave the map")
            height, width = height // 2, width // 2
    return "indices stay in range for NaN and infinite pictures"


def _gradients(subject):
    scale = vgg19.downsampling(subject.layer)
    images = tf.random.stateless_uniform((1, 2 * scale, 2 * scale, 3), (0, 0), 0, 255)
    variables = list(subject.loaded.trainable_variables)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(_as_list(subject.loaded(images))[0])
    gradients = tape.gradient(loss, variables)
    for v, gradient in zip(variables, gradients, strict=True):
        _expect(gradient is not None, f"{_plain(v)} has no gradient")
        _expect(np.isfinite(gradient.numpy()).all(), f"{_plain(v)} has a gradient not finite")
        _expect(np.any(gradient.numpy() != 0), f"{_plain(v)} has a gradient of zeros")
    return f"finite and not zero for all {len(variables)} variables"


def _errors(subject):
    minimum = vgg19.downsampling(subject.layer)
    wrong_shapes = {
        "a picture without a batch axis": (32, 32, 3),
        "one channel": (1, 32, 32, 1),
        "four channels": (1, 32, 32, 4),
        "an empty batch": (0, 32, 32, 3),
    }
    if minimum > 1:
        wrong_shapes["a picture too small"] = (1, minimum - 1, 32, 3)
    # (what, input, how a message names what came, how it names what is needed)
    cases = [
        (
            what,
            tf.zeros(shape),
            r"[\[(]" + "[ ,]+".join(map(str, shape)) + r"[\])]",
            r"\(B, H, W, 3\)|\(None, None, None, 3\)",
        )
        for what, shape in wrong_shapes.items()
    ]
    valid = (1, 32, 32, 3)
    cases += [
        ("uint8", tf.zeros(valid, tf.uint8), "uint8", "float32|float tensor"),
        ("float64", tf.zeros(valid, tf.float64), "float64|double", "float32|float tensor"),
    ]
    signatures = subject.loaded.signatures
    calls = {
        "the call": subject.loaded,
        "serving_default": lambda images: signatures["serving_default"](images=images),
        "the signature compact": lambda images: signatures["compact"](images=images),
        "the signature features": lambda images: signatures["features"](images=images),
    }
    for what, images, received, needed in cases:
        for name, call in calls.items():
            message = _error_of(call, images)
            _expect(message is not None, f"{name} accepts {what}")
            _expect(
                re.search(received, message) and re.search(needed, message),
                f"{name} refuses {what} without saying what came and what is needed: {message}",
            )
    return f"{', '.join(what for what, *_ in cases)}: refused with what came and what is needed"


def _error_of(call, images):
    try:
        call(images)
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        return str(error)
    return None


def _xla(subject):
    """A training step under XLA, if the module was built for that."""
    if subject.pooling == "argmax":
        return "not promised by --pooling=argmax"
    minimum = vgg19.downsampling(subject.layer)
    images = tf.random.stateless_uniform((1, 2 * minimum, 3 * minimum, 3), (1, 0), 0, 255)
    variables = list(subject.loaded.trainable_variables)

    def step(images):
        with tf.GradientTape() as tape:
            outputs = _as_list(subject.loaded(images))
            loss = tf.reduce_mean(outputs[0])
        return outputs, tape.gradient(loss, variables)

    outputs, gradients = tf.function(step, jit_compile=True)(images)
    expected_outputs, expected_gradients = step(images)
    _expect(_close(outputs[0], expected_outputs[0]), "features differ")
    for found, expected in zip(outputs[1:], expected_outputs[1:], strict=True):
        _expect(_equal(found, expected), "indices differ")
    for v, found, expected in zip(variables, gradients, expected_gradients, strict=True):
        _expect(_close(found, expected), f"the gradient of {_plain(v)} differs")
    return "a training step compiles and gives the same outputs and gradients"


def _card(subject):
    path = subject.beside("encoder.md")
    if not path:
        return "none beside the archive"
    card.check(
        pathlib.Path(path).read_text(encoding="utf-8"),
        layer=subject.layer,
        index_dtype=subject.index_dtype,
        pooling=subject.pooling,
        archive_path=subject.path,
        source=subject.manifest["weights"]["source"] if subject.manifest else None,
    )
    return "keeps the hub's rules and describes this archive"


def _diagram(subject):
    path = subject.beside("encoder.png")
    if not path:
        return "none beside the archive"
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        diagram.draw(subject.layer, file.name)
        with Image.open(file.name) as drawn, Image.open(path, formats=["PNG"]) as picture:
            # The size stands in front: no pixel of a picture that is too large is ever decoded.
            _expect(picture.size == drawn.size, f"not the diagram of {subject.layer}")
            picture.load()
    return f"{picture.width}x{picture.height} pixels"


_CHECKS = (
    # (name, function, whether the rest needs it)
    ("checksums", _checksums, True),
    ("manifest", _manifest, True),
    ("members", _members, True),
    ("fingerprint", _fingerprint, True),
    ("graph", _graph, True),
    ("loads", _loads, True),
    ("signatures", _signatures, True),
    ("variables", _variables, True),
    ("weights", _weights, False),
    ("outputs", _outputs, False),
    ("features and indices", _features_and_indices, False),
    ("NaN", _nan, False),
    ("gradients", _gradients, False),
    ("wrong input", _errors, False),
    ("XLA", _xla, False),
    ("card", _card, False),
    ("diagram", _diagram, False),
)


def _expect(condition, message):
    if not condition:
        raise ValueError(message)


def _as_list(outputs):
    """Block1 returns a bare tensor, the others a list."""
    return outputs if isinstance(outputs, list) else [outputs]


def _plain(variable):
    return variable.name.removesuffix(":0")


def _equal(left, right):
    return np.array_equal(np.asarray(left), np.asarray(right))


def _close(left, right):
    left, right = np.asarray(left), np.asarray(right)
    scale = np.abs(right).max()
    return left.shape == right.shape and np.abs(left - right).max() <= _TOLERANCE * scale


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2):
        print(
            "usage: python -m export.verify PATH/TO/encoder.tar.gz [PATH/TO/encoder.manifest.json]",
            file=sys.stderr,
        )
        return 2
    passed = True
    for check in verify(*arguments):
        print(check, flush=True)
        passed = passed and check.passed
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
