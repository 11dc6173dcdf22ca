"""What a module is and where it is published: names, files, outputs. Nothing needs TensorFlow."""

import dataclasses
import json
import pathlib
import re

from export import licenses
from unpooling import options, vgg19
from unpooling.errors import UserError

__all__ = ["ASSET_URL_PATTERN", "PUBLISHER_PATTERN", "Publication", "Spec", "hub_tags"]

# Regular expressions, to be matched as a whole and with re.ASCII.
PUBLISHER_PATTERN = r"[a-z\d-]+"
ASSET_URL_PATTERN = r"https?://[\w.:/~%-]+"

_ASSETS = pathlib.Path(__file__).parent.parent / "assets"


@dataclasses.dataclass(frozen=True)
class Spec:
    """Which module it is.

    Attributes:
      kind: "encoder" or "decoder".
      layer: the layer at which the encoder ends, one of `LAYERS`.
      index_dtype: the dtype of an encoder's indices, "int64" or "int32".
      engine: what finds an encoder's maxima, "argmax" or "xla".

    The last two are None for a decoder, and for the encoder of block1, which pools nothing.
    """

    kind: str
    layer: str
    index_dtype: str | None = "int64"
    engine: str | None = "argmax"

    def __post_init__(self):
        for name, value, allowed in (
            ("kind", self.kind, options.KINDS),
            ("layer", self.layer, vgg19.LAYERS),
        ):
            if value not in allowed:
                raise UserError(f"`{name}` must be one of {', '.join(allowed)}. Received: {value}.")
        if self.kind == "decoder" or not self.pooled:
            object.__setattr__(self, "index_dtype", None)
            object.__setattr__(self, "engine", None)
            return
        for name, value, allowed in (
            ("index_dtype", self.index_dtype, options.INDEX_DTYPES),
            ("engine", self.engine, options.ENGINES),
        ):
            if value not in allowed:
                raise UserError(f"`{name}` must be one of {', '.join(allowed)}. Received: {value}.")

    @property
    def name(self) -> str:
        """The module's name on a hub: "vgg19-block5-conv2-unpooling-encoder"."""
        return f"vgg19-{self.layer.replace('_', '-')}-unpooling-{self.kind}"

    @property
    def folder_name(self) -> str:
        """The name of the artifact's folder: "vgg19-block5-conv2", with "-decoder" for one."""
        folder = f"vgg19-{self.layer.replace('_', '-')}"
        return folder if self.kind == "encoder" else f"{folder}-{self.kind}"

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the artifact's files; the last lists the checksums of the others."""
        endings = ("tar.gz", "md", "png", "manifest.json")
        return (*map(self.file, endings), "SHA256SUMS")

    def file(self, ending: str) -> str:
        """Returns the name of one of the files: "encoder.md" for "md"."""
        return f"{self.kind}.{ending}"

    @property
    def archive_name(self) -> str:
        """The name of the archive: "encoder.tar.gz"."""
        return self.file("tar.gz")

    @property
    def diagram(self) -> str:
        """The path of a PNG that shows the architecture."""
        return str(_ASSETS / "diagrams" / f"{self.folder_name}.png")

    @property
    def mate(self) -> "Spec":
        """The other half of the pair, as it is built by default."""
        return Spec("decoder" if self.kind == "encoder" else "encoder", self.layer)

    @property
    def blocks(self) -> tuple[vgg19.Block, ...]:
        """The blocks of VGG19 up to the layer."""
        return vgg19.blocks_up_to(self.layer)

    @property
    def pooled(self) -> tuple[vgg19.Block, ...]:
        """Those after which the encoder pools."""
        return vgg19.pooled_blocks(self.layer)

    @property
    def channels(self) -> int:
        """The channels of the features."""
        return self.blocks[-1].channels

    @property
    def downsampling(self) -> int:
        """What the sides of a picture must be multiples of to be decoded: 2^(K-1)."""
        return vgg19.downsampling(self.layer)

    @property
    def convolutions(self) -> tuple[vgg19.Convolution, ...]:
        """The module's own convolutions, in order."""
        return tuple(vgg19.convolutions(self.layer, self.kind))

    @property
    def variable_count(self) -> int:
        """How many variables the module has."""
        return 2 * len(self.convolutions)

    @property
    def parameter_count(self) -> int:
        """How many numbers its variables hold."""
        return vgg19.count_parameters(self.layer, self.kind)

    @property
    def outputs(self) -> list[dict[str, str]]:
        """Name, dtype and shape of each output of the encoder, which a decoder takes as inputs."""
        dtype = "int64 or int32" if self.kind == "decoder" else self.index_dtype
        divisor = f"/{self.downsampling}" if self.pooled else ""
        shape = f"(B, H{divisor}, W{divisor}, {self.channels})"
        rows = [{"name": "features", "dtype": "float32", "shape": shape}]
        for block in self.pooled:
            # After k poolings a map has H/2^k * W/2^k pixels: C * H/2^k * W/2^k rows.
            shape = f"(B * H * W * {block.channels // 4**block.number}, 4)"
            rows.append({"name": block.indices_name, "dtype": dtype, "shape": shape})
        return rows


@dataclasses.dataclass(frozen=True)
class Publication:
    """Where and as what an artifact is published, for its card.

    Attributes:
      publisher: the publisher's name on the hub: lower-case letters, digits, hyphens.
      model_version: the module's version, from 1.
      asset_url: where the artifacts' folders are published, an http or https URL.
      dataset: what weights from a file were trained on, a dataset tag of the hub; "other" if it is
        not known. For ImageNet's and random weights it follows from the source.
      license: the license of the weights of a file, one of `licenses.NAMES`; None for the one that
        follows from their source.
    """

    publisher: str = "emilutz"
    model_version: int = 1
    asset_url: str = "https://storage.googleapis.com/vgg19-with-unpooling"
    dataset: str = "other"
    license: str | None = None

    def __post_init__(self):
        if not re.fullmatch(PUBLISHER_PATTERN, self.publisher, re.ASCII):
            raise UserError(
                "`publisher` must consist of lower-case letters, digits and hyphens. "
                f"Received: {self.publisher}."
            )
        if self.model_version < 1:
            raise UserError(f"`model_version` must be at least 1. Received: {self.model_version}.")
        if not re.fullmatch(ASSET_URL_PATTERN, self.asset_url, re.ASCII):
            raise UserError(
                f"`asset_url` must be an http or https URL. Received: {self.asset_url}."
            )
        if self.dataset not in hub_tags()["dataset"]:
            raise UserError(
                "`dataset` must be a dataset tag of the hub; assets/hub_tags.json lists them. "
                f"Received: {self.dataset}."
            )
        if self.license not in (None, *licenses.NAMES):
            raise UserError(
                f"`license` must be one of {', '.join(licenses.NAMES)}. Received: {self.license}."
            )

    def url(self, spec: Spec, file: str) -> str:
        """Returns the address of one of an artifact's files."""
        return f"{self.asset_url.rstrip('/')}/{spec.folder_name}/{file}"


def hub_tags() -> dict[str, list[str]]:
    """Returns the values that the hub allows for each kind of metadata."""
    return json.loads((_ASSETS / "hub_tags.json").read_text(encoding="utf-8"))
