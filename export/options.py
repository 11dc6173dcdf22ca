"""What an encoder can be asked for: the words that the command, the card and the manifest share.

Nothing here needs TensorFlow.
"""

__all__ = ["ASSET_URL", "ENGINES", "FILES", "INDEX_DTYPES", "PUBLISHER", "SOURCES"]

INDEX_DTYPES = ("int64", "int32")

# What finds the maxima: `tf.nn.max_pool_with_argmax`, which XLA does not know, or comparisons,
# which it does and fuses, and which are slow without it.
ENGINES = ("argmax", "xla")

# Where weights come from: Keras' published file, a seed, a file of the publisher's.
SOURCES = ("imagenet", "random", "file")

# The files of an artifact; the last one lists the checksums of the others.
FILES = (
    "encoder.tar.gz",
    "encoder.md",
    "encoder.png",
    "encoder.manifest.json",
    "SHA256SUMS",
)

# Regular expressions, to be matched as a whole and with re.ASCII.
PUBLISHER = r"[a-z\d-]+"
ASSET_URL = r"https?://[\w.:/~%-]+"
