"""Measures style transfer: what it keeps, how near it comes to the style, time and memory.

    python -m benchmarks.style --weights=vgg19.h5 --photos=folder

writes the tables of docs/style.md. The photographs are drawn in pairs by a seed, and reduced to at
most --side pixels. With --megapixels= there is no table of sizes, with --pairs=0 none of measures.
"""

import collections
import pathlib
import textwrap
import time
from unittest import mock

import numpy as np
from absl import app, flags
from PIL import Image

from benchmarks import processes
from benchmarks.names import progress
from benchmarks.pages import between

FLAGS = flags.FLAGS
flags.DEFINE_string("weights", "imagenet", "The encoders', see stylize.py.")
flags.DEFINE_string("decoders", "pretrained", "The decoders, see stylize.py.")
flags.DEFINE_list("photos", [], "Folders of photographs.")
flags.DEFINE_integer("pairs", 40, "How many pairs of photographs are measured.")
flags.DEFINE_integer("side", 500, "The longer side of a photograph.")
flags.DEFINE_list("megapixels", "1,4,8,24,33,100", "The sizes that are timed.")
flags.DEFINE_string("page", "docs/style.md", "The page whose tables are written.")

_SEED = 0
_DEPTH = 3


def main(argv):
    del argv
    page = pathlib.Path(FLAGS.page)
    text = page.read_text(encoding="utf-8")
    if FLAGS.pairs:
        contents, styles = drawn_pairs(FLAGS.photos, FLAGS.pairs)
        found = measure_pairs(contents, styles, FLAGS.weights, FLAGS.decoders, FLAGS.side)
        text = printed_between(text, "measures", measures_text(found, FLAGS.pairs))
    sizes = [float(size) for size in FLAGS.megapixels]
    if sizes:
        rows = [measure_size(size, FLAGS.weights, FLAGS.decoders) for size in sizes]
        text = printed_between(text, "sizes", sizes_text(rows))
    page.write_text(text, encoding="utf-8")


def printed_between(text, name, table):
    print(f"\n{table}\n", flush=True)
    return between(text, name, table)


def drawn_pairs(folders, count):
    """Paths of contents and of styles, drawn by a seed; none is twice among one of them."""
    paths = sorted(
        str(path)
        for folder in folders
        for path in pathlib.Path(folder).rglob("*")
        if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    )
    if len(paths) <= count:
        raise SystemExit(f"--photos must hold more than {count} photographs. Found: {len(paths)}.")
    order = np.random.default_rng(_SEED).permutation(len(paths))
    drawn = [paths[order[place % len(order)]] for place in range(2 * count)]
    return drawn[:count], drawn[count:]


def read(path, side):
    from unpooling.pictures import read_picture

    image = Image.fromarray(read_picture(path))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


# --- What is kept, and what is reached.


def measure_pairs(contents, styles, weights, decoders, side):
    """Returns {table: {row: [values of each pair]}}."""
    from unpooling import style
    from unpooling.style import measure

    pairs = style.load_pairs(_DEPTH, weights, decoders)
    tables = {name: collections.defaultdict(list) for name in ("pairs", "filters", "self")}
    random = np.random.default_rng(_SEED)
    for number, paths in enumerate(zip(contents, styles, strict=True), start=1):
        progress(f"pair {number} of {len(contents)}")
        content, other = (read(path, side) for path in paths)
        look = style.Style.learn(other, pairs)
        results = {
            ("the style's own", ""): other,
            ("Reinhard, Lab", ""): measure.reinhard(content, other),
        }
        for strength, depth, method, smoothing in _variants():
            results[_name(strength, depth, method), smoothing] = style.transfer(
                content,
                look,
                pairs[:depth],
                strength=strength,
                method=method,
                smoothing=smoothing,
            )
        for row, picture in results.items():
            same = picture.shape == content.shape and picture is not other
            distances = measure.feature_distances(picture, look, pairs)
            values = [
                measure.edge_ssim(content, picture) if same else np.nan,
                *measure.colour_distances(picture, other).values(),
                *(value for layer in distances.values() for value in layer),
            ]
            tables["pairs"][row].append(values)
        stylised = results[_name(1, _DEPTH, style.METHODS[0]), "none"]
        for row, picture in _filtered(content, stylised).items():
            values = [measure.edge_ssim(content, picture)]
            values += measure.colour_distances(picture, other).values()
            tables["filters"][row].append(values)
        recoloured = _recoloured(content, random)
        results = {
            "the photograph itself": content,
            "Reinhard, Lab": measure.reinhard(content, recoloured),
        }
        look = style.Style.learn(recoloured, pairs)
        for smoothing in style.SMOOTHINGS:
            for method in style.METHODS:
                results[f"`{method}`, smoothing `{smoothing}`"] = style.transfer(
                    content, look, pairs, method=method, smoothing=smoothing
                )
        for row, picture in results.items():
            values = [measure.psnr(picture, recoloured), measure.ssim(picture, recoloured)]
            tables["self"][row].append(values)
    return tables


def _variants():
    """(strength, depth, method, smoothing) of the table's rows."""
    from unpooling import style

    yield 0, _DEPTH, style.METHODS[0], "none"
    for method in style.METHODS:
        for depth in range(1, _DEPTH + 1):
            for smoothing in style.SMOOTHINGS:
                yield 1, depth, method, smoothing
    for strength in (0.25, 0.5, 0.75):
        yield strength, _DEPTH, style.METHODS[0], style.SMOOTHINGS[0]


def _name(strength, depth, method):
    if not strength:
        return f"reconstruction, depth {depth}"
    return f"`{method}`, depth {depth}" + (f", strength {strength}" if strength != 1 else "")


def _filtered(content, picture):
    """{row: picture}: a stylised picture after the guided filter, and from there to ours."""
    from unpooling.style import smoothing
    from unpooling.style.masks import Mask

    def local(radius, regularisation, difference):
        """The picture filtered, or the content with the difference filtered."""
        guide, goal = content.astype(np.float32), picture.astype(np.float32)
        pixels = round(radius * (content.size / 3) ** 0.5)
        weights = np.ones((*content.shape[:2], 1))
        with mock.patch.object(smoothing, "_REGULARISATION", regularisation):
            maps = smoothing._fit(guide, goal - guide if difference else goal, weights, pixels)
        changed = smoothing._applied(maps, 1, (0, len(content), 0, content.shape[1]), guide)
        return np.uint8(np.clip(np.rint(changed if difference else changed - guide), 0, 255))

    narrow, wide = 0.04, smoothing._RADIUS
    return {
        "none": picture,
        f"guided filter, radius {narrow:.0%}, regularisation 0.001": local(narrow, 1e-3, False),
        "the same of the difference": local(narrow, 1e-3, True),
        f"regularisation {smoothing._REGULARISATION:g}": local(
            narrow, smoothing._REGULARISATION, True
        ),
        f"radius {wide:.0%}": local(wide, smoothing._REGULARISATION, True),
        "contrast given back: `guided`": smoothing.smoothed(content, picture, Mask(None, content)),
    }


def _recoloured(picture, random):
    """A photograph with its channels mixed, on other curves of tone, by a seed."""
    mixing = 0.7 * np.eye(3) + 0.3 * random.dirichlet(np.ones(3), 3)
    values = picture / 255 @ mixing * random.uniform(0.6, 1.1, 3)
    values += random.uniform(-0.6, 0.6, 3) * np.sin(2 * np.pi * values) / (2 * np.pi)
    return np.uint8(np.rint(255 * np.clip(values, 0, 1)))


def measures_text(tables, count):
    blocks = (f"block{k}: mean | covariance" for k in range(1, _DEPTH + 1))
    lines = [
        _wrapped(
            f"Means of {count} pairs of photographs, at full strength where nothing else is said. "
            "*Edges*: SSIM of Sobel's edges to the photograph's, 1 at best. *Colour*: how far the "
            "means and standard deviations of red, green and blue are from the style's, of 255. "
            "*Blocks*: how far the means and covariances of features are from the style's, as a "
            "part of the style's. The first row has nothing of the photograph, the second needs no "
            "network."
        ),
        "",
        f"| transfer | smoothing | edges | colour: mean | deviation | {' | '.join(blocks)} |",
        "|" + "---|" * (5 + 2 * _DEPTH),
    ]
    for (name, smoothing), rows in tables["pairs"].items():
        edges, mean, deviation, *features = np.mean(rows, axis=0)
        cells = [name, smoothing and f"`{smoothing}`", "" if np.isnan(edges) else f"{edges:.3f}"]
        cells += [f"{mean:.1f}", f"{deviation:.1f}", *(f"{value:.2f}" for value in features)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        _wrapped(
            f"What `guided` is made of, at depth {_DEPTH} by `ot`; each row changes one thing in "
            "the row before. The radius of a window is a part of the picture's mean side."
        ),
        "",
        "| smoothing | edges | colour: mean | deviation |",
        "|---|---|---|---|",
    ]
    for name, rows in tables["filters"].items():
        edges, mean, deviation = np.mean(rows, axis=0)
        lines.append(f"| {name} | {edges:.3f} | {mean:.1f} | {deviation:.1f} |")
    lines += [
        "",
        _wrapped(
            "Here the style is the photograph itself with its channels mixed and on other curves "
            "of tone, and the transfer should give that very picture:"
        ),
        "",
        "| transfer | PSNR, dB | SSIM |",
        "|---|---|---|",
    ]
    for name, rows in tables["self"].items():
        psnr, ssim = np.mean(rows, axis=0)
        lines.append(f"| {name} | {psnr:.1f} | {ssim:.3f} |")
    return "\n".join(lines)


# --- Time and memory.


def measure_size(megapixels, weights, decoders):
    progress(f"{megapixels:g} megapixels")
    exact, bare = processes.in_fresh_process(measure_transfer, megapixels, weights, decoders, False)
    fast, _ = processes.in_fresh_process(measure_transfer, megapixels, weights, decoders, True)
    return megapixels, exact, bare, fast


def measure_transfer(megapixels, weights, decoders, fast):
    """((bytes, seconds) of a transfer, seconds of what it encodes and decodes), in this process.

    The two are timed in turn, the second at up to 8 megapixels only.
    """
    from unpooling import style

    pairs = style.load_pairs(_DEPTH, weights, decoders)
    small = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    look = style.Style.learn(small, pairs)
    style.transfer(small, look, pairs, fast=fast)
    before = processes.start_peak()
    side = round((megapixels * 1e6) ** 0.5)
    content = np.tile(small, (-(-side // 64), -(-side // 64), 1))[:side, :side]
    start = time.perf_counter()
    style.transfer(content, look, pairs, fast=fast)
    seconds = time.perf_counter() - start
    peak = processes.status("VmHWM") - before
    if fast or megapixels > 8:
        return (peak, seconds), None
    rounds = [(seconds, _bare(content, pairs))]
    for _ in range(0 if megapixels > 1 else 2):
        start = time.perf_counter()
        style.transfer(content, look, pairs)
        rounds.append((time.perf_counter() - start, _bare(content, pairs)))
    seconds, bare = np.median(rounds, axis=0)
    return (peak, float(seconds)), float(bare)


def _bare(content, pairs):
    """The seconds of the same tiles through the same modules, and nothing else."""
    import tensorflow as tf

    from unpooling import tiling, vgg19
    from unpooling.style.tiles import cut, padded_tiles

    start = time.perf_counter()
    for encoder, decoder in pairs:
        layer = tiling.layer_of(encoder)
        scale = vgg19.downsampling(layer)
        for decoded in (False, True):
            margin = tiling.margin(layer, decoded=decoded)
            for tile in padded_tiles(*content.shape[:2], scale, margin):
                images = tf.cast(cut(content, tile.outer)[np.newaxis], tf.float32)
                if decoded:
                    decoder(encoder.compact(images))
                else:
                    encoder.features(images)
    return time.perf_counter() - start


def sizes_text(rows):
    lines = [
        f"Depth {_DEPTH}, smoothed, in a process of its own, the style learnt before.",
        "Memory is what the resident memory rose by, the photograph and the result included.",
        "*Ratio*: to the time of the encoding and decoding alone, measured in turn.",
        "",
        "| megapixels | exact: time | memory | ratio | `--fast`: time | memory | exact / fast |",
        "|---|---|---|---|---|---|---|",
    ]
    for megapixels, (peak, seconds), bare, (fast_peak, fast_seconds) in rows:
        cells = [
            f"{megapixels:g}",
            f"{seconds:.1f} s",
            f"{peak / 2**20:,.0f} MiB",
            f"{seconds / bare:.2f}" if bare else "",
            f"{fast_seconds:.1f} s",
            f"{fast_peak / 2**20:,.0f} MiB",
            f"{seconds / fast_seconds:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _wrapped(text):
    return textwrap.fill(text, 120)


if __name__ == "__main__":
    app.run(main)
