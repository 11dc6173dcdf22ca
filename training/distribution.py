"""On which devices a model is trained, by TensorFlow's strategies."""

import contextlib
import json
import os
from collections.abc import Iterator

import tensorflow as tf

from unpooling.errors import UserError

__all__ = ["check_same", "has_several_workers", "is_chief", "make_strategy", "together"]


_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)


def make_strategy(name: str, batch_size: int) -> tf.distribute.Strategy:
    """Returns the strategy of a name; call it before anything else of TensorFlow.

    Args:
      name: "one" for one device, "mirrored" for all of this machine, "multi_worker" for the
        workers that the environment variable TF_CONFIG names.
      batch_size: the number of photographs that the devices share in a step.

    Raises:
      UserError: if TF_CONFIG does not name several workers and which of them this one is, or the
        devices cannot share a batch evenly.
    """
    if name == "one":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    else:
        _check_workers(os.environ.get("TF_CONFIG", "nothing"))
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    if batch_size % strategy.num_replicas_in_sync:
        raise UserError(
            f"--batch_size must be a multiple of {strategy.num_replicas_in_sync}, the number of "
            f"devices that share a batch. Received: {batch_size}."
        )
    return strategy


def has_several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether other processes train the same model."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the one that writes: the only one, or worker 0."""
    return not (has_several_workers(strategy) and strategy.cluster_resolver.task_id)


@contextlib.contextmanager
def together(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Lets no worker go on after the body before all have come through it.

    Raises:
      UserError: in the other workers, if the body raised in one of them.
    """
    try:
        yield
    except Exception:
        _sum_over_workers(strategy, 1)
        raise
    if _sum_over_workers(strategy, 0):
        raise UserError("another worker failed; see its message.")


def check_same(strategy: tf.distribute.Strategy, what: str, value: int) -> None:
    """Raises UserError unless all workers have come here with the same whole number below 2^24."""
    if _sum_over_workers(strategy, value) != _sum_over_workers(strategy, 1) * value:
        raise UserError(
            f"the workers do not agree on {what}. All must see the same --output_dir, on a disk "
            "that they share, and the same photographs."
        )


def _sum_over_workers(strategy, value):
    if not has_several_workers(strategy):
        return value

    @tf.function
    def add_up():
        return strategy.reduce("SUM", strategy.run(lambda: tf.constant(value)), axis=None)

    return int(add_up())


def _check_workers(configuration):
    try:
        workers, task = (json.loads(configuration)[name] for name in ("cluster", "task"))
        right = len(workers["worker"]) > 1 and workers[task["type"]][task["index"]]
    except (ValueError, TypeError, LookupError):
        right = False
    if not right:
        raise UserError(
            "--strategy=multi_worker needs the environment variable TF_CONFIG, such as "
            f"{_EXAMPLE}. Received: {configuration}."
        )
