"""The affine map that gives features another picture's mean and covariance.

Two maps do: whitening and colouring (Y. Li et al., "Universal style transfer via feature
transforms", arXiv 1705.08086), and optimal transport between two Gaussians, which moves features
least (Y. Mroueh, "Wasserstein style transfer", arXiv 1905.12828; also known as the linear Monge
map).
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from unpooling.options import METHODS
from unpooling.style.statistics import Statistics

__all__ = ["METHODS", "affine", "barycentre"]

_REGULARISATION = 0.5  # of the mean variance of both pictures
_LEAST = 1e-6  # of the mean variance, so that a barycentre has roots
_TINY = 1e-6  # a variance that no feature has, unless it is constant
_ITERATIONS = 10


def affine(
    content: Statistics, style: Statistics, method: str = METHODS[0], strength: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (M, b), float64: features x become x M + b.

    A part of the mean variance of both is added to either covariance. So the map is finite and
    near the identity in directions of which little is known: of flat pictures, of regions with
    fewer positions than channels.

    Args:
      content, style: the statistics that features have, and should have.
      method: "ot", the symmetric map S_c^-1/2 (S_c^1/2 S_s S_c^1/2)^1/2 S_c^-1/2 of optimal
        transport, or "wct", S_c^-1/2 S_s^1/2.
      strength: from 0, which leaves features as they are, to 1.

    Returns:
      M, (C, C), and b, (C,).
    """
    channels = len(content.mean)
    variance = max(0.0, np.trace(content.covariance) + np.trace(style.covariance)) / channels
    added = _REGULARISATION * variance + _TINY
    inverse = _power(content.covariance, -0.5, added)
    if method == "wct":
        matrix = inverse @ _power(style.covariance, 0.5, added)
    else:
        root, target = _power(content.covariance, 0.5, added), _power(style.covariance, 1, added)
        matrix = inverse @ _power(root @ target @ root, 0.5) @ inverse
    matrix = (1 - strength) * np.eye(channels) + strength * matrix
    goal = (1 - strength) * content.mean + strength * style.mean
    return matrix, goal - content.mean @ matrix


def barycentre(statistics: Sequence[Statistics], weights: Sequence[float]) -> Statistics:
    """Returns the statistics between several, nearest to all by the distance of optimal transport.

    Found by the fixed-point iteration of P. Alvarez-Esteban et al., "A fixed-point approach to
    barycenters in Wasserstein space", arXiv 1511.05355.

    Args:
      statistics: those of the same features in several pictures.
      weights: one for each, with the sum 1.
    """
    count, mean, covariance = (
        sum(w * getattr(s, name) for s, w in zip(statistics, weights, strict=True))
        for name in ("count", "mean", "covariance")
    )
    added = _LEAST * max(0.0, np.trace(covariance)) / len(mean) + _TINY
    covariances = [_power(s.covariance, 1, added) for s in statistics]
    current = _power(covariance, 1, added)
    for _ in range(_ITERATIONS):
        root, inverse = _power(current, 0.5), _power(current, -0.5)
        middle = sum(
            w * _power(root @ c @ root, 0.5) for c, w in zip(covariances, weights, strict=True)
        )
        current = inverse @ middle @ middle @ inverse
        current = (current + current.T) / 2
    return Statistics(count, mean, current - added * np.eye(len(mean)))


def _power(covariance, exponent, added=0.0):
    """A power of a covariance, without what rounding took below 0, `added` on its diagonal."""
    # Not NumPy's: where other processes use the cores, OpenBLAS takes a hundred times as long.
    values, vectors = (tensor.numpy() for tensor in tf.linalg.eigh(covariance))
    values = np.maximum(np.maximum(values, 0) + added, np.finfo(float).tiny)
    return (vectors * values**exponent) @ vectors.T
