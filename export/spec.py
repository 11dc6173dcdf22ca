"""What a module is and where it is published: names, files, outputs. Nothing needs TensorFlow."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Collection

from export import licenses
from unpooling import options, vgg19
from unpooling.errors import UserError

__all__ = ["ASSETS", "PUBLISHER_PATTERN", "Publication", "Spec"]

# To be matched as a whole and with re.ASCII.
PUBLISHER_PATTERN = r"[a-z\d-]+"

# Beside the packages: templates, diagrams, and the tags of the hub.
ASSETS = pathlib.Path(__file__).parent.parent / "assets"


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
        self._check(kind=options.KINDS, layer=vgg19.LAYERS)
        if self.kind == "decoder" or not self.pooled:
            object.__setattr__(self, "index_dtype", None)
            object.__setattr__(self, "engine", None)
        else:
            self._check(index_dtype=options.INDEX_DTYPES, engine=options.ENGINES)

    def _check(self, **choices):
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                raise UserError(f"`{name}` must be one of {', '.join(allowed)}. Received: {value}.")

    def __str__(self):
        choices = f", {self.index_dtype} indices, {self.engine} pooling" if self.engine else ""
        return f"{self.kind} for {self.layer}{choices}"

    @property
    def name(self) -> str:
        """The module's name on a hub: "vgg19-block5-conv2-unpooling-encoder"."""
        return f"vgg19-{self.layer.replace('_', '-')}-unpooling-{self.kind}"

    @property
    def folder_name(self) -> str:
        """The name of the artifact's folder: "vgg19-block5-conv2", with "-decoder" for one."""
        ending = "" if self.kind == "encoder" else "-decoder"
        return f"vgg19-{self.layer.replace('_', '-')}{ending}"

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
        return str(ASSETS / "diagrams" / f"{self.folder_name}.png")

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

    def lacks(self, names: Collection[str]) -> str:
        """Says what is wrong with a module of these convolutions; "" if it has all of its own."""
        absent = [c.name for c in self.convolutions if c.name not in names]
        if not absent:
            return ""
        return f"it has no {', '.join(absent)}, so an earlier version built it: build it anew"

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
        tags = json.loads((ASSETS / "hub_tags.json").read_text(encoding="utf-8"))
        url = re.fullmatch(r"https?://[\w.:/~-]+", self.asset_url, re.ASCII)
        # robots.txt keeps hubs from fetching these.
        of_release = re.match(r"https://github\.com/.*/releases/download\b", self.asset_url)
        rules = {
            "publisher": (
                re.fullmatch(PUBLISHER_PATTERN, self.publisher, re.ASCII),
                "must consist of lower-case letters, digits and hyphens",
            ),
            "model_version": (self.model_version >= 1, "must be at least 1"),
            "asset_url": (
                url and not of_release,
                "must be an http or https URL of letters, digits and .:/~_-, and not that of a "
                "GitHub release",
            ),
            "dataset": (
                self.dataset in tags["dataset"],
                "must be a dataset tag of the hub; assets/hub_tags.json lists them",
            ),
            "license": (
                self.license in (None, *licenses.NAMES),
                f"must be one of {', '.join(licenses.NAMES)}",
            ),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise UserError(f"`{name}` {rule}. Received: {getattr(self, name)}.")

    def url(self, spec: Spec, file: str) -> str:
        """Returns the address of one of an artifact's files."""
        return f"{self.asset_url.rstrip('/')}/{spec.folder_name}/{file}"
