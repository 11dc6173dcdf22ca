"""The stored goldens: what encoders from seed 0 return for one small picture.

    python -m tests.goldens

writes tests/goldens.json anew. Do that only when the promise itself changes: another stream of
random weights, another preprocessing, another layout of the indices; say so in the commit. A new
version of TensorFlow is no reason: that its results drift is what the goldens are there to show.

The picture is chosen so that no winner is in doubt: in float64, the best candidate of each window
leads by far more than float32 rounding, or all candidates are cut to zero by far. So every correct
implementation finds the same indices, and their hash can be compared.
"""

import hashlib
import json
import pathlib

import numpy as np

from tests import oracle
from unpooling import vgg19, weights
from unpooling.encoder import Encoder

PATH = pathlib.Path(__file__).with_name("goldens.json")
SIDE = 16
SAMPLES = 16

# How far, relative to the map's largest value, a winner has to lead.
MARGIN = 1e-5


def picture(seed: int) -> np.ndarray:
    """A picture of noise: (1, 16, 16, 3), float32, whole numbers in [0, 255]."""
    return np.random.default_rng(seed).integers(0, 256, (1, SIDE, SIDE, 3)).astype(np.float32)


def summary(outputs: list[np.ndarray]) -> dict:
    """What is stored of the outputs: samples of the features, hash and samples of the indices."""
    features, *indices = outputs
    return {
        "features_shape": list(features.shape),
        "features_samples": [float(v) for v in _sample(features.ravel())],
        "indices": [
            {
                "shape": list(rows.shape),
                "sha256": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest(),
                "samples": _sample(rows).tolist(),
            }
            for rows in indices
        ],
    }


def encode(layer: str, images: np.ndarray) -> list[np.ndarray]:
    """The outputs of the encoder that `--weights=random --seed=0` builds."""
    outputs = Encoder.load(layer, "random", seed=0)(images)
    return [o.numpy() for o in (outputs if isinstance(outputs, list) else [outputs])]


def _sample(values):
    return values[np.linspace(0, len(values) - 1, SAMPLES).astype(int)]


def lead(images: np.ndarray) -> float:
    """The smallest lead of a winner in any window of the deepest encoder, by the oracle."""
    layer = vgg19.LAYERS[-1]
    encoding = oracle.encode(images, layer, weights.load("random", layer, seed=0).layers)
    leads = []
    for sums in encoding.sums:  # (1, H, W, C), before ReLU
        _, height, width, channels = sums.shape
        windows = sums.reshape(height // 2, 2, width // 2, 2, channels)
        windows = np.sort(windows.transpose(0, 2, 4, 1, 3).reshape(-1, 4), axis=1)
        best, second = windows[:, 3], np.maximum(windows[:, 2], 0)
        # Where all are negative, all become zero and the first wins: what counts is how far below.
        leads.append(np.where(best > 0, best - second, -best).min() / sums.max())
    return float(min(leads))


def main():
    seed = next(seed for seed in range(1000) if lead(picture(seed)) > MARGIN)
    goldens = {"picture_seed": seed, "layers": {}}
    for layer in vgg19.LAYERS:
        goldens["layers"][layer] = summary(encode(layer, picture(seed)))
    PATH.write_text(json.dumps(goldens, indent=1) + "\n", encoding="utf-8")
    print(f"{PATH.name}: picture {seed}, smallest lead {lead(picture(seed)):.2e}")


if __name__ == "__main__":
    main()
