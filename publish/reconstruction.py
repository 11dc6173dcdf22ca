"""Before and after: a photograph, and what a decoder makes of what its encoder returned."""

import os

import numpy as np
from skimage import data

import unpooling
from export import artifact, manifest
from export.artifact import Artifact
from training import panels
from unpooling import weights
from unpooling.errors import UserError

__all__ = ["draw"]


def draw(found: Artifact, path: str) -> float | None:
    """Draws a photograph before and after, if the other half of the pair is at hand.

    That is the artifact beside this one, or for an encoder the decoder that ships, if the decoder's
    training record names exactly the encoder's weights. The photograph is NASA's, from
    scikit-image, in the public domain.

    Args:
      found: an encoder or a decoder.
      path: the PNG to write.

    Returns:
      The mean absolute error of a pixel, 0 to 255; None, and no picture, if there is no such half.
    """
    mate = _mate(found)
    if mate is None:
        return None
    halves = {found.spec.kind: unpooling.load(found.path("tar.gz")), found.spec.mate.kind: mate}
    photograph = data.astronaut()
    decoded = halves["decoder"](halves["encoder"](photograph[np.newaxis].astype(np.float32)))[0]
    decoded = np.clip(np.round(decoded), 0, 255).astype(np.uint8)
    panels.draw_panels(path, {"photograph": photograph, "encoded and decoded": decoded})
    return float(np.abs(decoded.astype(np.float64) - photograph).mean())


def _mate(found):
    """The other half, loaded, or None."""
    spec, beside = found.spec, os.path.dirname(os.path.abspath(found.folder))
    try:
        other = artifact.read(os.path.join(beside, spec.mate.folder_name))
    except UserError:  # There is none, or it is not complete.
        other = None
    if other is not None:
        halves = {half.spec.kind: half.manifest for half in (found, other)}
        training = manifest.training_of(halves["decoder"])
        if training and training.encoder["sha256"] == halves["encoder"]["weights"]["layers"]:
            return unpooling.load(other.path("tar.gz"))
    if spec.kind == "encoder" and spec.layer in weights.pretrained_decoders():
        decoder = unpooling.Decoder.load(spec.layer)
        if decoder.trained_for == found.manifest["weights"]["layers"]:
            return decoder
    return None
