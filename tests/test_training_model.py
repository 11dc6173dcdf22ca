"""The model: units that fold away, a frozen encoder, two precisions, a loss that falls."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import photographs
from training import initial_weights, model, optimizers
from training.config import TrainConfig
from unpooling import vgg19, weights
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder
from unpooling.errors import UserError

LOSS = {"l1": 10.0, "l2": 1.0, "ms_ssim": 0.0, "perceptual": 0.1}


@pytest.fixture(scope="module")
def images():
    return tf.constant(np.stack([photographs.picture(n, 32, 40) for n in range(3)]), tf.float32)


def asked(layer, loss=None, **changes):
    weighted = {f"{term}_weight": weight for term, weight in (loss or LOSS).items()}
    wanted = {"initial_kernels": "he_normal", "photos": "photos", **weighted, **changes}
    return TrainConfig(layer=layer, **wanted)


def start(config, images):
    """The decoder's first layers, and the names of those that come from a file."""
    encoder = weights.load("random", config.layer).layers
    return initial_weights.initial_layers(config, encoder, images)


def make(layer, images, loss=None, **changes):
    config = asked(layer, loss, **changes)
    encoder = weights.load("random", layer).layers
    layers, _ = start(config, images)
    scale = model.root_mean_square(layer, encoder, images)
    made = model.Reconstruction(config, encoder, layers, scale)
    made.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    return made


def biased(made):
    """The same model with biases other than 0."""
    random = np.random.default_rng(0)
    for variable in made.trainable_variables:
        if variable.ndim == 1:
            variable.assign(random.normal(0, 0.3, variable.shape))
    return made


@pytest.mark.parametrize("layer", ["block1_conv2", "block3_conv2"])
def test_the_folded_weights_give_the_same_pictures(images, layer):
    made = biased(make(layer, images))
    encoder = Encoder(layer, weights.load("random", layer).layers)
    cut = images[..., :32, :]
    decoded = Decoder(layer, made.decoder_layers())(encoder(cut))
    np.testing.assert_allclose(made(cut), decoded, rtol=1e-3, atol=1e-2)
    assert decoded.shape == cut.shape


def test_the_scale_is_the_root_mean_square_of_features(images):
    layer = "block2_conv2"
    made = make(layer, images)
    features = Encoder(layer, weights.load("random", layer).layers).features(images)
    expected = np.sqrt(np.mean(np.square(features, dtype=np.float64)))
    np.testing.assert_allclose(made.feature_scale, expected, rtol=1e-4)
    assert 5 < np.std(made(images)) < 500  # So the first pictures are of the size of pixels.
    with pytest.raises(UserError, match="root mean square above 0"):
        config = asked(layer)
        layers, _ = start(config, images)
        model.Reconstruction(config, weights.load("random", layer).layers, layers, 0.0)


def test_only_the_decoder_learns(images):
    made = make("block2_conv2", images)  # whose names `make_optimizer` looks for
    names = [c.name for c in vgg19.convolutions("block2_conv2", "decoder")]
    expected = [f"{name}_{part}" for name in names for part in ("kernel", "bias")]
    assert [v.name for v in made.trainable_variables] == expected
    assert not made.non_trainable_variables
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(made(images) ** 2)
    for gradient in tape.gradient(loss, [v.value for v in made.trainable_variables]):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_the_metrics_are_the_terms_of_the_loss(images):
    made = make("block1_conv2", images, {**LOSS, "perceptual": 0.5})
    batches = tf.data.Dataset.from_tensors((images, tf.constant([1.0, 1.0, 0.0])))
    found = made.evaluate(batches, return_dict=True, verbose=0)
    kept, decoded = images[:2], made(images)[:2]
    encoder = Encoder("block1_conv2", weights.load("random", "block1_conv2").layers)
    expected = {
        "l1": np.mean(np.abs(kept - decoded)),
        "l2": np.mean((kept - decoded) ** 2),
        "perceptual": np.mean((encoder(kept) - encoder(decoded)) ** 2),
    }
    expected["loss"] = 10 * expected["l1"] + expected["l2"] + 0.5 * expected["perceptual"]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)


def test_bfloat16_is_close_to_float32_and_falls_too(images):
    found = {}
    for precision in ("float32", "bfloat16"):
        made = make("block2_conv2", images[:1, :16, :16], precision=precision)
        batches = tf.data.Dataset.from_tensors(images[:1, :16, :16]).repeat()
        fit = made.fit(batches, epochs=3, steps_per_epoch=8, shuffle=False, verbose=0)
        found[precision] = np.array(fit.history["loss"])
        assert all(v.dtype == "float32" for v in made.variables)
        assert (np.diff(found[precision]) < 0).all()
        assert fit.history["l1"][-1] < 0.6 * fit.history["l1"][0]
    np.testing.assert_allclose(found["bfloat16"], found["float32"], rtol=0.1)
    assert (found["bfloat16"] != found["float32"]).all()


def test_in_bfloat16_a_decoder_learns_from_what_the_encoder_returns(images, monkeypatch):
    cut, given = images[..., :32, :], []
    made = make("block3_conv2", cut, precision="bfloat16")
    decode = model.decoder.decode

    def spy(layer, convolution, features, switches):
        given.extend([features, *switches])
        return decode(layer, convolution, features, switches)

    monkeypatch.setattr(model.decoder, "decode", spy)
    made.train_step(cut)
    encoder = Encoder("block3_conv2", weights.load("random", "block3_conv2").layers)
    features, *switches = encoder.compact(cut)
    assert given[0].dtype == tf.bfloat16
    np.testing.assert_array_equal(given[0], tf.cast(features, tf.bfloat16))
    for ours, theirs in zip(given[1:], switches, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_keras_can_be_configured_otherwise(images, monkeypatch):
    monkeypatch.setattr(keras.config, "floatx", lambda: "float16")
    monkeypatch.setattr(keras.config, "max_epochs", lambda: 2)
    with pytest.raises(UserError, match=r"unset `floatx` in keras.json, KERAS_MAX_EPOCHS\.$"):
        model.check_keras()
    monkeypatch.undo()
    model.check_keras()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = make("block1_conv2", images)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(mixed(images), make("block1_conv2", images)(images))


@pytest.mark.parametrize(
    "warm_up, expected",
    [
        (0, {0: 1e-3, 50: 6e-4, 100: 2e-4, 200: 2e-4}),
        (20, {0: 0, 10: 5e-4, 20: 1e-3, 60: 6e-4, 100: 2e-4, 200: 2e-4}),
    ],
)
def test_the_learning_rate_rises_and_falls_in_equal_steps(warm_up, expected):
    rates = optimizers.Linear(1e-3, 2e-4, 100, warm_up)
    found = [float(rates(step)) for step in expected]
    np.testing.assert_allclose(found, list(expected.values()), rtol=1e-5)


def test_adam_is_the_published_one():
    adam = optimizers.make_optimizer(asked("block1_conv2"), 10)
    assert (adam.beta_1, adam.beta_2, adam.epsilon) == (0.9, 0.999, 1e-7)
    assert adam.weight_decay is None


def soap_by_numpy(values, gradients, rate, every):
    """Adam with a memory of 100 steps; for a kernel, in a basis for each of its axes."""
    axes = range(values.ndim) if values.ndim > 1 else ()
    bases = {axis: np.eye(values.shape[axis]) for axis in axes}
    covariances = dict.fromkeys(axes, 0.0)

    def turn(tensor, matrices):
        for axis, matrix in matrices.items():
            tensor = np.moveaxis(np.moveaxis(tensor, axis, -1) @ matrix, -1, axis)
        return tensor

    mean = square = 0.0
    for step, gradient in enumerate(gradients, 1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * turn(gradient, bases) ** 2
        unbiased = turn(mean, bases) / (1 - 0.9**step), np.sqrt(square / (1 - 0.99**step))
        change = turn(unbiased[0] / unbiased[1], {axis: bases[axis].T for axis in axes})
        values = values - rate * change
        for axis in axes:
            rows = np.moveaxis(gradient, axis, 0).reshape(gradient.shape[axis], -1)
            covariances[axis] = 0.95 * covariances[axis] + 0.05 * rows @ rows.T
            if step % every == 0:
                bases[axis] = np.linalg.qr(covariances[axis] @ bases[axis])[0]
    return values


def test_soap_is_adam_in_other_bases():
    random = np.random.default_rng(0)
    shapes = {"a_kernel": (3, 3, 4, 5), "b_kernel": (3, 3, 2, 3), "a_bias": (7,)}
    first = {name: random.normal(size=shape) for name, shape in shapes.items()}
    gradients = {name: random.normal(size=(12, *shape)) for name, shape in shapes.items()}
    soap = optimizers.Soap(0.01, every=5)
    variables = [keras.Variable(np.float32(value), name=name) for name, value in first.items()]
    for step in range(12):
        soap.apply([tf.constant(g[step], tf.float32) for g in gradients.values()], variables)
    for variable in variables:
        name = variable.name
        expected = soap_by_numpy(first[name], gradients[name], 0.01, 5)
        np.testing.assert_allclose(variable, expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_mirrored_kernels_are_the_encoders_transposed_and_scaled(images):
    layer = "block2_conv2"
    encoder = weights.load("random", layer).layers
    layers, copied = start(asked(layer, initial_kernels="mirrored"), images)
    assert not copied
    for mine in vgg19.convolutions(layer, "decoder"):
        kernel, bias = layers[mine.name]
        assert kernel.shape == mine.kernel_shape and bias.shape == (mine.out_channels,)
        # The transposed convolution is the gradient of the encoder's.
        values = np.random.default_rng(0).normal(size=(1, 8, 8, mine.in_channels)).astype("f4")
        its = mine.name.removeprefix("decoder_")
        if its not in encoder:  # It mirrors none, and starts as the identity.
            unchanged = tf.nn.conv2d(values, kernel, 1, "SAME") + bias
            np.testing.assert_array_equal(unchanged, values)
            continue
        gradient = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=[1, 8, 8, mine.out_channels],
            filter=encoder[its][0],
            out_backprop=values,
            strides=[1, 1, 1, 1],
            padding="SAME",
        )
        mirrored = tf.nn.conv2d(values, kernel, 1, "SAME")
        gain = np.vdot(mirrored, gradient) / np.vdot(gradient, gradient)
        assert gain > 0
        np.testing.assert_allclose(mirrored, gain * gradient, rtol=0, atol=1e-4 * np.max(mirrored))
    # The first pictures have the mean of all pictures, and are fainter than these.
    made = make(layer, images, initial_kernels="mirrored")
    np.testing.assert_allclose(np.mean(made(images), axis=(0, 1, 2)), model.MEAN_RGB, atol=1)
    assert 10 < np.std(made(images) - model.MEAN_RGB) < 40


def save(made, path):
    weights.save(str(path), made.decoder_layers())
    return str(path)


def test_a_decoder_of_the_same_layer_is_copied_whole(images, tmp_path):
    made = biased(make("block2_conv2", images))
    again = make("block2_conv2", images, initial_weights=save(made, tmp_path / "decoder.h5"))
    np.testing.assert_allclose(again(images), made(images), rtol=1e-3, atol=1e-2)


# Those after an unpooling only from a decoder with as many there: they follow each other.
@pytest.mark.parametrize(
    "other, layer, common",
    [
        ("block1_conv2", "block2_conv2", ["block1_conv2", "block1_conv1"]),
        ("block2_conv2", "block1_conv2", ["block1_conv2", "block1_conv1"]),
        (
            "block2_conv2",
            "block3_conv2",
            ["block2_conv2", "block2_conv1", "block1_conv2", "block1_conv1"],
        ),
        (
            "block3_conv2",
            "block4_conv2",
            [
                *("block3_conv2", "block3_conv1", "block2_conv3", "block2_conv2", "block2_conv1"),
                *("block1_conv3", "block1_conv2", "block1_conv1"),
            ],
        ),
    ],
)
def test_of_a_decoder_of_another_layer_the_common_convolutions_are_copied(
    images, tmp_path, other, layer, common
):
    made = biased(make(other, images))
    path = save(made, tmp_path / "decoder.h5")
    layers, copied = start(asked(layer, initial_weights=path), images)
    assert copied == [f"decoder_{name}" for name in common]
    random = weights.load_decoder("random", layer).layers
    for name, (kernel, bias) in layers.items():
        if name in copied:
            expected = np.reshape(made._decoder[name][0], kernel.shape), made._decoder[name][1]
        else:
            expected = random[name]
        np.testing.assert_allclose(kernel, expected[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(bias, expected[1], rtol=1e-3, atol=1e-4)
