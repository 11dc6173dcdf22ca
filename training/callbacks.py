"""What happens after each epoch, beside what Keras' own callbacks do."""

import os
import re
import shutil

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

__all__ = ["Backup", "Curves", "RequireFinite", "Samples", "finished_epochs"]

_EPOCH = re.compile(r"epoch-(\d+)", re.ASCII)


class RequireFinite(keras.callbacks.Callback):
    """Ends the training with ValueError when a metric is not finite, before it is kept."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Raises ValueError if one of `logs` is not finite."""
        for name, value in (logs or {}).items():
            if not np.isfinite(value):
                raise ValueError(
                    f"{name} is {value} after epoch {epoch + 1}: begin with a lower "
                    "--learning_rate, and with --overwrite."
                )


class Backup(keras.callbacks.Callback):
    """Keras' BackupAndRestore, with each backup complete or not there.

    BackupAndRestore writes weights and number of the epoch one after the other, over the last
    ones. Here it writes into a folder beside them, which is then renamed to `epoch-NNNN`.

    Args:
      directory: where the backups are.
      writes: whether this process keeps backups, or only restores them.
    """

    def __init__(self, directory: str, writes: bool = True):
        super().__init__()
        self._directory = directory
        self._writes = writes

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Restores the last backup, if there is one, and has `fit` begin after its epoch."""
        epochs = finished_epochs(self._directory)
        if epochs:
            keras_backup = self._keras_backup(_name(epochs))
            keras_backup.on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keeps a backup of model and optimizer, and removes the one before."""
        if not self._writes:
            return
        shutil.rmtree(os.path.join(self._directory, "partial"), ignore_errors=True)
        partial = os.path.join(self._directory, "partial")
        try:
            self._keras_backup("partial").on_epoch_end(epoch, logs)
        except RuntimeError as error:  # HDF5's, on a full disk.
            raise OSError(f"the backup of epoch {epoch + 1} cannot be written: {error}") from error
        for name in os.listdir(partial):
            with open(os.path.join(partial, name), "rb") as file:
                os.fsync(file.fileno())
        os.rename(partial, os.path.join(self._directory, _name(epoch + 1)))
        shutil.rmtree(os.path.join(self._directory, _name(epoch)), ignore_errors=True)

    def _keras_backup(self, name):
        directory = os.path.join(self._directory, name)
        backup = keras.callbacks.BackupAndRestore(directory, delete_checkpoint=False)
        backup.set_model(self.model)
        return backup


def finished_epochs(directory: str) -> int:
    """Returns how many epochs the last backup in a folder of `Backup` has behind it."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return max((int(m[1]) for name in names if (m := _EPOCH.fullmatch(name))), default=0)


class Curves(keras.callbacks.Callback):
    """Writes each epoch's metrics for TensorBoard, as Keras' callback of that name does.

    That one needs the package tensorboard, which TensorFlow no longer brings along; the format of
    its files TensorFlow knows by itself.

    Args:
      directory: where the folders `train` and `validation` are made.
    """

    def __init__(self, directory: str):
        super().__init__()
        self._directory = directory
        self._writers = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds a point to each curve: `epoch_loss` and so on, and `epoch_learning_rate`."""
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        for name, value in {**(logs or {}), "learning_rate": rate}.items():
            run = "validation" if name.startswith("val_") else "train"
            tag = f"epoch_{name.removeprefix('val_')}"
            summary = tf.compat.v1.Summary()
            summary.value.add(tag=tag, simple_value=value)
            with self._writer(run).as_default():
                tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, run):
        if run not in self._writers:
            path = os.path.join(self._directory, run)
            self._writers[run] = tf.summary.create_file_writer(path)
        return self._writers[run]


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

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Draws; an existing drawing is replaced in one step."""
        rows = [np.concatenate(batch, axis=1) for batch in (self._images, self.model(self._images))]
        pixels = np.clip(np.round(np.concatenate(rows)), 0, 255).astype(np.uint8)
        os.makedirs(self._directory, exist_ok=True)
        path = os.path.join(self._directory, f"epoch-{epoch + 1:03d}.png")
        Image.fromarray(pixels).save(f"{path}.partial", format="png")
        os.replace(f"{path}.partial", path)


def _name(epochs):
    return f"epoch-{epochs:04d}"
