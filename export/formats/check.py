"""Holds a converted module against its archive, on photographs of several sizes."""

from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
from skimage import data

from export import formats
from export.formats.source import Source
from unpooling import pooling
from unpooling.encoder import Encoder, encode
from unpooling.errors import UserError

__all__ = ["FLOAT16_TOLERANCE", "TOLERANCE", "check", "near_ties"]

# How far features and pictures may be from those of the archive, relative to the largest: as far as
# two computations in float32 are apart, or what weights in float16 cost.
TOLERANCE = 1e-5
FLOAT16_TOLERANCE = 2e-3

_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")


def check(source: Source, format: str, path: str, float16: bool = False) -> Iterator[str]:
    """Compares what every runtime of a format makes of a file with what the archive makes.

    Args:
      source: the module in the archive.
      format: one of `formats.FORMATS`.
      path: the converted module.
      float16: whether its weights were rounded to float16.

    Yields:
      For each runtime a line with the largest error.

    Raises:
      UserError: if an output has another name, shape or dtype, differs by more than the tolerance,
        or a switch differs that is not that of a near-tie.
    """
    tolerance = FLOAT16_TOLERANCE if float16 else TOLERANCE
    cases = list(_cases(source))
    for runtime, run in formats.module_of(format).runtimes(source, path):
        errors, differing, total = [], 0, 0
        for inputs, expected, maps in cases:
            size = "x".join(map(str, inputs[source.inputs[0]].shape))
            what = f"{runtime}, {source.inputs[0]} of {size}"
            found = run(inputs)
            _check_form(what, found, expected)
            scale = np.abs(expected[source.outputs[0]]).max()
            difference = np.abs(found[source.outputs[0]] - expected[source.outputs[0]]).max()
            errors.append(difference / scale)
            if not errors[-1] <= tolerance:  # NaN is not.
                raise UserError(
                    f"{what}: {source.outputs[0]} differ from the archive's by "
                    f"{errors[-1]:.1e} of the largest, more than {tolerance:.0e}."
                )
            for name, values in zip(source.outputs[1:], maps, strict=True):
                wrong = found[name] != expected[name]
                if not near_ties(values, found[name], expected[name], tolerance):
                    raise UserError(f"{what}: {name} differ from the archive's, not in near-ties.")
                differing, total = differing + wrong.sum(), total + wrong.size
        line = f"{runtime}: {source.outputs[0]} within {max(errors):.1e} of the largest"
        if differing:
            line += f", {differing:,} of {total:,} switches differ, all in near-ties"
        elif total:
            line += f", all {total:,} switches equal"
        yield f"{line}; {len(cases)} sizes"


def near_ties(
    values: np.ndarray, found: np.ndarray, expected: np.ndarray, tolerance: float
) -> bool:
    """Returns whether switches differ only where two values of a window are nearly equal.

    Args:
      values: (B, H, W, C), the map that was pooled.
      found, expected: (B, h, w, C), uint8, switches.
      tolerance: how far apart two values may be, relative to the largest of the map, twice.
    """
    if found.max(initial=0) > 3:
        return False
    indices = [pooling.switches_to_indices(s).numpy() for s in (found, expected)]
    chosen, greatest = (values[tuple(rows.T)] for rows in indices)
    return bool((greatest - chosen <= 2 * tolerance * np.abs(values).max()).all())


def _check_form(what: str, found: Mapping, expected: Mapping):
    if set(found) != set(expected):
        raise UserError(f"{what}: the outputs are {sorted(found)}, not {sorted(expected)}.")
    for name, array in expected.items():
        for attribute in ("shape", "dtype"):
            pair = (getattr(found[name], attribute), getattr(array, attribute))
            if pair[0] != pair[1]:
                raise UserError(f"{what}: the {attribute} of {name} is {pair[0]}, not {pair[1]}.")


def _cases(source):
    """Yields inputs and outputs by name, and for an encoder the maps that it pools.

    A decoder's inputs are those that an encoder with random weights makes of photographs: real
    positions, and features of the right magnitude.
    """
    spec, outputs = source.spec, source.outputs
    decodes = spec.kind == "decoder"
    encoder = Encoder.load(spec.layer, "random") if decodes else source.module
    for images in _pictures(spec.downsampling, odd=not decodes):
        encoded = [tensor.numpy() for tensor in tf.nest.flatten(encoder.compact(images))]
        if decodes:
            picture = source.module(encoded if len(encoded) > 1 else encoded[0]).numpy()
            yield dict(zip(source.inputs, encoded, strict=True)), {"images": picture}, []
            continue
        maps = []

        def pool(values, maps=maps):
            maps.append(values.numpy())
            return pooling.max_pool(values)

        encode(spec.layer, source.layers, images, pool)
        yield {"images": images}, dict(zip(outputs, encoded, strict=True)), maps


def _pictures(multiple, odd):
    """Yields crops of photographs: (B, H, W, 3), float32."""
    photographs = [getattr(data, name)() for name in _PHOTOGRAPHS]
    sizes = [(1, 64, 96), (3, 2 * multiple, 48), (1, multiple, multiple)]
    if odd:
        sizes += [(1, 61, 83), (3, multiple + 3, 37)]
    for batch, height, width in sizes:
        crops = []
        for picture in photographs[:batch]:
            y, x = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
            crops.append(picture[y : y + height, x : x + width])
        yield np.stack(crops).astype(np.float32)
