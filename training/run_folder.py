"""The folder of a training run: what was asked for, how far it came, what belongs to it."""

import contextlib
import csv
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping

from export.spec import Spec
from unpooling.errors import UserError

__all__ = ["RunFolder"]

_STATE, _LOCK = "run.json", ".lock"
_MADE = ("history.csv", "tensorboard", "backup.npz", "samples", _STATE)


class RunFolder:
    """The folder of a run, in the folder of all runs; nothing is made yet.

    Attributes:
      directory: its path.
      decoder: the path of decoder.h5: the weights, and how they were trained.
      history: of history.csv: losses and metrics of each epoch.
      tensorboard: of a folder with the same as curves, if the package tensorboard is installed.
      samples: of a folder with held-out pictures above their reconstructions.
      backup: of the file from which an interrupted run is resumed.
    """

    def __init__(self, output_dir: str, layer: str):
        self.directory = os.path.join(output_dir, Spec("decoder", layer).folder_name)
        self.decoder = self._path("decoder.h5")
        self.history = self._path("history.csv")
        self.tensorboard = self._path("tensorboard")
        self.backup = self._path("backup.npz")
        self.samples = self._path("samples")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and keeps other processes out of it meanwhile, on shared disks too.

        Raises:
          UserError: if it cannot be made, or another process trains there.
        """
        try:
            os.makedirs(self.directory, exist_ok=True)
            # NFS locks files that are open for writing, and no folders.
            lock = open(self._path(_LOCK), "a")  # noqa: SIM115
        except OSError as error:
            raise UserError(f"--output_dir: the run's folder cannot be made ({error}).") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"another process is training in {self.directory}: wait for it, or choose "
                    "another --output_dir."
                ) from None
            try:
                yield
            finally:
                if os.listdir(self.directory) == [_LOCK]:  # Nothing came of the run.
                    shutil.rmtree(self.directory)

    def check(self, settings: Mapping[str, object], overwrite: bool) -> bool:
        """Returns whether an interrupted run with the same settings is to be resumed.

        Args:
          settings: everything on which the result depends, as JSON has it.
          overwrite: whether a finished run, or one with other settings, may be replaced.

        Raises:
          UserError: if there is one of these and `overwrite` is not set.
        """
        state = self._state()
        found = [name for name in ("decoder.h5", *_MADE) if os.path.exists(self._path(name))]
        if state is not None and not state.get("finished"):
            other = _difference(state.get("settings", {}), settings)
            if not other:
                return True
            if not overwrite:
                raise UserError(
                    f"{self.directory} holds an interrupted run of another kind ({other}): pass "
                    "the same to resume it, --overwrite to begin anew, or choose another "
                    "--output_dir."
                )
        elif found and not overwrite:
            raise UserError(
                f"{self.directory} already holds {found[0]}: pass --overwrite to replace it, or "
                "choose another --output_dir."
            )
        return False

    def is_finished(self) -> bool:
        """Returns whether there is a decoder.h5 that no other run is about to replace."""
        state = self._state()
        return os.path.exists(self.decoder) and (state is None or bool(state.get("finished")))

    def begin(self, settings: Mapping[str, object]) -> None:
        """Removes what an earlier run left, all but its decoder.h5, and notes the settings."""
        for name in reversed(_MADE):
            path = self._path(name)
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.exists(path):
                os.remove(path)
        self._write({"settings": dict(settings), "finished": False})

    def end(self) -> None:
        """Notes that the run is finished; there is nothing to resume any more."""
        self._write({**self._state(), "finished": True})
        os.remove(self.backup)

    def note(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Writes a row of history.csv, for an epoch counted from 0; drops those that follow it."""
        names = sorted(metrics)
        lines = [",".join(["epoch", *names])]
        if os.path.exists(self.history):
            with open(self.history, encoding="utf-8") as file:
                lines = file.read().splitlines()[: 1 + epoch]
        row = ",".join(map(str, [epoch, *(float(metrics[name]) for name in names)]))
        _replace(self.history, "\n".join([*lines, row]) + "\n")

    def metrics(self) -> list[dict[str, float]]:
        """Returns the rows of history.csv, without the numbers of the epochs."""
        with open(self.history, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [{name: float(row[name]) for name in row if name != "epoch"} for row in rows]

    def _path(self, name):
        return os.path.join(self.directory, name)

    def _state(self):
        try:
            with open(self._path(_STATE), encoding="utf-8") as file:
                return json.load(file)
        except (FileNotFoundError, ValueError):
            return None

    def _write(self, state):
        _replace(self._path(_STATE), json.dumps(state, indent=2) + "\n")


def _replace(path, text):
    """Writes a file in one step, so that it is never seen half-written."""
    with open(f"{path}.partial", "w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.partial", path)


def _difference(before, now):
    """The settings that differ, as text for a message."""
    return ", ".join(
        f"other {name.removesuffix('_sha256').replace('_', ' ')}"
        if name.endswith("_sha256")
        else f"--{name}={before.get(name)}, now {value}"
        for name, value in now.items()
        if before.get(name) != value
    )
