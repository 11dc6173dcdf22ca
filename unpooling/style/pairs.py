"""Pairs of an encoder and its decoder for each level of the transfer."""

import os
import pathlib
import re

import unpooling
from unpooling import tiling, vgg19
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder
from unpooling.errors import UserError, one_line

__all__ = ["load_modules", "load_pairs"]

Pairs = tuple[tuple[object, object], ...]


def load_pairs(depth: int = 3, weights: str = "imagenet", decoders: str = "pretrained") -> Pairs:
    """Returns the pairs of blocks 1 to `depth`, as Python objects.

    Args:
      depth: from 1 to 5.
      weights: of the encoders, see `Encoder.load`.
      decoders: "pretrained" for those that ship with this library; "random" for untrained ones; or
        a folder with `block1_conv2.h5`, ..., or with what training leaves,
        `vgg19-block1-conv2-decoder/decoder.h5`, ....

    Returns:
      (encoder, decoder) for each block, block1 first.

    Raises:
      UserError: if one is not to be had, or was trained for an encoder with other weights.
    """
    pairs = []
    for layer in _layers(depth):
        source = decoders if decoders in ("pretrained", "random") else _file(decoders, layer)
        encoder = Encoder.load(layer, weights)
        pairs.append((encoder, Decoder.load(layer, source, encoder=encoder)))
    return tuple(pairs)


def load_modules(place: str | os.PathLike, depth: int = 3) -> Pairs:
    """Returns the pairs of blocks 1 to `depth`, from exported modules.

    Args:
      place: a folder or an http or https address that holds, for each block and for each half,
        `vgg19-blockK-conv2-unpooling-encoder`, as a folder or a .tar.gz, or an artifact,
        `vgg19-blockK-conv2/encoder.tar.gz`; in a folder also deeper, as in the tree of a hub, the
        newest version. Of an address, version 1.
      depth: from 1 to 5.

    Raises:
      UserError: if there is none, it cannot be loaded, or two halves are not of one layer.
    """
    pairs = []
    for layer in _layers(depth):
        pair = tuple(_module(os.fspath(place), layer, kind) for kind in ("encoder", "decoder"))
        if {tiling.layer_of(module) for module in pair} != {layer}:
            raise UserError(f"{one_line(place)}: what is named {layer} is of another layer.")
        pairs.append(pair)
    return tuple(pairs)


def _layers(depth):
    if depth not in range(1, len(vgg19.LAYERS) + 1):
        raise UserError(f"`depth` must be from 1 to {len(vgg19.LAYERS)}. Received: {depth}.")
    return vgg19.LAYERS[:depth]


def _file(folder, layer):
    name = f"vgg19-{layer.replace('_', '-')}-decoder"
    for path in (pathlib.Path(folder, f"{layer}.h5"), pathlib.Path(folder, name, "decoder.h5")):
        if path.is_file():
            return str(path)
    raise UserError(
        f"{one_line(folder)} holds no decoder for {layer}: neither {layer}.h5 nor {name}/"
        "decoder.h5. Train one, see docs/decoders.md, or pass a smaller depth."
    )


def _module(place, layer, kind):
    name = f"vgg19-{layer.replace('_', '-')}"
    module, artifact = f"{name}-unpooling-{kind}", name + ("-decoder" if kind == "decoder" else "")
    if place.startswith(("http://", "https://")):
        place = place.rstrip("/")
        try:
            return unpooling.load(f"{place}/{module}/1?tf-hub-format=compressed")
        except UserError as first:
            try:
                return unpooling.load(f"{place}/{artifact}/{kind}.tar.gz")
            except UserError as second:
                raise UserError(f"{first} {second}") from second
    wanted = (
        f"{module}/saved_model.pb",
        f"{module}/*/saved_model.pb",
        f"{module}.tar.gz",
        f"{artifact}/{kind}.tar.gz",
    )
    for pattern in wanted:
        found = list(pathlib.Path(place).glob(f"**/{pattern}"))
        if found:
            path = max(found, key=_with_numbers)
            return unpooling.load(path.parent if path.name == "saved_model.pb" else path)
    raise UserError(
        f"{one_line(place)} holds no {kind} for {layer}: neither {module} nor {artifact}/"
        f"{kind}.tar.gz."
    )


def _with_numbers(path):
    """A path as a key for sorting, by which version 10 follows version 9."""
    return [int(p) if p.isdigit() else p for p in re.split(r"([0-9]+)", str(path))]
