"""Measures what positions and unpooling cost: time, memory, growth, start-up, training.

    python -m benchmarks.bench

prints the tables, and writes them with the plot into docs/performance.md and docs/performance.png.
The runtimes have their table in docs/runtimes.md. With --only=training, --only=modules or
--only=runtimes, the other parts of the pages stay as they are.
Everything in one table is measured in turn, round by round, and compared by medians, so that a
noisy or slow machine changes the times more than the ratios. PyTorch joins in if it is installed.
"""

import contextlib
import itertools
import os
import pathlib
import platform
import statistics
import tempfile

from absl import app, flags, logging

from benchmarks import processes
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
from benchmarks.pages import between
from unpooling import vgg19

FLAGS = flags.FLAGS
flags.DEFINE_enum("layer", "block5_conv2", vgg19.LAYERS, "The layer at which the encoders end.")
flags.DEFINE_integer("rounds", 7, "How often each thing is timed.", lower_bound=1)
flags.DEFINE_integer("side", 512, "The side of a picture, for the tables of times.")
flags.DEFINE_list("growth", "128,256,512,1024,2048", "The sides of pictures, for the plot.")
flags.DEFINE_integer("megapixels", 100, "The largest picture, for the table of tiling.")
flags.DEFINE_enum(
    "only", None, ("modules", "training", "runtimes"), "What to measure; the rest stays."
)
flags.DEFINE_string("output_dir", "docs", "The folder of performance.md, its .png, runtimes.md.")


def main(argv):
    del argv
    logging.set_verbosity(logging.WARNING)
    for part, measure in (
        ("modules", measure_modules),
        ("training", measure_training),
        ("runtimes", measure_runtimes),
    ):
        if FLAGS.only in (None, part):
            measure()


def measure_modules():
    # Not at the top: processes that measure the start-up import this module.
    from benchmarks import times

    layer, side, rounds = FLAGS.layer, FLAGS.side, FLAGS.rounds
    sides = [int(side) for side in FLAGS.growth]
    with tempfile.TemporaryDirectory() as directory:
        models = times.save_models(layer, directory)
        one = times.time_encoder(models, side, 1, rounds)
        batch = times.time_encoder(models, side // 2, 8, rounds)
        xla = times.time_encoder_under_xla(models, side, rounds)
        pooling = times.time_pooling(side, rounds)
        unpooling = times.time_unpooling(side, rounds)
        decoder = times.time_decoder(layer, models, side, rounds)
        pair = times.time_pair(layer, models, side, rounds)
        startup = startup_table(models)
        growth = measure_growth(models, sides)
        tiling = tiling_table(directory)
    to_half = f"1x{side}x{side}x64 to 1x{side // 2}x{side // 2}x64"
    to_full = f"1x{side // 2}x{side // 2}x64 to 1x{side}x{side}x64"
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
    write("modules", f"{machine()}, float32", sections)
    plot(growth, os.path.join(FLAGS.output_dir, "performance.png"))


def measure_training():
    from benchmarks import training

    cases = [(layer, p) for layer in training.LAYERS for p in training.PRECISIONS]
    with tempfile.TemporaryDirectory() as directory:
        photographs = training.write_photographs(directory)
        small = photographs["small"]
        steps = {case: training.time_steps(*case, FLAGS.rounds) for case in cases}
        parts = {case: training.time_parts(*case, FLAGS.rounds, small) for case in cases}
        batches = {
            (layer, size): training.time_batches(layer, folder)
            for layer in training.LAYERS
            for size, folder in photographs.items()
        }
    sections = [
        ("Training steps", steps_table(steps)),
        ("Where the time of a step goes", parts_table(parts)),
        ("Batches of photographs", batches_table(steps, batches)),
    ]
    write("training", machine(), sections)


def measure_runtimes():
    from benchmarks import runtimes

    times = {}
    for layer in runtimes.LAYERS:
        with tempfile.TemporaryDirectory() as directory:
            runtimes.write_modules(layer, directory)
            times[layer] = runtimes.time_runtimes(directory, FLAGS.side, FLAGS.rounds)
    table = runtimes_table(times)
    write("runtimes", machine(), [("Times", table)], "runtimes.md")


def runtimes_table(times):
    from benchmarks import runtimes

    columns = list(itertools.product(times, runtimes.WHAT))
    rows = [
        f"| seconds per million pixels (ratio), 1x{FLAGS.side}x{FLAGS.side}x3 "
        f"| {' | '.join(' '.join(column) for column in columns)} |",
        "|---|" + "---:|" * len(columns),
    ]
    for name in next(iter(times.values())):
        cells = []
        for layer, what in columns:
            seconds, first = times[layer][name][what], times[layer][runtimes.TENSORFLOW][what]
            cells.append(f"{seconds / FLAGS.side**2 * 1e6:.2f} ({seconds / first:.2f})")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def steps_table(steps):
    from benchmarks import training

    rows = [
        f"| a step, ms | {training.PLAIN_STEP} | {training.STEP} | ratio | at most |",
        "|---|---:|---:|---:|---:|",
    ]
    for case, measured in steps.items():
        plain, ours = measured[training.PLAIN_STEP], measured[training.STEP]
        rows.append(
            f"| {', '.join(case)} | {plain * 1e3:.1f} | {ours * 1e3:.1f} | {ours / plain:.2f} "
            "| 1.10 |"
        )
    return "\n".join(rows)


def parts_table(parts):
    rows = [f"| ms | {' | '.join(map(', '.join, parts))} |", "|---|" + "---:|" * len(parts)]
    for name in next(iter(parts.values())):
        cells = (f"{measured[name] * 1e3:.1f}" for measured in parts.values())
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def batches_table(steps, batches):
    from benchmarks import training

    rows = [f"| a second | {' | '.join(training.LAYERS)} |", "|---|" + "---:|" * 2]
    for size, (width, height) in training.SIDES.items():
        cells = (f"{1 / batches[layer, size]:.1f}" for layer in training.LAYERS)
        rows.append(f"| batches of photographs, {width}x{height} | {' | '.join(cells)} |")
    for precision in training.PRECISIONS:
        cells = (f"{1 / steps[n, precision][training.STEP]:.1f}" for n in training.LAYERS)
        rows.append(f"| steps, {precision} | {' | '.join(cells)} |")
    return "\n".join(rows)


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


def startup_table(models):
    kinds = ("straightforward", "int64")
    times = {kind: [] for kind in kinds}
    for _, kind in itertools.product(range(3), kinds):
        progress(f"start-up: {kind}")
        times[kind].append(
            processes.in_fresh_process(processes.measure_startup, f"{models[kind]}.tar.gz")
        )
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
        growth[name].append(
            processes.in_fresh_process(processes.measure_call, models[kind], method, side, rounds)
        )
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
        tiled = processes.in_fresh_process(processes.measure_pair, folders, megapixels, True)
        # More would not fit into the memory of common machines.
        whole = None
        if megapixels <= 12:
            whole = processes.in_fresh_process(processes.measure_pair, folders, megapixels, False)
        cells = [
            format(figures[i] / scale, digits) if figures else ""
            for i, scale, digits in ((0, 1e9, ".2f"), (1, 1, ".1f"))
            for figures in (tiled, whole)
        ]
        rows.append(f"| {megapixels} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def machine():
    import numpy as np
    import tensorflow as tf

    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    return (
        f"Measured on {os.cpu_count()} cores of {model}, Python {platform.python_version()}, "
        f"TensorFlow {tf.__version__}, NumPy {np.__version__}, median of {FLAGS.rounds} rounds"
    )


def write(part, measured_on, sections, page="performance.md"):
    """Prints the tables of a part, and writes them into the page between its two comments."""
    text = f"{measured_on}.\n"
    for title, table in sections:
        text += f"\n### {title}\n\n{table}\n"
    print(text)
    path = pathlib.Path(FLAGS.output_dir, page)
    path.write_text(between(path.read_text(encoding="utf-8"), part, f"\n{text}"), encoding="utf-8")


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


if __name__ == "__main__":
    app.run(main)
