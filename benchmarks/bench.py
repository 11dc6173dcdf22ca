"""Measures what positions and unpooling cost: time, memory, growth, start-up.

    python -m benchmarks.bench

prints the tables, and writes them with the plot into docs/performance.md and docs/performance.png.
Everything in one table is measured in turn, round by round, and compared by medians, so that a
noisy or slow machine changes the times more than the ratios. PyTorch joins in if it is installed.
"""

import concurrent.futures
import contextlib
import importlib.util
import itertools
import multiprocessing
import os
import pathlib
import platform
import statistics
import tempfile
import time

from absl import app, flags, logging

from unpooling import vgg19

FLAGS = flags.FLAGS
flags.DEFINE_enum("layer", "block5_conv2", vgg19.LAYERS, "The layer at which the encoders end.")
flags.DEFINE_integer("rounds", 7, "How often each thing is timed.", lower_bound=1)
flags.DEFINE_integer("side", 512, "The side of a picture, for the tables of times.")
flags.DEFINE_list("growth", "128,256,512,1024,2048", "The sides of pictures, for the plot.")
flags.DEFINE_integer("megapixels", 100, "The largest picture, for the table of tiling.")
flags.DEFINE_string("output_dir", "docs", "The folder of performance.md and performance.png.")

BEGIN, END = "<!-- bench begins -->", "<!-- bench ends -->"


def main(argv):
    del argv
    logging.set_verbosity(logging.WARNING)
    sides = [int(side) for side in FLAGS.growth]
    side = FLAGS.side
    with tempfile.TemporaryDirectory() as directory:
        models = save_models(directory)
        one = time_encoder(models, side, 1)
        batch = time_encoder(models, side // 2, 8)
        xla = time_encoder_under_xla(models, side)
        pooling = time_pooling(side)
        unpooling = time_unpooling(side)
        decoder = time_decoder(models, side)
        pair = time_pair(models, side)
        startup = startup_table(models)
        growth = measure_growth(models, sides)
        tiling = tiling_table(directory)
    to_half = f"1x{side}x{side}x64 to 1x{side // 2}x{side // 2}x64"
    to_full = f"1x{side // 2}x{side // 2}x64 to 1x{side}x{side}x64"
    layer = FLAGS.layer
    sections = [
        ("In short", summary_table(one, batch, pooling, decoder, growth)),
        ("Encoder", times_table(one, f"{layer}, 1x{side}x{side}x3")),
        ("Encoder, a batch", times_table(batch, f"{layer}, 8x{side // 2}x{side // 2}x3")),
        (
            "Encoder under XLA",
            times_table(xla, f"{layer}, 1x{side}x{side}x3, `jit_compile=True`"),
        ),
        ("Pooling alone", times_table(pooling, to_half)),
        ("Unpooling alone", times_table(unpooling, to_full)),
        ("Decoder", times_table(decoder, f"{layer}, to 1x{side}x{side}x3")),
        ("Encoder and decoder", times_table(pair, f"{layer}, 1x{side}x{side}x3 and back")),
        ("Start-up", startup),
        ("Memory", memory_table(growth, sides[-1])),
        ("Growth", growth_table(growth)),
        ("Pictures of any size", tiling),
    ]
    text = f"{machine()}\n"
    for title, table in sections:
        text += f"\n### {title}\n\n{table}\n"
    write(text, growth)


# Names of rows that the summary takes up.
PLAIN = "plain trunk, no positions (`features`)"
STRAIGHTFORWARD = "straightforward graph, int64"
INT64, INT32 = "indices, int64", "indices, int32"
NEAREST = "the same convolutions, nearest-neighbour upsampling"
SCATTERED = "`tf.scatter_nd`, from int64 indices"
FROM_INT64, FROM_SWITCHES = "decoder, from int64 indices", "decoder, from switches"


# Models


def save_models(directory):
    """Saves and packs encoders of each kind and a decoder, seeded; returns {kind: folder}."""
    from benchmarks.straightforward import straightforward_pool
    from export import archive, saved_model
    from unpooling import Decoder, Encoder, weights

    class Straightforward(Encoder):
        def __call__(self, images):
            return self._with_positions(
                images, lambda values: straightforward_pool(values, self.index_dtype)
            )

    layers = weights.load("random", FLAGS.layer).layers
    models = {
        "straightforward": Straightforward(FLAGS.layer, layers),
        "int64": Encoder(FLAGS.layer, layers),
        "int32": Encoder(FLAGS.layer, layers, "int32"),
        "xla": Encoder(FLAGS.layer, layers, engine="xla"),
        "decoder": Decoder.load(FLAGS.layer, "random"),
    }
    folders = {kind: os.path.join(directory, kind) for kind in models}
    for kind, model in models.items():
        saved_model.save(model, folders[kind])
        archive.pack(folders[kind], f"{folders[kind]}.tar.gz")
    return folders


# Tables of times


def time_encoder(models, side, batch):
    import tensorflow as tf

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
    return time_in_turn({name: lambda f=f: f(images) for name, f in names.items()})


def time_encoder_under_xla(models, side):
    import tensorflow as tf

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
    return time_in_turn({name: lambda f=f: f(images) for name, f in compiled.items()})


def time_pooling(side):
    import tensorflow as tf

    from benchmarks.straightforward import straightforward_pool
    from unpooling import pooling

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
    return time_in_turn(calls)


def time_unpooling(side):
    import tensorflow as tf

    from unpooling import pooling

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
    return time_in_turn(calls)


def upsampling_decoder(variables, upsample):
    """A decoder's convolutions with another way up: a graph that takes a list of tensors."""
    import tensorflow as tf

    weights = {v.name.partition(":")[0]: v for v in variables}

    @tf.function
    def decode(inputs):
        values, *indices = inputs
        for block in vgg19.mirror(FLAGS.layer):
            if block.unpooled:
                values = upsample(values, indices[block.number - 1])
            for c in block.convolutions:
                values = tf.nn.conv2d(values, weights[f"{c.name}/kernel"], 1, "SAME")
                values = tf.nn.bias_add(values, weights[f"{c.name}/bias"])
                values = values if c.name == "decoder_block1_conv1" else tf.nn.relu(values)
        return values

    return decode


def nearest(values, indices):
    import tensorflow as tf

    del indices
    return tf.image.resize(values, 2 * tf.shape(values)[1:3], "nearest")


def scatter_double(values, indices):
    import tensorflow as tf

    shape = tf.shape(values, indices.dtype) * [1, 2, 2, 1]
    scattered = tf.scatter_nd(indices, tf.reshape(values, [-1]), shape)
    return tf.ensure_shape(scattered, (None, None, None, values.shape[-1]))


def time_decoder(models, side):
    import tensorflow as tf

    encoder = tf.saved_model.load(models["int64"])
    decoder = tf.saved_model.load(models["decoder"])
    images = tf.random.stateless_uniform((1, side, side, 3), (0, 0), 0, 255)
    outputs, compact = encoder(images), encoder.compact(images)
    by_nearest = upsampling_decoder(decoder.variables, nearest)
    by_scatter = upsampling_decoder(decoder.variables, scatter_double)
    return time_in_turn(
        {
            NEAREST: lambda: by_nearest(tf.nest.flatten(outputs)),
            SCATTERED: lambda: by_scatter(tf.nest.flatten(outputs)),
            FROM_INT64: lambda: decoder(outputs),
            FROM_SWITCHES: lambda: decoder(compact),
        }
    )


def time_pair(models, side):
    import tensorflow as tf

    encoder = tf.saved_model.load(models["int64"])
    straightforward = tf.saved_model.load(models["straightforward"])
    decoder = tf.saved_model.load(models["decoder"])
    images = tf.random.stateless_uniform((1, side, side, 3), (0, 0), 0, 255)
    by_nearest = upsampling_decoder(decoder.variables, nearest)
    by_scatter = upsampling_decoder(decoder.variables, scatter_double)
    nothing = [tf.zeros((0, 4), tf.int64)] * (len(vgg19.blocks_up_to(FLAGS.layer)) - 1)
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
        }
    )


def time_in_turn(calls):
    """Calls each of `calls` once per round, after one round to warm up.

    Returns:
      {name: median of its seconds}.
    """
    times = {name: [] for name in calls}
    for i in range(FLAGS.rounds + 1):
        for name, call in calls.items():
            progress(f"round {i} of {FLAGS.rounds}: {name}")
            start = time.perf_counter()
            call()
            if i:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def times_table(medians, title):
    """A Markdown table of medians in seconds, and of their ratios to the first row's."""
    first = next(iter(medians))
    rows = [f"| {title} | median, ms | ratio |", "|---|---:|---:|"]
    for name, seconds in medians.items():
        rows.append(f"| {name} | {seconds * 1e3:.1f} | {seconds / medians[first]:.2f} |")
    return "\n".join(rows)


def summary_table(one, batch, pooling, decoder, growth):
    """What this project asks of itself, beside what was measured."""
    above = {name: measured[-1][0] - measured[-1][1] for name, measured in growth.items()}
    plain, raw, nearest = (PLAIN, STRAIGHTFORWARD), (STRAIGHTFORWARD,) * 2, (NEAREST, SCATTERED)
    lines = [  # (what, figures, names of what it is compared with and of the straightforward one)
        ("encoder, one picture, int64, to plain trunk", one, *plain, INT64, 1.10),
        ("encoder, one picture, int32, to plain trunk", one, *plain, INT32, 1.08),
        ("encoder, batch of 8, int64, to plain trunk", batch, *plain, INT64, 1.12),
        ("pooling, int64, to straightforward graph", pooling, *raw, INT64, 0.33),
        ("decoder, int64, to nearest-neighbour upsampling", decoder, *nearest, FROM_INT64, 1.15),
        ("decoder, switches, to the same", decoder, *nearest, FROM_SWITCHES, 1.15),
        ("peak memory above outputs, int64, to plain trunk", above, *plain, INT64, 1.8),
    ]
    rows = ["| ratio | straightforward | ours | at most |", "|---|---:|---:|---:|"]
    for name, figures, base, straightforward, ours, bar in lines:
        ratios = (figures[straightforward] / figures[base], figures[ours] / figures[base])
        rows.append(f"| {name} | {ratios[0]:.2f} | {ratios[1]:.2f} | {bar:.2f} |")
    return "\n".join(rows)


# What needs a fresh process: memory and start-up


def in_fresh_process(function, *arguments):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def measure_startup(path):
    """Seconds of import, load, first and second call, in a process that did nothing before."""
    from unpooling import archive

    start = time.perf_counter()
    import tensorflow as tf
    import tensorflow_hub  # noqa: F401

    imported = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        archive.read(path).unpack(folder)
        model = tf.saved_model.load(folder)
    loaded = time.perf_counter()
    times = [imported - start, loaded - imported]
    for side in (256, 256, 272):
        images = tf.zeros((1, side, side, 3))
        before = time.perf_counter()
        model(images)
        times.append(time.perf_counter() - before)
    return times


def startup_table(models):
    kinds = ("straightforward", "int64")
    times = {kind: [] for kind in kinds}
    for _, kind in itertools.product(range(3), kinds):
        progress(f"start-up: {kind}")
        times[kind].append(in_fresh_process(measure_startup, f"{models[kind]}.tar.gz"))
    steps = [
        "import tensorflow and tensorflow_hub",
        "unpack and load the archive",
        "first call, 256x256",
        "second call, 256x256",
        "first call of another size, 272x272",
    ]
    rows = ["| median of 3 fresh processes, s | straightforward | ours |", "|---|---:|---:|"]
    for i, step in enumerate(steps):
        medians = [statistics.median(run[i] for run in times[kind]) for kind in kinds]
        rows.append(f"| {step} | {medians[0]:.2f} | {medians[1]:.2f} |")
    return "\n".join(rows)


def measure_call(folder, method, side, rounds):
    """One picture, in a fresh process: bytes and seconds of a call.

    Returns:
      (peak, outputs, seconds): what the resident memory rose by at its highest, the size of the
      outputs, and the median of the calls' times.
    """
    import tensorflow as tf

    model = tf.saved_model.load(folder)
    call = model if method == "call" else getattr(model, method)
    call(tf.zeros((1, 32, 32, 3)))
    images = tf.random.stateless_uniform((1, side, side, 3), (0, 0), 0, 255)
    before = _start_peak()
    outputs = call(images)
    peak = _status("VmHWM") - before
    size = sum(o.shape.num_elements() * o.dtype.size for o in tf.nest.flatten(outputs))
    seconds = []
    for _ in range(rounds):
        outputs = None  # as a caller who has used them
        start = time.perf_counter()
        outputs = call(images)
        seconds.append(time.perf_counter() - start)
    del outputs
    return peak, size, statistics.median(seconds)


def _start_peak():
    """Makes the highest resident memory so far the present one, and returns it. Linux only."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(key):
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {key}: memory can be measured on Linux only.")


KINDS = {
    PLAIN: ("int64", "features"),
    "switches (`compact`)": ("int64", "compact"),
    INT64: ("int64", "call"),
    STRAIGHTFORWARD: ("straightforward", "call"),
}


def measure_growth(models, sides):
    """{kind: [(peak bytes, bytes of the outputs, seconds) for each side]}."""
    growth = {name: [] for name in KINDS}
    for side, (name, (kind, method)) in itertools.product(sides, KINDS.items()):
        progress(f"growth: {side}x{side}, {name}")
        rounds = 3 if side <= 1024 else 1
        growth[name].append(in_fresh_process(measure_call, models[kind], method, side, rounds))
    return growth


def memory_table(growth, side):
    rows = [
        f"| {FLAGS.layer}, 1x{side}x{side}x3, GB | peak | outputs | peak above outputs | ratio |",
        "|---|---:|---:|---:|---:|",
    ]
    plain = next(iter(growth.values()))[-1]
    for name, measured in growth.items():
        peak, outputs, _ = measured[-1]
        above = (peak - outputs) / 1e9
        ratio = (peak - outputs) / (plain[0] - plain[1])
        rows.append(
            f"| {name} | {peak / 1e9:.2f} | {outputs / 1e9:.2f} | {above:.2f} | {ratio:.2f} |"
        )
    return "\n".join(rows)


def growth_table(growth):
    sides = [int(side) for side in FLAGS.growth]
    rows = [
        "| per million pixels | " + " | ".join(f"{side}²" for side in sides) + " |",
        "|---|" + "---:|" * len(sides),
    ]
    for name, measured in growth.items():
        seconds = [m[2] / side**2 * 1e6 for m, side in zip(measured, sides, strict=True)]
        rows.append(f"| {name}, s | " + " | ".join(f"{s:.2f}" for s in seconds) + " |")
    for name, measured in growth.items():
        peaks = [m[0] / side**2 / 1e3 for m, side in zip(measured, sides, strict=True)]
        rows.append(f"| {name}, peak GB | " + " | ".join(f"{p:.2f}" for p in peaks) + " |")
    return "\n".join(rows)


# Pictures of any size, through a block2 pair


def measure_pair(folders, megapixels, tiled):
    """A picture through a pair in a fresh process: what memory rose by at its highest, seconds.

    The picture and its reconstruction, uint8, are part of it.
    """
    import numpy as np

    import unpooling
    from unpooling import tiling

    encoder, decoder = (unpooling.load(folder) for folder in folders)
    decoder(encoder.compact(np.zeros((1, 32, 32, 3), np.float32)))
    before = _start_peak()
    side = round((megapixels * 1e6) ** 0.5 / 2) * 2
    row = np.random.default_rng(0).integers(0, 256, (1, 1, side, 3), np.uint8)
    picture = np.repeat(row, side, axis=1)
    start = time.perf_counter()
    if tiled:
        tiling.reconstruct(encoder, decoder, picture, out=np.empty_like(picture))
    else:
        decoded = decoder(encoder.compact(picture.astype(np.float32)))
        np.clip(np.round(decoded), 0, 255).astype(np.uint8)
    return _status("VmHWM") - before, time.perf_counter() - start


def tiling_table(directory):
    """Memory and time of pictures from 1 to `--megapixels`, in tiles and in one piece."""
    from export import saved_model
    from unpooling import Decoder, Encoder

    layer = "block2_conv2"
    folders = [os.path.join(directory, f"tiled_{kind}") for kind in ("encoder", "decoder")]
    for half, folder in zip((Encoder, Decoder), folders, strict=True):
        saved_model.save(half.load(layer, "random"), folder)
    rows = [
        f"| {layer} encoder and decoder, megapixels | in tiles, GB | in one piece, GB "
        "| in tiles, s | in one piece, s |",
        "|---:|---:|---:|---:|---:|",
    ]
    for megapixels in (n for n in (1, 4, 12, 25, 50, 100) if n <= FLAGS.megapixels):
        progress(f"tiling: {megapixels} megapixels")
        tiled = in_fresh_process(measure_pair, folders, megapixels, True)
        # More would not fit into the memory of common machines.
        whole = None
        if megapixels <= 12:
            whole = in_fresh_process(measure_pair, folders, megapixels, False)
        cells = [
            format(figures[i] / scale, digits) if figures else ""
            for i, scale, digits in ((0, 1e9, ".2f"), (1, 1, ".1f"))
            for figures in (tiled, whole)
        ]
        rows.append(f"| {megapixels} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


# Output


def machine():
    import numpy as np
    import tensorflow as tf

    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    return (
        f"Measured on {os.cpu_count()} cores of {model}, Python {platform.python_version()}, "
        f"TensorFlow {tf.__version__}, NumPy {np.__version__}, float32, median of "
        f"{FLAGS.rounds} rounds."
    )


def write(text, growth):
    print(text)
    page = pathlib.Path(FLAGS.output_dir, "performance.md")
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")
    plot(growth, page.with_suffix(".png"))


def plot(growth, path):
    from matplotlib.figure import Figure

    sides = [int(side) for side in FLAGS.growth]
    pixels = [side**2 for side in sides]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots(1, 2)
    titles = ("seconds for one picture", "GB at the peak, outputs included")
    for panel, axis, title in zip(("seconds", "peak"), axes, titles, strict=True):
        for name, measured in growth.items():
            values = [m[2] if panel == "seconds" else m[0] / 1e9 for m in measured]
            axis.plot(pixels, values, marker="o", label=name.replace("`", ""))
        axis.set(xscale="log", yscale="log", title=title, xlabel="side of the picture, pixels")
        axis.set_xticks(pixels, [str(side) for side in sides], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        # What grows with the number of pixels runs parallel to this line.
        last = growth[next(iter(growth))][-1]
        end = last[2] if panel == "seconds" else last[0] / 1e9
        line = [end * count / pixels[-1] for count in pixels]
        axis.plot(pixels, line, "k:", linewidth=1, label="linear in pixels")
    axes[0].legend()
    figure.savefig(path, dpi=120)


def progress(message):
    print(f"bench: {message}", flush=True)


if __name__ == "__main__":
    app.run(main)
