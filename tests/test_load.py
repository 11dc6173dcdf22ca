"""Under load: many threads at once, and many calls on end."""

import concurrent.futures
import ctypes
import gc
import itertools
import json
import os
import threading
import traceback

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub

LAYER = "block2_conv2"
METHODS = ("__call__", "compact", "features")
SIGNATURES = ("serving_default", "compact", "features")

# Many threads on one module.

THREADS = 8
ENGINES = ("argmax", "xla")


def make_pictures():
    """For each thread pictures that no other has: small, of several sizes and batches."""
    random = np.random.default_rng(2)
    shapes = [
        [(int(random.integers(1, 4)), *map(int, random.integers(16, 81, 2)), 3) for _ in range(3)]
        for _ in range(THREADS)
    ]
    assert len({shape for row in shapes for shape in row}) == 3 * THREADS
    return [[random.uniform(0, 255, s).astype(np.float32) for s in row] for row in shapes]


def entries(loaded):
    """Every way to call a loaded module: takes a picture, returns NumPy arrays by name."""

    def of_method(name):
        def call(images):
            outputs = getattr(loaded, name)(tf.constant(images))
            outputs = outputs if isinstance(outputs, list) else [outputs]
            return {str(number): output.numpy() for number, output in enumerate(outputs)}

        return call

    def of_signature(name):
        def call(images):
            outputs = loaded.signatures[name](images=tf.constant(images))
            return {key: output.numpy() for key, output in outputs.items()}

        return call

    return [*map(of_method, METHODS), *map(of_signature, SIGNATURES)]


def answers(loaded, pictures, first=0):
    """For each picture what each entry returns, called in turn, beginning with entry `first`."""
    calls = entries(loaded)
    order = [(first + number) % len(calls) for number in range(len(calls))]
    results = []
    for images in pictures:
        outputs = {entry: calls[entry](images) for entry in order}
        results.append([outputs[entry] for entry in range(len(calls))])
    return results


def assert_equal(found, expected):
    """To the bit: no sum is taken in another order because other threads are at work."""
    for row, expected_row in zip(found, expected, strict=True):
        for outputs, expected_outputs in zip(row, expected_row, strict=True):
            assert list(outputs) == list(expected_outputs)
            for name, array in outputs.items():
                assert array.dtype == expected_outputs[name].dtype
                np.testing.assert_array_equal(array, expected_outputs[name])


def at_once(function):
    """Calls function(0), function(1), ... in threads that start together; returns the results."""
    barrier = threading.Barrier(THREADS)

    def run(number):
        barrier.wait(timeout=60)
        return function(number)

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))  # Raises what a thread has raised.


def all_right(loaded, pictures, one_by_one):
    results = at_once(lambda thread: answers(loaded, pictures[thread], first=thread))
    for found, expected in zip(results, one_by_one, strict=True):
        assert_equal(found, expected)


def some_wrong(loaded, pictures, one_by_one):
    rounds = 4

    def work(thread):
        errors = []
        if thread % 2 == 1:
            # Too small by a different shape in each thread, so that errors cannot be mixed up.
            wrong = np.zeros((thread, 1, 20 + thread, 3), np.float32)
            for call in entries(loaded) * rounds:
                with pytest.raises(tf.errors.InvalidArgumentError) as error:
                    call(wrong)
                errors.append(str(error.value))
        return errors, answers(loaded, pictures[thread], first=thread)

    for thread, (errors, found) in enumerate(at_once(work)):
        assert len(errors) == thread % 2 * rounds * len(entries(loaded))
        for error in errors:
            assert f"[{thread} 1 {20 + thread} 3]" in error
            assert "H and W at least 2" in error
        assert_equal(found, one_by_one[thread])


def run_threads(*directories):
    """Prints for each module and each of the two functions above what went wrong, if anything.

    To be run in a process of its own.
    """
    pictures = make_pictures()
    outcomes = []
    for directory in directories:
        loaded = hub.load(directory)
        one_by_one = [answers(loaded, row) for row in pictures]
        for function in (all_right, some_wrong):
            try:
                function(loaded, pictures, one_by_one)
                outcomes.append("")
            except Exception:
                outcomes.append(traceback.format_exc())
    print(json.dumps(outcomes))


@pytest.fixture(scope="module")
def outcomes(saved_model, run_command):
    """{(engine, whether some pictures are wrong): what went wrong}"""
    result = run_command(
        "-c",
        "import sys; from tests import test_load as t; t.run_threads(*sys.argv[1:])",
        *(saved_model(LAYER, pooling=engine) for engine in ENGINES),
        # With as many as a small machine has cores, TensorFlow hardly does two calls at once.
        TF_NUM_INTEROP_THREADS=str(THREADS),
        TF_NUM_INTRAOP_THREADS=str(THREADS),
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    return dict(zip(itertools.product(ENGINES, (False, True)), found, strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_eight_threads_get_what_each_gets_alone(outcomes, engine):
    assert outcomes[engine, False] == ""


@pytest.mark.parametrize("engine", ENGINES)
def test_wrong_pictures_in_some_threads_do_not_disturb_the_others(outcomes, engine):
    assert outcomes[engine, True] == ""


# Many calls on end.

WARM_UP, CALLS, LEAKING_CALLS = 50, 200, 25

# Of the resident memory, in MB. Measured on two cores, over a dozen runs each: at most 7 for sizes
# that came before, at most 23 for new ones, as the heap gets holes; 200 calls that each keep their
# picture alone come to 50, that keep a trace to 560, 25 that keep their outputs to 150.
LIMITS = {"known": 24, "new": 48}


def resident():
    """The resident memory of this process in MB, without what has been freed."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    with open("/proc/self/status") as file:
        (line,) = [line for line in file if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024


def measure(directory, sizes):
    """Calls a module many times and prints the levels; to be run in a process of its own."""
    loaded = hub.load(directory)
    calls = [loaded.__call__, *(loaded.signatures[name] for name in SIGNATURES)]
    random = np.random.default_rng(3)
    # The largest picture first, for each entry, so that the heap need not grow for it later.
    known = [(256, 256)] * len(calls)
    known += [tuple(random.integers(16, 257, 2)) for _ in range(WARM_UP - len(calls))]

    def call(number, size):
        images = tf.constant(random.uniform(0, 255, (1, *size, 3)), tf.float32)
        return calls[number % len(calls)](images=images)

    for number, size in enumerate(known):
        call(number, size)
    levels = [resident()]
    for number in range(CALLS):
        is_known = sizes == "known"
        call(
            number, known[random.integers(len(known))] if is_known else random.integers(16, 257, 2)
        )
        if number % 50 == 49:
            levels.append(resident())
    kept = [call(number, known[number]) for number in range(LEAKING_CALLS)]
    leaking = resident()
    assert len(kept) == LEAKING_CALLS
    traces = loaded.__call__.experimental_get_tracing_count()
    print(json.dumps({"levels": levels, "leaking": leaking, "traces": traces}))


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="it is read from there")
@pytest.mark.parametrize("sizes", LIMITS)
def test_memory_stays_flat_over_200_calls_on_random_sizes(saved_model, run_command, sizes):
    # By default TensorFlow keeps what oneDNN prepares for each convolution and each new size, up
    # to 1024 of them in each of its threads. That is not the module's memory to give back.
    oneDNN = {"TF_ENABLE_ONEDNN_OPTS": "0"} if sizes == "new" else {}
    result = run_command(
        "-c",
        "import sys; from tests import test_load as t; t.measure(*sys.argv[1:])",
        saved_model(LAYER),
        sizes,
        TF_NUM_INTRAOP_THREADS="2",
        TF_NUM_INTEROP_THREADS="2",
        **oneDNN,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    print(sizes, found)
    assert len(found["levels"]) == 1 + CALLS // 50
    assert max(found["levels"]) - found["levels"][0] < LIMITS[sizes]
    # One for all sizes.
    assert found["traces"] == 1
    # Such a measurement would show a leak.
    assert found["leaking"] - found["levels"][-1] > 2 * LIMITS[sizes]
