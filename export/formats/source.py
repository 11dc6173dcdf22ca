"""A module to be converted: what it is, its weights, and what is stated of it in every format."""

import dataclasses
import json
import os
import tempfile

import numpy as np

from export import artifact, licenses
from export.spec import Spec
from export.verify import loaded
from unpooling import __version__, archive, graph, weights
from unpooling.errors import UserError, one_line

__all__ = ["Source", "license_of", "read"]


@dataclasses.dataclass(frozen=True)
class Source:
    """A module that was read from its archive.

    Attributes:
      spec: which module it is.
      layers: for each convolution its (kernel, bias), float32, (3, 3, in, out) and (out,).
      sha256: the archive's, in hexadecimal.
      module: what `tf.saved_model.load` returned.
      license: the name of the license of its weights, one of `licenses.NAMES`, as far as known.
    """

    spec: Spec
    layers: dict[str, tuple[np.ndarray, np.ndarray]]
    sha256: str
    module: object = dataclasses.field(repr=False)
    license: str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of its inputs, as in the signature `compact`."""
        return ("images",) if self.spec.kind == "encoder" else self._encoded

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of its outputs, as in the signature `compact`."""
        return self._encoded if self.spec.kind == "encoder" else ("images",)

    @property
    def _encoded(self):
        return ("features", *(block.switches_name for block in self.spec.pooled))

    @property
    def metadata(self) -> dict[str, str]:
        """What a file states of the module."""
        digests = {name: weights.layer_sha256(*pair) for name, pair in self.layers.items()}
        return {
            "kind": self.spec.kind,
            "layer": self.spec.layer,
            "license": self.license,
            "archive_sha256": self.sha256,
            "weights_sha256": json.dumps(digests),
            "made_with": f"unpooling-encoders {__version__}",
        }


def read(path: str) -> Source:
    """Reads and loads a module, after the checks of `unpooling.load`.

    Args:
      path: an encoder.tar.gz or a decoder.tar.gz.

    Raises:
      UserError: if it is not a module, or one that an earlier version built.
    """
    packed = archive.read(path)
    with tempfile.TemporaryDirectory() as directory:
        packed.unpack(directory)
        try:
            graph.check(directory)
            _, module = loaded.load(directory)
        except ValueError as error:
            raise UserError(f"archive {path} is refused: {one_line(error)}.") from error
    return Source(module.spec, module.layers, packed.sha256, module.module)


def license_of(path: str, license: str | None) -> str:
    """Returns the name of the license of a module's weights.

    Args:
      path: its archive.
      license: one of `licenses.NAMES`, for an archive without the rest of its artifact, else None.

    Raises:
      UserError: if it is neither given nor known, or given and known; or as `artifact.read`.
    """
    folder, name = os.path.split(os.path.abspath(path))
    manifest = f"{name.removesuffix('tar.gz')}manifest.json"
    if os.path.exists(os.path.join(folder, manifest)):
        if license is not None:
            raise UserError(
                f"--license goes with archives that have no manifest; {manifest} states it."
            )
        return artifact.read(folder).license.name
    if license is None:
        raise UserError(
            f"{path}: no {manifest} is beside it, of which the license of the weights follows: "
            f"pass --license, one of {', '.join(licenses.NAMES)}."
        )
    return license
