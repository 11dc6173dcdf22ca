"""A loaded encoder or decoder can be trained, saved and loaded again."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub
import tf_keras

from tests import descriptors

ENCODER, DECODER = descriptors.ENGINES[0], descriptors.DECODERS[1]


def train(layer, variables, inputs, steps=3):
    """Lowers the mean square distance of the output to 1; returns the loss before each step."""
    optimizer = tf_keras.optimizers.Adam(1e-3)
    losses = []
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((tf.nest.flatten(layer(inputs))[0] - 1.0) ** 2)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize("descriptor", descriptors.MODULES[::3], ids=str)
def test_a_few_steps_lower_the_loss_and_change_every_variable(descriptor, saved_model):
    layer = hub.KerasLayer(descriptor.directory(saved_model), trainable=True)
    variables = layer.trainable_variables
    more = 0  # One after each unpooling; two in block 2's decoder.
    if descriptor.kind == "decoder":
        more = 2 if descriptor.block == 2 else descriptor.block - 1
    assert len(variables) == 2 * (2 * descriptor.block + more)
    before = [v.numpy() for v in variables]
    losses = train(layer, variables, descriptor.inputs())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]
    for variable, old in zip(variables, before, strict=True):
        assert np.isfinite(variable.numpy()).all()
        assert not np.array_equal(variable.numpy(), old), variable.name


def test_a_fine_tuned_model_keeps_the_change_when_saved_and_loaded(saved_model, tmp_path):
    images = descriptors.images()
    inputs = tf_keras.Input((None, None, 3))
    layer = hub.KerasLayer(ENCODER.directory(saved_model), trainable=True)
    model = tf_keras.Model(inputs, layer(inputs))
    untouched = model(images)[0].numpy()
    train(layer, layer.trainable_variables, images)
    tuned = [output.numpy() for output in model(images)]
    assert not np.allclose(tuned[0], untouched)

    tf.saved_model.save(model, str(tmp_path / "tuned"))
    again = hub.load(str(tmp_path / "tuned"))(images)
    for found, expected in zip(again, tuned, strict=True):
        np.testing.assert_array_equal(found, expected)
