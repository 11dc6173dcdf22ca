"""What happens after each epoch, beside what Keras' own callbacks do."""

import os

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from unpooling.errors import UserError

__all__ = ["Backup", "RequireFinite", "Samples"]


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
        """Gives a model and its optimizer what the file holds, if there is one."""
        if self._kept:
            for number, variable in enumerate(_variables(model)):
                variable.assign(self._kept.pop(f"arr_{number}"))

    def on_epoch_end(self, epoch, logs=None):
        arrays = [np.asarray(variable) for variable in _variables(self.model)]
        with open(f"{self._path}.partial", "wb") as file:
            np.savez(file, *arrays, epochs=epoch + 1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{self._path}.partial", self._path)


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


def _variables(model):
    return [*model.variables, *model.optimizer.variables]
