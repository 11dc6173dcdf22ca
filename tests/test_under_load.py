"""Under load: many threads at once, and many calls on end."""

import concurrent.futures
import gc
import json
import pathlib
import statistics
import threading

import numpy as np
import pytest
import tensorflow as tf

from tests import descriptors
from unpooling.options import ENGINES

LAYER = "block2_conv2"
THREADS = 8
STATUS = pathlib.Path("/proc/self/status")


def entries(loaded):
    """Every way to call a loaded encoder, by name."""
    calls = {"call": loaded, "compact": loaded.compact, "features": loaded.features}
    return calls | {f"signature {name}": call for name, call in loaded.signatures.items()}


def answers(loaded, pictures, first=0):
    """What each entry returns for each picture, called in turn, beginning with entry `first`."""
    names = sorted(entries(loaded))
    found = {}
    for number, images in enumerate(pictures):
        for name in names[first % len(names) :] + names[: first % len(names)]:
            outputs = tf.nest.flatten(entries(loaded)[name](images=tf.constant(images)))
            found[number, name] = [output.numpy() for output in outputs]
    return found


def refusals(loaded, thread):
    """The messages with which each entry refuses pictures that no other thread has."""
    wrong = tf.zeros((thread + 1, 1, 20 + thread, 3))
    for call in list(entries(loaded).values()) * 4:
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            call(images=wrong)
        assert f"[{thread + 1} 1 {20 + thread} 3]" in str(error.value)
        assert "H and W at least 2" in str(error.value)


def run_threads(directory):
    """Raises if threads disturb each other. To be run in a process of its own."""
    loaded = tf.saved_model.load(directory)
    # Each thread has pictures that no other has.
    shapes = np.random.default_rng(2).integers((1, 16, 16), (4, 81, 81), (THREADS, 3, 3))
    pictures = [[descriptors.images((*shape, 3)) for shape in row] for row in shapes]
    alone = [answers(loaded, row) for row in pictures]
    barrier = threading.Barrier(THREADS)

    def work(thread):
        barrier.wait(timeout=60)
        if thread % 2:
            refusals(loaded, thread)
        return answers(loaded, pictures[thread], first=thread)

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(work, range(THREADS)))  # Raises what a thread has raised.
    # To the bit: no sum is taken in another order because other threads are at work.
    for found, expected in zip(together, alone, strict=True):
        assert found.keys() == expected.keys()
        for key, outputs in found.items():
            for array, wanted in zip(outputs, expected[key], strict=True):
                np.testing.assert_array_equal(array, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_threads_get_what_each_gets_alone_also_beside_wrong_pictures(
    engine, saved_model, run_command
):
    result = run_command(
        "-c",
        "import sys; from tests import test_under_load as t; t.run_threads(sys.argv[1])",
        saved_model(LAYER, engine=engine),
        # With as many as a small machine has cores, TensorFlow hardly does two calls at once.
        TF_NUM_INTEROP_THREADS=str(THREADS),
        TF_NUM_INTRAOP_THREADS=str(THREADS),
    )
    assert result.returncode == 0, result.stderr


# Many calls on end. If a single map of each call were kept, four windows would add 140 MB. What was
# measured is 5 MB.
WINDOWS, CALLS = 8, 18
LIMIT = 50  # MB, over four windows


def measure(directory):
    """Calls a module many times and prints what has grown. To be run in a process of its own."""
    loaded = tf.saved_model.load(directory)
    calls = list(entries(loaded).values())
    sizes = np.random.default_rng(3).integers(64, 113, (CALLS, 2))

    def window():
        return [
            calls[number % len(calls)](images=tf.ones((1, *size, 3)))
            for number, size in enumerate(sizes)
        ]

    def level():
        gc.collect()
        tensors = sum(type(each).__name__ == "EagerTensor" for each in gc.get_objects())
        (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS:")]
        return {"memory": int(line.split()[1]) / 1024, "tensors": tensors}

    levels = []
    for _ in range(WINDOWS):
        window()
        levels.append(level())
    kept = [window() for _ in range(4)]
    leaking = level()
    assert len(kept) == 4
    traces = loaded.__call__.experimental_get_tracing_count()
    print(json.dumps({"levels": levels, "leaking": leaking, "traces": traces}))


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="the memory of a process is read from /proc")
def test_nothing_grows_over_many_calls_of_many_sizes(saved_model, run_command):
    result = run_command(
        "-c",
        "import sys; from tests import test_under_load as t; t.measure(sys.argv[1])",
        saved_model(LAYER),
        # What oneDNN prepares for each size, and heaps for each thread, come at any time.
        TF_ENABLE_ONEDNN_OPTS="0",
        MALLOC_ARENA_MAX="1",
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    print(found)
    assert found["traces"] == 1  # for all sizes
    assert len({level["tensors"] for level in found["levels"]}) == 1
    memory = [level["memory"] for level in found["levels"]]
    assert statistics.median(memory[-3:]) - statistics.median(memory[1:4]) < LIMIT
    # Such a measurement would show a leak.
    assert found["leaking"]["tensors"] > found["levels"][-1]["tensors"]
    assert found["leaking"]["memory"] - memory[-1] > LIMIT
