"""Statistics and affine maps, against SciPy's matrix roots and sums over single positions."""

import numpy as np
import pytest
import scipy.linalg

from tests.descriptors import random_weights
from unpooling import Encoder
from unpooling.style import statistics, transforms
from unpooling.style.masks import Mask
from unpooling.style.statistics import Statistics


def gaussian(channels, seed, count=5000):
    """Statistics of correlated channels."""
    random = np.random.default_rng(seed)
    values = random.normal(0, 1, (count, channels)) @ random.normal(0, 3, (channels, channels))
    values += random.uniform(0, 50, channels)
    return values, Statistics(count, values.mean(axis=0), np.cov(values.T, bias=True))


def expected_map(content, style, method):
    """M of the docstring, by `scipy.linalg.sqrtm` and inverses."""
    channels = len(content.mean)
    added = 0.5 * (np.trace(content.covariance) + np.trace(style.covariance)) / channels
    source, target = (s.covariance + added * np.eye(channels) for s in (content, style))
    root = scipy.linalg.sqrtm(source)
    inverse = np.linalg.inv(root)
    if method == "wct":
        return inverse @ scipy.linalg.sqrtm(target)
    return inverse @ scipy.linalg.sqrtm(root @ target @ root) @ inverse


@pytest.mark.parametrize("method", transforms.METHODS)
@pytest.mark.parametrize("strength", [0, 0.3, 1])
def test_maps_are_those_of_scipy(method, strength):
    (values, content), (_, style) = gaussian(12, 1), gaussian(12, 2)
    matrix, vector = transforms.affine(content, style, method, strength)
    expected = strength * expected_map(content, style, method) + (1 - strength) * np.eye(12)
    np.testing.assert_allclose(matrix, expected, rtol=1e-4, atol=1e-6)
    mapped = values @ matrix + vector
    mean = strength * style.mean + (1 - strength) * content.mean
    np.testing.assert_allclose(mapped.mean(axis=0), mean, rtol=1e-9)


def test_a_picture_of_its_own_style_stays_and_optimal_transport_is_symmetric():
    (_, content), (_, style) = gaussian(12, 1), gaussian(12, 2)
    for method in transforms.METHODS:
        matrix, vector = transforms.affine(content, content, method)
        np.testing.assert_allclose(matrix, np.eye(12), atol=1e-8)
        np.testing.assert_allclose(vector, 0, atol=1e-6)
    matrix, _ = transforms.affine(content, style, "ot")
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-9)
    assert (np.linalg.eigvalsh(matrix) > 0).all()


@pytest.mark.parametrize("method", transforms.METHODS)
def test_maps_are_finite_and_tame_where_little_is_known(method):
    channels = 8
    flat = Statistics(1, np.full(channels, 5.0), np.zeros((channels, channels)))
    grey = Statistics(100, np.arange(8.0), np.ones((channels, channels)))  # one direction alone
    below = Statistics(100, np.arange(8.0), np.ones((channels, channels)) - 1e-9 * np.eye(8))
    few = gaussian(channels, 3, count=3)[1]
    many = gaussian(channels, 4)[1]
    for content in (flat, grey, below, few, many):
        for style in (flat, grey, below, few, many):
            matrix, vector = transforms.affine(content, style, method)
            assert np.isfinite(matrix).all() and np.isfinite(vector).all()
            assert np.linalg.norm(matrix, 2) < 100
            np.testing.assert_allclose(content.mean @ matrix + vector, style.mean, atol=1e-6)


def test_a_barycentre_lies_between_by_optimal_transport():
    one, other = gaussian(6, 1)[1], gaussian(6, 2)[1]
    for weight in (0.25, 1):
        found = transforms.barycentre([one, other], [1 - weight, weight])
        root = scipy.linalg.sqrtm(one.covariance)
        inverse = np.linalg.inv(root)
        matrix = inverse @ scipy.linalg.sqrtm(root @ other.covariance @ root) @ inverse
        matrix = (1 - weight) * np.eye(6) + weight * matrix
        expected = matrix @ one.covariance @ matrix  # McCann's interpolation
        np.testing.assert_allclose(found.mean, (1 - weight) * one.mean + weight * other.mean)
        error = np.linalg.norm(found.covariance - expected) / np.linalg.norm(expected)
        assert error < 1e-3


@pytest.fixture(scope="module")
def encoder():
    return Encoder("block2_conv2", random_weights("encoder", "block2_conv2"))


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (45, 61, 3), np.uint8)


def reflected(picture, margin=32):
    return np.pad(picture, [(margin, margin)] * 2 + [(0, 0)] * (picture.ndim - 2), mode="reflect")


@pytest.mark.parametrize("masked", [False, True])
def test_statistics_are_sums_over_positions_and_labels(encoder, picture, masked):
    labels = np.ones(picture.shape[:2], np.uint8)
    if masked:
        labels[:, 20:40], labels[30:, :] = 7, 0
    features = encoder.features(reflected(picture).astype(np.float32)[np.newaxis])[0].numpy()
    features = features[16:39, 16:47].astype(np.float64)
    mask = Mask(labels if masked else None, picture)
    found = statistics.measure(encoder, picture, mask, side=16)
    assert set(found) == ({1, 7} if masked else {1})
    # The share of each label in the square around a position; its seam is one pixel on each side.
    around = reflected(labels, 8)
    for label, one in found.items():
        count, total, products = 0.0, 0.0, 0.0
        for y in range(23):
            for x in range(31):
                share = np.mean(around[8 + 2 * y : 10 + 2 * y, 8 + 2 * x : 10 + 2 * x] == label)
                count += share
                total = total + share * features[y, x]
                products = products + share * np.outer(features[y, x], features[y, x])
        assert one.count == pytest.approx(count)
        np.testing.assert_allclose(one.mean, total / count, atol=1e-6 * np.max(one.mean))
        covariance = products / count - np.outer(total, total) / count**2
        scale = np.abs(covariance).max()
        np.testing.assert_allclose(one.covariance, covariance, atol=1e-5 * scale)


def test_tiles_do_not_change_statistics(encoder, picture):
    whole, tiled = (
        statistics.measure(encoder, picture, Mask(None, picture), side=side)[1] for side in (512, 8)
    )
    assert whole.count == tiled.count
    np.testing.assert_allclose(whole.mean, tiled.mean, atol=1e-6 * np.max(whole.mean))
    scale = np.abs(whole.covariance).max()
    np.testing.assert_allclose(whole.covariance, tiled.covariance, atol=1e-6 * scale)
