"""What happens after each epoch, beside what Keras' own callbacks do."""

import os
import time

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from training.console import say
from unpooling.errors import UserError

__all__ = ["Backup", "Progress", "RequireFinite", "Samples"]


class RequireFinite(keras.callbacks.Callback):
    """Raises UserError when a metric is not finite."""

    def on_epoch_end(self, epoch, logs=None):
        for name, value in logs.items():
            if not np.isfinite(value):
                raise UserError(
                    f"{name} is {value} after epoch {epoch + 1}: start with a lower "
                    "--learning_rate, and with --overwrite."
                )


class Backup(keras.callbacks.Callback):
    """Keeps the decoder, the optimizer and the number of finished epochs in one file.

    Keras' BackupAndRestore writes two, one after the other, over the last ones.

    Args:
      path: the .npz file; it is replaced in one step.

    Attributes:
      finished_epochs: how many epochs the file has behind it, 0 if there is none.
    """

    def __init__(self, path: str):
        super().__init__()
        self._path = path
        self._kept = {}
        if os.path.exists(path):
            with np.load(path) as arrays:
                self._kept = dict(arrays)
        self.finished_epochs = int(self._kept.get("epochs", 0))

    def restore(self, model: keras.Model) -> None:
        """Gives a model and its optimizer what the file holds, if there is one.

        Raises:
          UserError: if these have other variables, as in an earlier version of this program.
        """
        if not self._kept:
            return
        variables = _variables(model)
        kept = [self._kept[f"arr_{number}"] for number in range(len(self._kept) - 1)]
        if [array.shape for array in kept] != [tuple(variable.shape) for variable in variables]:
            raise UserError(
                f"{self._path} is of an interrupted run of an earlier version: delete it to begin "
                "anew, or choose another --output_dir."
            )
        for variable, array in zip(variables, kept, strict=True):
            variable.assign(array)
        self._kept = {}

    def on_epoch_end(self, epoch, logs=None):
        arrays = [np.asarray(variable) for variable in _variables(self.model)]
        with open(f"{self._path}.partial", "wb") as file:
            np.savez(file, *arrays, epochs=epoch + 1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{self._path}.partial", self._path)


class Progress(keras.callbacks.Callback):
    """Says after each epoch how far the run has come and how long it will still take.

    For example: "epoch 3 of 24: l1 3.007, validation 3.349; 21 s an epoch, 7 min left". It expects
    the steps to come to take as long as those of the last epoch.

    Args:
      every: the seconds after which a line also comes within an epoch; None for no such lines.
    """

    def __init__(self, every: float | None = None):
        super().__init__()
        self._every = every

    def on_train_begin(self, logs=None):
        self._began = self._said = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        now, done = time.monotonic(), batch + 1
        if self._every is None or now - self._said < self._every or done == self.params["steps"]:
            return
        self._said = now
        _, left = self._expected(now, done)
        place = f"{self._place()}, step {done} of {self.params['steps']}"
        say(f"{place}: {_figures(logs)}; {_duration(left)} left")

    def on_epoch_end(self, epoch, logs=None):
        now = time.monotonic()
        an_epoch, left = self._expected(now, self.params["steps"])
        more = f", {_duration(left)} left" if epoch + 1 < self.params["epochs"] else ""
        say(f"{self._place()}: {_figures(logs)}; {_duration(an_epoch)} an epoch{more}")
        self._began = self._said = now

    def _place(self):
        return f"epoch {self._epoch + 1} of {self.params['epochs']}"

    def _expected(self, now, done):
        """Seconds of an epoch and of what is left, after so many steps of this one."""
        a_step, steps = (now - self._began) / done, self.params["steps"]
        return a_step * steps, a_step * ((self.params["epochs"] - self._epoch) * steps - done)


class Samples(keras.callbacks.Callback):
    """Draws pictures above their reconstructions after each epoch: `epoch-NNN.png`.

    Args:
      directory: where the drawings go.
      images: (B, H, W, 3), float32, RGB, values in [0, 255].
    """

    def __init__(self, directory: str, images: tf.Tensor):
        super().__init__()
        self._directory = directory
        self._images = images

    def on_epoch_end(self, epoch, logs=None):
        rows = [np.concatenate(batch, axis=1) for batch in (self._images, self.model(self._images))]
        pixels = np.clip(np.round(np.concatenate(rows)), 0, 255).astype(np.uint8)
        os.makedirs(self._directory, exist_ok=True)
        Image.fromarray(pixels).save(os.path.join(self._directory, f"epoch-{epoch + 1:03d}.png"))


def _figures(logs):
    """The mean absolute error, or the loss where that is no term of it."""
    name = "l1" if "l1" in logs else "loss"
    validation = f", validation {logs[f'val_{name}']:.3f}" if f"val_{name}" in logs else ""
    return f"{name} {logs[name]:.3f}{validation}"


def _duration(seconds):
    for unit, size in (("s", 1), ("min", 60)):
        if seconds < 120 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"


def _variables(model):
    return [*model.variables, *model.optimizer.variables]
