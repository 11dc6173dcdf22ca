"""What `--weights=random --seed=0` gives today is what it gave when the goldens were stored."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests import goldens
from unpooling import vgg19
from unpooling.options import ENGINES

STORED = json.loads(goldens.PATH.read_text(encoding="utf-8"))


def assert_golden(outputs, layer):
    found, stored = goldens.summary(outputs), STORED["layers"][layer]
    assert found["features_shape"] == stored["features_shape"]
    scale = max(stored["features_samples"])
    np.testing.assert_allclose(
        found["features_samples"], stored["features_samples"], rtol=1e-5, atol=1e-5 * scale
    )
    assert found["indices"] == stored["indices"]


@pytest.mark.parametrize("layer", vgg19.LAYERS)
def test_an_encoder_returns_the_goldens(layer):
    assert_golden(goldens.encode(layer, goldens.picture(STORED["picture_seed"])), layer)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_archive_returns_the_goldens(engine, saved_model):
    layer = "block5_conv2" if engine == "argmax" else "block2_conv2"
    loaded = tf.saved_model.load(saved_model(layer, engine=engine))
    outputs = loaded(goldens.picture(STORED["picture_seed"]))
    assert_golden([output.numpy() for output in outputs], layer)


def test_no_winner_of_the_golden_picture_is_in_doubt():
    assert goldens.lead(goldens.picture(STORED["picture_seed"])) > goldens.MARGIN
