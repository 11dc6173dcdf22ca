"""The model: units that fold away, a frozen encoder, two precisions, a loss that falls."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from export import vgg19, weights
from export.decoder import Decoder
from export.encoder import Encoder
from tests import photographs
from training import initial, losses, model, schedule

NO_SSIM = losses.LossWeights(ms_ssim=0.0)


@pytest.fixture(scope="module")
def images():
    return tf.constant(np.stack([photographs.picture(n, 32, 40) for n in range(3)]), tf.float32)


def make(layer, images, loss_weights=NO_SSIM, precision="float32", source=None):
    encoder = weights.load("random", layer).layers
    layers, _ = initial.initial_layers(layer, 0, source, encoder, images)
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
    rates = schedule.linear(1e-3, 2e-4, 100)
    np.testing.assert_allclose(
        [float(rates(step)) for step in (0, 50, 100, 200)], [1e-3, 6e-4, 2e-4, 2e-4], rtol=1e-5
    )
    adam = schedule.optimizer(1e-3, 2e-4, 100)
    assert (adam.beta_1, adam.beta_2, adam.epsilon) == (0.9, 0.999, 1e-7)


def test_what_cannot_be_made_is_refused(images):
    with pytest.raises(ValueError, match="`precision` must be one of float32, bfloat16"):
        make("block1_conv2", images, precision="float16")
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
    layers, taken = initial.initial_layers("block2_conv2", 0, source, encoder, images)
    assert taken == ["decoder_block1_conv2", "decoder_block1_conv1"]
    random = weights.load_decoder("random", "block2_conv2").layers
    for name, pair in layers.items():
        theirs = pair if name in taken else random[name]
        for ours, expected in zip(pair, theirs, strict=True):
            np.testing.assert_array_equal(ours, expected)
    for (kernel, bias), name in zip((layers[n] for n in taken), taken, strict=True):
        np.testing.assert_allclose(kernel, shallow._decoder[name][0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(bias, shallow._decoder[name][1], rtol=1e-3, atol=1e-4)


def test_of_a_deeper_decoder_too(images, tmp_path):
    deep = biased(make("block2_conv2", images))
    source = save(deep, tmp_path / "decoder.h5")
    encoder = weights.load("random", "block1_conv2").layers
    layers, taken = initial.initial_layers("block1_conv2", 0, source, encoder, images)
    assert taken == list(layers)
    for name in taken:
        np.testing.assert_allclose(layers[name][0], deep._decoder[name][0], rtol=1e-4, atol=1e-6)


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
            initial.initial_layers("block1_conv2", 0, str(tmp_path / name), encoder, images)
