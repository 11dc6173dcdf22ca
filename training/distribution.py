"""On which devices a model is trained, by TensorFlow's strategies."""

import contextlib
import json
import os
from collections.abc import Iterator

import tensorflow as tf

from training import config

__all__ = ["check_batch_size", "is_chief", "make_strategy", "pooling_engine", "same", "together"]


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Returns the strategy of a name; to be called before anything else of TensorFlow.

    Args:
      name: one of `config.STRATEGIES`; "multi_worker" reads the environment variable TF_CONFIG.

    Raises:
      ValueError: if the name is another, or TF_CONFIG does not name this worker.
    """
    if name == "one":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    if name == "multi_worker":
        _check_workers(os.environ.get("TF_CONFIG", ""))
        return tf.distribute.MultiWorkerMirroredStrategy()
    raise ValueError(
        f"`strategy` must be one of {', '.join(config.STRATEGIES)}. Received: {name!r}."
    )


def pooling_engine() -> str:
    """Returns what finds the maxima on this machine, one of `export.options.ENGINES`.

    Both find the same; the default has no kernel for GPUs.
    """
    return "xla" if tf.config.list_physical_devices("GPU") else "argmax"


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the one that writes: the only one, or worker 0."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.task_id


def check_batch_size(strategy: tf.distribute.Strategy, batch_size: int) -> None:
    """Raises ValueError if a batch cannot be shared out evenly among all devices."""
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(
            f"--batch_size must be a multiple of {replicas}, the devices that share a batch. "
            f"Received: {batch_size}."
        )


@contextlib.contextmanager
def together(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Lets no worker go on after the body before all have come through it.

    Raises:
      ValueError: in the other workers, if the body raised in one of them.
    """
    try:
        yield
    except Exception:
        _sum_over_workers(strategy, 1)
        raise
    if _sum_over_workers(strategy, 0):
        raise ValueError("another worker failed; see what it says.")


def same(strategy: tf.distribute.Strategy, what: str, value: int) -> int:
    """Returns `value`, once all workers have come here with the same.

    Args:
      strategy: that of `make_strategy`.
      what: what it is, for the message.
      value: a whole number.

    Raises:
      ValueError: if another worker has another value.
    """
    total = _sum_over_workers(strategy, value)
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        workers = _sum_over_workers(strategy, 1)
        if total != workers * value:
            raise ValueError(
                f"the workers do not agree on {what}; here it is {value}. All must see the same "
                "--output_dir, on a disk that they share, and the same photographs."
            )
    return value


def _sum_over_workers(strategy, value):
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return value

    @tf.function
    def add_up():
        return strategy.reduce("SUM", strategy.run(lambda: tf.constant(value)), axis=None)

    return int(add_up())


def _check_workers(config):
    try:
        parsed = json.loads(config)
        workers, task = parsed["cluster"]["worker"], parsed["task"]
        right = task["type"] == "worker" and workers[task["index"]]
    except (ValueError, TypeError, LookupError):
        right = False
    if not right:
        raise ValueError(
            "--strategy=multi_worker needs the environment variable TF_CONFIG, such as "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
            '"task": {"type": "worker", "index": 0}}. '
            f"Received: {config or 'nothing'}."
        )
