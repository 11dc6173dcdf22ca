"""Names of the rows that several tables have, and lines of progress."""

PLAIN = "plain trunk, no positions (`features`)"
STRAIGHTFORWARD = "straightforward graph, int64"
INT64, INT32 = "indices, int64", "indices, int32"
NEAREST = "the same convolutions, nearest-neighbour upsampling"
SCATTERED = "`tf.scatter_nd`, from int64 indices"
FROM_INT64, FROM_SWITCHES = "decoder, from int64 indices", "decoder, from switches"


def progress(message):
    print(f"bench: {message}", flush=True)
