"""The model: units that fold away, a frozen encoder, two precisions, a loss that falls."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import photographs
from training import callbacks, initial_weights, losses, model, optimizers
from unpooling import vgg19, weights
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder

NO_SSIM = losses.LossWeights(ms_ssim=0.0)


@pytest.fixture(scope="module")
def images():
    return tf.constant(np.stack([photographs.picture(n, 32, 40) for n in range(3)]), tf.float32)


def make(
    layer, images, loss_weights=NO_SSIM, precision="float32", source=None, kernels="he_normal"
):
    encoder = weights.load("random", layer).layers
    layers, _ = initial_weights.initial_layers(layer, 0, kernels, source, encoder, images)
    scale = model.root_mean_square(layer, encoder, images)
    made = model.Reconstruction(layer, encoder, layers, scale, loss_weights, precision)
    made.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    return made


def biased(made):
    """The same model with biases other than 0."""
    random = np.random.default_rng(0)
    for variable in made.trainable_variables:
        if variable.ndim == 1:
            variable.assign(random.normal(0, 0.3, variable.shape))
    return made


@pytest.mark.parametrize("layer", ["block1_conv2", "block2_conv2", "block3_conv2"])
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
    np.testing.assert_allclose(float(made.feature_scale), expected, rtol=1e-4)
    # So the first pictures are of the size of pixels.
    assert 5 < np.std(made(images)) < 500


def test_only_the_decoder_learns(images):
    made = make("block2_conv2", images)
    names = [c.name for block in vgg19.mirror("block2_conv2") for c in block.convolutions]
    assert [v.name for v in made.trainable_variables] == [
        f"{name}_{part}" for name in names for part in ("kernel", "bias")
    ]
    assert [v.name for v in made.non_trainable_variables] == ["feature_scale"]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(made(images) ** 2)
        assert {id(v) for v in tape.watched_variables()} <= {
            id(v.value) for v in made.trainable_variables
        }
    for gradient in tape.gradient(loss, [v.value for v in made.trainable_variables]):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_the_metrics_are_the_terms_of_the_loss(images):
    made = make("block1_conv2", images, losses.LossWeights(ms_ssim=0, perceptual=0.5))
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


def test_bfloat16_is_close_to_float32(images):
    found = {}
    for precision in ("float32", "bfloat16"):
        made = make("block2_conv2", images, precision=precision)
        made.optimizer = keras.optimizers.SGD(0.0)
        logs = made.train_step(images)
        found[precision] = {name: float(value) for name, value in logs.items()}
        assert all(v.dtype == "float32" for v in made.variables)
    for name, value in found["float32"].items():
        np.testing.assert_allclose(found["bfloat16"][name], value, rtol=0.05, err_msg=name)
    assert found["float32"] != found["bfloat16"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_loss_falls(images, precision):
    made = make("block2_conv2", images, precision=precision)
    batches = tf.data.Dataset.from_tensors(images).repeat()
    history = made.fit(batches, epochs=5, steps_per_epoch=10, shuffle=False, verbose=0).history
    assert history["l1"][-1] < 0.5 * history["l1"][0]
    assert history["loss"] == sorted(history["loss"], reverse=True)


def test_ms_ssim_is_learnt_from_random_weights():
    images = tf.constant(np.stack([photographs.picture(n, 176, 176) for n in range(2)]), tf.float32)
    made = make("block1_conv2", images, losses.LossWeights(l1=10, l2=0, perceptual=0))
    batches = tf.data.Dataset.from_tensors(images).repeat()
    history = made.fit(batches, epochs=2, steps_per_epoch=6, shuffle=False, verbose=0).history
    assert history["ms_ssim"][1] < history["ms_ssim"][0]


def test_the_learning_rate_goes_down_in_equal_steps():
    rates = optimizers.linear(1e-3, 2e-4, 100)
    np.testing.assert_allclose(
        [float(rates(step)) for step in (0, 50, 100, 200)], [1e-3, 6e-4, 2e-4, 2e-4], rtol=1e-5
    )


def test_the_learning_rate_can_rise_first():
    rates = optimizers.linear(1e-3, 2e-4, 100, warm_up=20)
    found = [float(rates(step)) for step in (0, 10, 20, 60, 100, 200)]
    np.testing.assert_allclose(found, [0, 5e-4, 1e-3, 6e-4, 2e-4, 2e-4], rtol=1e-5)
    again = type(rates).from_config(rates.get_config())
    assert [float(again(step)) for step in (10, 60)] == [found[1], found[3]]


def test_adam_is_the_published_one():
    adam = optimizers.optimizer("adam", 1e-3, "last")
    assert (adam.beta_1, adam.beta_2, adam.epsilon) == (0.9, 0.999, 1e-7)
    assert adam.weight_decay is None
    with pytest.raises(ValueError, match="`optimizer` must be one of adam, muon"):
        optimizers.optimizer("sgd", 1e-3, "last")


def test_muon_turns_kernels_and_adam_the_rest(images):
    made = make("block2_conv2", images)
    made.optimizer = optimizers.optimizer("muon", 1e-3, "decoder_block1_conv1")
    before = {v.name: v.numpy() for v in made.trainable_variables}
    made.train_step(images)
    for variable in made.trainable_variables:
        step = variable.numpy() - before[variable.name]
        if variable.ndim == 1 or variable.name == "decoder_block1_conv1_kernel":
            # Adam's first step is as large for every number.
            assert np.median(np.abs(step)) == pytest.approx(1e-3, rel=0.05), variable.name
        else:
            # Muon's has singular values that are all about alike.
            singular = np.linalg.svd(step, compute_uv=False)
            expected = 1e-3 * 0.2 * np.sqrt(max(step.shape))
            assert np.all(singular < 1.5 * expected), variable.name
            assert np.median(singular) > 0.5 * expected, variable.name


def test_muon_is_that_of_keras():
    def learn(optimizer):
        random = np.random.default_rng(0)
        variables = [
            keras.Variable(random.normal(size=shape).astype("f4"), name=name)
            for name, shape in (
                ("wide", (6, 9)),
                ("high", (9, 6)),
                ("last_kernel", (5, 4)),
                ("b", 7),
            )
        ]
        for _ in range(3):
            gradients = [tf.constant(random.normal(size=v.shape), tf.float32) for v in variables]
            optimizer.apply(gradients, variables)
        return [v.numpy() for v in variables]

    ours = learn(optimizers.Muon(0.01, by_adam=["last_kernel"]))
    arguments = {"adam_beta_2": 0.99, "weight_decay": None, "exclude_layers": ["last_kernel"]}
    try:
        theirs = learn(keras.optimizers.Muon(0.01, adam_weight_decay=None, **arguments))
    except (ValueError, AttributeError):
        pytest.skip("Keras 3.12 has another Muon, which does not work with TensorFlow")
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    again = optimizers.Muon.from_config(optimizers.Muon(0.01, by_adam=["last_kernel"]).get_config())
    for found, expected in zip(learn(again), ours, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_mirrored_kernels_are_the_encoders_transposed_and_scaled(images):
    layer = "block2_conv2"
    encoder = weights.load("random", layer).layers
    layers, taken = initial_weights.initial_layers(layer, 0, "mirrored", None, encoder, images)
    assert not taken
    ours, theirs = vgg19.convolutions(layer, "decoder"), reversed(vgg19.convolutions(layer))
    for mine, its in zip(ours, theirs, strict=True):
        kernel, bias = layers[mine.name]
        assert kernel.shape == mine.kernel_shape and bias.shape == (mine.out_channels,)
        # The transposed convolution is the gradient of the encoder's.
        values = np.random.default_rng(0).normal(size=(1, 8, 8, mine.in_channels)).astype("f4")
        gradient = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=[1, 8, 8, mine.out_channels],
            filter=encoder[its.name][0],
            out_backprop=values,
            strides=[1, 1, 1, 1],
            padding="SAME",
        )
        mirrored = tf.nn.conv2d(values, kernel, 1, "SAME")
        gain = np.vdot(mirrored, gradient) / np.vdot(gradient, gradient)
        assert gain > 0
        np.testing.assert_allclose(mirrored, gain * gradient, rtol=0, atol=1e-4 * np.max(mirrored))
    # The first pictures have the mean of all pictures, and are fainter than these.
    made = make(layer, images, kernels="mirrored")
    np.testing.assert_allclose(np.mean(made(images), axis=(0, 1, 2)), model.MEAN_RGB, atol=1)
    assert 10 < np.std(made(images) - model.MEAN_RGB) < 40


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_an_optimizer_goes_on_where_its_backup_ended(images, tmp_path, name):
    def run(epochs):
        made = make("block2_conv2", images, kernels="mirrored")
        rates = optimizers.linear(1e-3, 0.0, 4, warm_up=1)
        made.compile(
            optimizer=optimizers.optimizer(name, rates, "decoder_block1_conv1"), jit_compile=False
        )
        made.optimizer.build(made.trainable_variables)
        made.fit(
            tf.data.Dataset.from_tensors(images).repeat(),
            epochs=epochs,
            steps_per_epoch=2,
            shuffle=False,
            verbose=0,
            callbacks=[callbacks.Backup(str(tmp_path / str(len(kept))))],
        )
        return made.decoder_layers()

    kept = []
    whole = run(2)
    kept.append("another folder")
    run(1)
    for layer, pair in run(2).items():
        for found, expected in zip(pair, whole[layer], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_made_is_refused(images):
    with pytest.raises(ValueError, match="`precision` must be one of float32, bfloat16"):
        make("block1_conv2", images, precision="float16")
    with pytest.raises(ValueError, match="`kernels` must be one of mirrored, he_normal"):
        make("block1_conv2", images, kernels="orthogonal")
    with pytest.raises(ValueError, match="at least one term"):
        make("block1_conv2", images, losses.LossWeights(0, 0, 0, 0))
    with pytest.raises(ValueError, match="root mean square above 0"):
        layers = weights.load_decoder("random", "block1_conv2").layers
        model.Reconstruction(
            "block1_conv2", weights.load("random", "block1_conv2").layers, layers, 0.0
        )


def save(made, path):
    weights.save(str(path), made.decoder_layers())
    return str(path)


def test_a_decoder_of_the_same_layer_is_taken_over_whole(images, tmp_path):
    made = biased(make("block2_conv2", images))
    source = save(made, tmp_path / "decoder.h5")
    again = make("block2_conv2", images, source=source)
    np.testing.assert_allclose(again(images), made(images), rtol=1e-3, atol=1e-2)


def test_of_a_shallower_decoder_the_common_convolutions_are_taken_over(images, tmp_path):
    shallow = biased(make("block1_conv2", images))
    source = save(shallow, tmp_path / "decoder.h5")
    encoder = weights.load("random", "block2_conv2").layers
    layers, taken = initial_weights.initial_layers(
        "block2_conv2", 0, "he_normal", source, encoder, images
    )
    assert taken == ["decoder_block1_conv2", "decoder_block1_conv1"]
    random = weights.load_decoder("random", "block2_conv2").layers
    for name, pair in layers.items():
        theirs = pair if name in taken else random[name]
        for ours, expected in zip(pair, theirs, strict=True):
            np.testing.assert_array_equal(ours, expected)
    for (kernel, bias), name in zip((layers[n] for n in taken), taken, strict=True):
        learnt = np.reshape(shallow._decoder[name][0], kernel.shape)
        np.testing.assert_allclose(kernel, learnt, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(bias, shallow._decoder[name][1], rtol=1e-3, atol=1e-4)


def test_of_a_deeper_decoder_too(images, tmp_path):
    deep = biased(make("block2_conv2", images))
    source = save(deep, tmp_path / "decoder.h5")
    encoder = weights.load("random", "block1_conv2").layers
    layers, taken = initial_weights.initial_layers(
        "block1_conv2", 0, "mirrored", source, encoder, images
    )
    assert taken == list(layers)
    for name in taken:
        learnt = np.reshape(deep._decoder[name][0], layers[name][0].shape)
        np.testing.assert_allclose(layers[name][0], learnt, rtol=1e-4, atol=1e-6)


def test_a_file_that_is_no_decoder_is_refused(images, tmp_path):
    weights.save(str(tmp_path / "encoder.h5"), weights.load("random", "block1_conv2").layers)
    (tmp_path / "text.h5").write_text("no weights")
    encoder = weights.load("random", "block1_conv2").layers
    for name, words in (
        ("encoder.h5", "layer decoder_block1_conv2: missing"),
        ("text.h5", "not a readable HDF5 file"),
        ("missing.h5", "no such file"),
    ):
        with pytest.raises(ValueError, match=words):
            source = str(tmp_path / name)
            initial_weights.initial_layers("block1_conv2", 0, "mirrored", source, encoder, images)
