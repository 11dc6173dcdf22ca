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
        for name, value in (logs or {}).items():
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
      writes: whether this process writes it.
    """

    def __init__(self, path: str, writes: bool = True):
        super().__init__()
        self._path = path
        self._writes = writes

    def finished_epochs(self) -> int:
        """Returns how many epochs the backup has behind it, 0 if there is none."""
        if not os.path.exists(self._path):
            return 0
        with np.load(self._path) as arrays:
            return int(arrays["epochs"])

    def restore(self, model: keras.Model) -> None:
        """Gives a model and its optimizer what the backup holds, if there is one."""
        if os.path.exists(self._path):
            with np.load(self._path) as arrays:
                for number, variable in enumerate(_variables(model)):
                    variable.assign(arrays[f"arr_{number}"])

    def on_epoch_end(self, epoch, logs=None):
        if not self._writes:
            return
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
        path = os.path.join(self._directory, f"epoch-{epoch + 1:03d}.png")
        Image.fromarray(pixels).save(f"{path}.partial", format="png")
        os.replace(f"{path}.partial", path)


def _variables(model):
    return [*model.variables, *model.optimizer.variables]
