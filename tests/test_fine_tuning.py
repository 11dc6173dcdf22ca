"""A loaded encoder can be trained, saved and loaded again."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub
import tf_keras

from unpooling import weights


def train(layer, variables, images, steps=3):
    """Lowers the mean square distance of the features to 1; returns the loss before each step."""
    optimizer = tf_keras.optimizers.Adam(1e-3)
    losses = []
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((layer(images)[0] - 1.0) ** 2)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        losses.append(float(loss))
    return losses


def test_a_few_steps_lower_the_loss_and_change_every_variable(saved_model, images):
    layer = hub.KerasLayer(saved_model("block5_conv2"), trainable=True)
    variables = layer.trainable_variables
    assert len(variables) == 28
    before = [v.numpy() for v in variables]
    losses = train(layer, variables, images)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]
    for variable, old in zip(variables, before, strict=True):
        assert np.isfinite(variable.numpy()).all()
        assert not np.array_equal(variable.numpy(), old), variable.name


def test_a_layer_that_is_not_trainable_has_no_trainable_variables(saved_model):
    layer = hub.KerasLayer(saved_model("block2_conv2"))
    assert layer.trainable_variables == []
    assert len(layer.variables) == 8


def test_some_layers_alone_can_be_unfrozen_by_name(saved_model, images):
    layer = hub.KerasLayer(saved_model("block2_conv2"), trainable=True)
    before = {v.name: v.numpy() for v in layer.variables}
    chosen = [v for v in layer.trainable_variables if v.name.startswith("block2_")]
    train(layer, chosen, images, steps=1)
    changed = {v.name for v in layer.variables if not np.array_equal(v.numpy(), before[v.name])}
    assert changed == {v.name for v in chosen}
    assert len(changed) == 4


def test_a_fine_tuned_model_keeps_the_change_when_saved_and_loaded(saved_model, images, tmp_path):
    inputs = tf_keras.Input((None, None, 3))
    layer = hub.KerasLayer(saved_model("block2_conv2"), trainable=True)
    model = tf_keras.Model(inputs, layer(inputs))
    untouched = [output.numpy() for output in model(images)]
    train(layer, layer.trainable_variables, images)
    tuned = [output.numpy() for output in model(images)]
    assert not np.allclose(tuned[0], untouched[0])

    tf.saved_model.save(model, str(tmp_path / "tuned"))
    again = hub.load(str(tmp_path / "tuned"))(images)
    for found, expected in zip(again, tuned, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_gradient_reaches_the_picture_through_every_pooling(saved_model, images):
    loaded = tf.saved_model.load(saved_model("block5_conv2"))
    images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = tf.reduce_mean(loaded(images)[0])
    gradient = tape.gradient(loss, images)
    assert np.isfinite(gradient).all()
    assert np.count_nonzero(gradient) > 0.9 * gradient.shape.num_elements()


@pytest.mark.parametrize("index_dtype", ["int64", "int32"])
def test_the_call_and_the_features_method_have_the_same_gradients(saved_model, index_dtype):
    loaded = tf.saved_model.load(saved_model("block2_conv2", index_dtype))
    images = tf.random.stateless_uniform((1, 16, 16, 3), (3, 4), 0, 255)
    gradients = []
    for encode in (lambda x: loaded(x)[0], loaded.features):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(encode(images))
        gradients.append(tape.gradient(loss, list(loaded.trainable_variables)))
    for left, right in zip(*gradients, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6 * np.abs(right).max())


def test_the_archive_holds_the_weights_it_was_built_from(saved_model):
    loaded = tf.saved_model.load(saved_model("block5_conv2"))
    layers = weights.load("random", "block5_conv2", seed=0).layers
    expected = [array for pair in layers.values() for array in pair]
    for variable, array in zip(loaded.variables, expected, strict=True):
        np.testing.assert_array_equal(variable.numpy(), array)
