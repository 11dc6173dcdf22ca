"""The measures of a transfer, against scikit-image and against loops."""

import numpy as np
import pytest
from skimage import color, filters, metrics

from tests.test_style_transfer import LINEAR, photograph
from unpooling import LAYERS, style
from unpooling.style import measure

WINDOWS = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


@pytest.fixture(scope="module")
def pictures():
    one = photograph(60, 80)
    return one, np.uint8(np.clip(0.7 * one + photograph(60, 80, seed=1) / 4, 0, 255))


def test_similarity_is_that_of_scikit_image(pictures):
    one, other = pictures
    expected = metrics.structural_similarity(one, other, channel_axis=-1, **WINDOWS)
    assert measure.ssim(one, other) == pytest.approx(expected, abs=0.01)  # Of the borders.
    expected = metrics.peak_signal_noise_ratio(one, other)
    assert measure.psnr(one, other) == pytest.approx(expected, abs=1e-3)
    assert measure.psnr(one, one) == float("inf")


def test_edges_are_sobels_of_the_luma(pictures):
    edges = [filters.sobel(picture @ np.array([0.299, 0.587, 0.114])) for picture in pictures]
    expected = metrics.structural_similarity(*edges, data_range=255, **WINDOWS)
    assert measure.edge_ssim(*pictures) == pytest.approx(expected, abs=0.01)
    assert measure.edge_ssim(pictures[0], pictures[0]) == pytest.approx(1)
    assert measure.edge_ssim(pictures[0], 255 - pictures[0]) == pytest.approx(1)


def test_distances_of_colours_and_of_features(pictures):
    one, _ = pictures
    other = np.uint8(one // 2)
    found = measure.colour_distances(one, other)
    assert found["mean"] == pytest.approx(one.mean() - other.mean())
    assert found["deviation"] == pytest.approx(
        np.mean(one.std(axis=(0, 1)) - other.std(axis=(0, 1)))
    )
    look = style.Style.learn(other, LINEAR)
    mean, covariance = measure.feature_distances(other, look, LINEAR)[LAYERS[0]]
    assert mean == covariance == 0
    mean, covariance = measure.feature_distances(one, look, LINEAR)[LAYERS[0]]
    assert mean == pytest.approx(1, abs=0.05) and covariance == pytest.approx(3, abs=0.1)


def test_reinhards_transfer_gives_the_means_and_deviations_of_lab(pictures):
    content, other = photograph(60, 80, seed=2), pictures[1]
    found = measure.reinhard(content, other)
    assert found.shape == content.shape and found.dtype == np.uint8
    distances = measure.colour_distances(found, other)
    before = measure.colour_distances(content, other)
    assert distances["mean"] < 0.5 * before["mean"] and distances["mean"] < 8
    np.testing.assert_allclose(measure.reinhard(content, content), content, atol=1)
    # Its lightness follows that of CIELAB, which is another one.
    lightness = [color.rgb2lab(picture)[..., 0].ravel() for picture in (content, found)]
    assert np.corrcoef(lightness)[0, 1] > 0.8
