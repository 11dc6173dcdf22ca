"""Modules and functions, timed in turn."""

import importlib.util
import os
import statistics
import time

import tensorflow as tf

from benchmarks.names import (
    FROM_INT64,
    FROM_SWITCHES,
    INT32,
    INT64,
    NEAREST,
    PLAIN,
    SCATTERED,
    STRAIGHTFORWARD,
    progress,
)
from benchmarks.straightforward import straightforward_pool
from export import archive, saved_model
from unpooling import Decoder, Encoder, pooling, vgg19, weights


def save_models(layer, directory):
    """Saves and packs encoders of each kind and a decoder, seeded; returns {kind: folder}."""

    class Straightforward(Encoder):
        def __call__(self, images):
            return self._with_positions(
                images, lambda values: straightforward_pool(values, self.index_dtype)
            )

    layers = weights.load("random", layer).layers
    models = {
        "straightforward": Straightforward(layer, layers),
        "int64": Encoder(layer, layers),
        "int32": Encoder(layer, layers, "int32"),
        "xla": Encoder(layer, layers, engine="xla"),
        "decoder": Decoder.load(layer, "random"),
    }
    folders = {kind: os.path.join(directory, kind) for kind in models}
    for kind, model in models.items():
        saved_model.save(model, folders[kind])
        archive.pack(folders[kind], f"{folders[kind]}.tar.gz")
    return folders


def time_encoder(models, side, batch, rounds):
    loaded = {kind: tf.saved_model.load(models[kind]) for kind in models if kind != "decoder"}
    images = tf.random.stateless_uniform((batch, side, side, 3), (0, 0), 0, 255)
    names = {
        PLAIN: loaded["int64"].features,
        STRAIGHTFORWARD: loaded["straightforward"],
        INT64: loaded["int64"],
        INT32: loaded["int32"],
        "switches (`compact`)": loaded["int64"].compact,
        "`--pooling=xla`, without XLA, int64": loaded["xla"],
    }
    return time_in_turn({name: lambda f=f: f(images) for name, f in names.items()}, rounds)


def time_encoder_under_xla(models, side, rounds):
    model = tf.saved_model.load(models["xla"])
    images = tf.random.stateless_uniform((1, side, side, 3), (0, 0), 0, 255)
    functions = {
        PLAIN: model.features,
        "`--pooling=xla`, int64": model,
        "`--pooling=xla`, switches (`compact`)": model.compact,
    }
    compiled = {
        name: tf.function(lambda x, f=f: f(x), jit_compile=True) for name, f in functions.items()
    }
    return time_in_turn({name: lambda f=f: f(images) for name, f in compiled.items()}, rounds)


def time_pooling(side, rounds):
    values = tf.random.stateless_normal((1, side, side, 64), (0, 0))
    spec = [tf.TensorSpec((None, None, None, 64), tf.float32)]
    functions = {
        STRAIGHTFORWARD: lambda v: straightforward_pool(v, tf.int64),
        "plain max pooling": pooling.max_pool,
        INT64: pooling.max_pool_with_indices,
        INT32: lambda v: pooling.max_pool_with_indices(v, tf.int32),
        "switches": pooling.max_pool_with_switches,
    }
    graphs = {name: tf.function(f, input_signature=spec) for name, f in functions.items()}
    calls = {name: lambda f=f: f(values) for name, f in graphs.items()}
    compiled = tf.function(
        lambda v: pooling.max_pool_with_indices(v, engine="xla"), jit_compile=True
    )
    calls["indices, int64, `xla` under XLA"] = lambda: compiled(values)
    if importlib.util.find_spec("torch"):
        import torch

        tensor = torch.from_numpy(values.numpy()).permute(0, 3, 1, 2).contiguous()
        calls[f"PyTorch {torch.__version__}, flat indices only"] = lambda: (
            torch.nn.functional.max_pool2d(tensor, 2, return_indices=True)
        )
    return time_in_turn(calls, rounds)


def time_unpooling(side, rounds):
    values = tf.random.stateless_normal((1, side, side, 64), (0, 0))
    pooled, indices = pooling.max_pool_with_indices(values)
    _, switches = pooling.max_pool_with_switches(values)

    @tf.function
    def scatter(pooled, indices):
        shape = tf.constant([1, side, side, 64], indices.dtype)
        return tf.scatter_nd(indices, tf.reshape(pooled, [-1]), shape)

    unpool = tf.function(pooling.unpool)
    shape = tf.shape(values)
    calls = {
        "`tf.scatter_nd`": lambda: scatter(pooled, indices),
        "`unpool`, from int64 indices": lambda: unpool(pooled, indices, shape),
        "`unpool`, from switches": lambda: unpool(pooled, switches, shape),
    }
    return time_in_turn(calls, rounds)


def upsampling_decoder(layer, variables, upsample):
    """A decoder's convolutions with another way up: a graph that takes a list of tensors."""
    weights = {v.name.partition(":")[0]: v for v in variables}

    @tf.function
    def decode(inputs):
        values, *indices = inputs
        for block in vgg19.mirror(layer):
            if block.unpooled:
                values = upsample(values, indices[block.number - 1])
            for c in block.convolutions:
                values = tf.nn.conv2d(values, weights[f"{c.name}/kernel"], 1, "SAME")
                values = tf.nn.bias_add(values, weights[f"{c.name}/bias"])
                values = values if c.name == "decoder_block1_conv1" else tf.nn.relu(values)
        return values

    return decode


def nearest(values, indices):
    del indices
    return tf.image.resize(values, 2 * tf.shape(values)[1:3], "nearest")


def scatter_double(values, indices):
    shape = tf.shape(values, indices.dtype) * [1, 2, 2, 1]
    scattered = tf.scatter_nd(indices, tf.reshape(values, [-1]), shape)
    return tf.ensure_shape(scattered, (None, None, None, values.shape[-1]))


def time_decoder(layer, models, side, rounds):
    encoder = tf.saved_model.load(models["int64"])
    decoder = tf.saved_model.load(models["decoder"])
    images = tf.random.stateless_uniform((1, side, side, 3), (0, 0), 0, 255)
    outputs, compact = encoder(images), encoder.compact(images)
    by_nearest = upsampling_decoder(layer, decoder.variables, nearest)
    by_scatter = upsampling_decoder(layer, decoder.variables, scatter_double)
    return time_in_turn(
        {
            NEAREST: lambda: by_nearest(tf.nest.flatten(outputs)),
            SCATTERED: lambda: by_scatter(tf.nest.flatten(outputs)),
            FROM_INT64: lambda: decoder(outputs),
            FROM_SWITCHES: lambda: decoder(compact),
        },
        rounds,
    )


def time_pair(layer, models, side, rounds):
    encoder = tf.saved_model.load(models["int64"])
    straightforward = tf.saved_model.load(models["straightforward"])
    decoder = tf.saved_model.load(models["decoder"])
    images = tf.random.stateless_uniform((1, side, side, 3), (0, 0), 0, 255)
    by_nearest = upsampling_decoder(layer, decoder.variables, nearest)
    by_scatter = upsampling_decoder(layer, decoder.variables, scatter_double)
    nothing = [tf.zeros((0, 4), tf.int64)] * (len(vgg19.blocks_up_to(layer)) - 1)
    return time_in_turn(
        {
            "plain trunk, nearest-neighbour upsampling": lambda: by_nearest(
                [encoder.features(images), *nothing]
            ),
            "straightforward graphs, int64": lambda: by_scatter(
                tf.nest.flatten(straightforward(images))
            ),
            "encoder and decoder, int64": lambda: decoder(encoder(images)),
            "encoder and decoder, switches": lambda: decoder(encoder.compact(images)),
        },
        rounds,
    )


def time_in_turn(calls, rounds):
    """Calls each of `calls` once per round, after one round to warm up.

    Returns:
      {name: median of its seconds}.
    """
    times = {name: [] for name in calls}
    for i in range(rounds + 1):
        for name, call in calls.items():
            progress(f"round {i} of {rounds}: {name}")
            start = time.perf_counter()
            call()
            if i:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}
