"""What `verify` looks at, and what its checks have in common."""

import os
import pathlib

import numpy as np
import tensorflow as tf

__all__ = ["TOLERANCE", "Subject", "as_list", "close", "equal", "error_of", "expect", "plain"]

# Two float32 computations of the same features may differ by rounding: relative to the largest.
TOLERANCE = 1e-5


class Subject:
    """What the checks look at; each check adds what the next ones need.

    Attributes:
      path: of the archive.
      manifest_path: of the manifest to hold it against; None for the one beside it.
      directory: where the archive is unpacked.
      manifest: as `manifest.read` returns it.
      loaded: the loaded SavedModel.
      kind: what it is, one of `options.KINDS`.
      layer: one of `vgg19.LAYERS`.
      blocks: the blocks of VGG19 up to there, or for a decoder their mirror.
      index_dtype: of an encoder's indices, "int64" or "int32"; else None.
      pooling: what finds an encoder's maxima, "argmax" or "xla"; else None.
    """

    def __init__(self, path, manifest_path, directory):
        self.path = path
        self.manifest_path = manifest_path
        self.directory = directory
        self.manifest = None
        self.loaded = None
        self.kind = None
        self.layer = None
        self.blocks = None
        self.index_dtype = None
        self.pooling = None

    @property
    def convolutions(self):
        return [c for block in self.blocks for c in block.convolutions]

    @property
    def pooled_blocks(self):
        return [block for block in self.blocks if block.pooled]

    def beside(self, name):
        """The path of a file beside the archive, or None if it is not there."""
        path = pathlib.Path(self.path).with_name(name)
        return str(path) if os.path.lexists(path) else None


def expect(condition, message):
    if not condition:
        raise ValueError(message)


def as_list(outputs):
    """Block1 returns a bare tensor, the others a list."""
    return outputs if isinstance(outputs, list) else [outputs]


def plain(variable):
    return variable.name.removesuffix(":0")


def equal(left, right):
    return np.array_equal(np.asarray(left), np.asarray(right))


def close(left, right):
    left, right = np.asarray(left), np.asarray(right)
    scale = np.abs(right).max()
    return left.shape == right.shape and np.abs(left - right).max() <= TOLERANCE * scale


def error_of(call, *inputs):
    try:
        call(*inputs)
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        return str(error)
    return None
