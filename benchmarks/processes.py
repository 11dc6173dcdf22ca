"""What needs a fresh process: start-up, and the highest memory of a call."""

import concurrent.futures
import multiprocessing
import pathlib
import statistics
import tempfile
import time


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
    before = start_peak()
    outputs = call(images)
    peak = status("VmHWM") - before
    size = sum(o.shape.num_elements() * o.dtype.size for o in tf.nest.flatten(outputs))
    seconds = []
    for _ in range(rounds):
        outputs = None  # as a caller who has used them
        start = time.perf_counter()
        outputs = call(images)
        seconds.append(time.perf_counter() - start)
    del outputs
    return peak, size, statistics.median(seconds)


def start_peak():
    """Makes the highest resident memory so far the present one, and returns it. Linux only."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def status(key):
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {key}: memory can be measured on Linux only.")


def measure_pair(folders, megapixels, tiled):
    """A picture through a pair in a fresh process: what memory rose by at its highest, seconds.

    The picture and its reconstruction, uint8, are part of it.
    """
    import numpy as np

    import unpooling
    from unpooling import tiling

    encoder, decoder = (unpooling.load(folder) for folder in folders)
    decoder(encoder.compact(np.zeros((1, 32, 32, 3), np.float32)))
    before = start_peak()
    side = round((megapixels * 1e6) ** 0.5 / 2) * 2
    row = np.random.default_rng(0).integers(0, 256, (1, 1, side, 3), np.uint8)
    picture = np.repeat(row, side, axis=1)
    start = time.perf_counter()
    if tiled:
        tiling.reconstruct(encoder, decoder, picture, out=np.empty_like(picture))
    else:
        decoded = decoder(encoder.compact(picture.astype(np.float32)))
        np.clip(np.round(decoded), 0, 255).astype(np.uint8)
    return status("VmHWM") - before, time.perf_counter() - start
