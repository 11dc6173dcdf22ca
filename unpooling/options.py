"""The values that modules, their weights or a style transfer can be asked for. No TensorFlow."""

__all__ = ["ENGINES", "INDEX_DTYPES", "KINDS", "METHODS", "SEEDS", "SMOOTHINGS", "SOURCES"]

INDEX_DTYPES = ("int64", "int32")

# What finds the maxima: `tf.nn.max_pool_with_argmax`, which XLA cannot compile, or comparisons,
# which XLA compiles and fuses, and which are slow without it.
ENGINES = ("argmax", "xla")

# Where weights come from: Keras' published file, a seed, another file.
SOURCES = ("imagenet", "random", "file")

SEEDS = 2**63 - 1  # the largest seed

# The two halves of a pair.
KINDS = ("encoder", "decoder")

# How style transfer maps features: by optimal transport, or by whitening and colouring.
METHODS = ("ot", "wct")

# What it takes its detail from: the content, by a guided filter, or what is decoded.
SMOOTHINGS = ("guided", "none")
