"""What a module can be asked for: the words that the command, the card and the manifest share.

Nothing here needs TensorFlow.
"""

__all__ = ["ASSET_URL", "ENGINES", "INDEX_DTYPES", "KINDS", "PUBLISHER", "SOURCES", "files"]

INDEX_DTYPES = ("int64", "int32")

# What finds the maxima: `tf.nn.max_pool_with_argmax`, which XLA does not know, or comparisons,
# which it does and fuses, and which are slow without it.
ENGINES = ("argmax", "xla")

# Where weights come from: Keras' published file, a seed, a file of the publisher's.
SOURCES = ("imagenet", "random", "file")

# What can be built: the two halves of a pair.
KINDS = ("encoder", "decoder")

# Regular expressions, to be matched as a whole and with re.ASCII.
PUBLISHER = r"[a-z\d-]+"
ASSET_URL = r"https?://[\w.:/~%-]+"


def files(kind: str) -> tuple[str, ...]:
    """Returns the names of the files of an artifact; the last lists the others' checksums.

    Args:
      kind: one of `KINDS`.
    """
    return (
        *(f"{kind}.{ending}" for ending in ("tar.gz", "md", "png", "manifest.json")),
        "SHA256SUMS",
    )
