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
        names = ("decoder.h5", "history.csv", "tensorboard", "samples", "backup.npz", "run.json")
        paths = [os.path.join(self.directory, name) for name in names]
        (self.decoder, self.history, self.tensorboard, self.samples, self.backup, self._state) = (
            paths
        )
        self._made = paths[1:]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and keeps other processes out of it meanwhile, on shared disks too.

        Raises:
          UserError: if it cannot be made, or another process trains there.
        """
        try:
            os.makedirs(self.directory, exist_ok=True)
            # NFS locks files that are open for writing, and no folders.
            lock = open(os.path.join(self.directory, ".lock"), "a")  # noqa: SIM115
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
            yield

    def check(self, overwrite: bool) -> None:
        """Raises UserError if there is a finished run and `overwrite` is not set."""
        found = [path for path in (self.decoder, *self._made) if os.path.exists(path)]
        if found and not overwrite and (self._read() or {"finished": True})["finished"]:
            raise UserError(
                f"{self.directory} already holds {os.path.basename(found[0])}: pass --overwrite to "
                "replace it, or choose another --output_dir."
            )

    def begin(self, settings: Mapping[str, object], overwrite: bool) -> None:
        """Notes the settings of a run that begins, or leaves all as it is for one that is resumed.

        What an earlier run left is removed, all but its decoder.h5.

        Args:
          settings: everything on which the result depends, as JSON has it.
          overwrite: whether a finished run, or one with other settings, may be replaced.

        Raises:
          UserError: if there is one of these and `overwrite` is not set.
        """
        self.check(overwrite)
        state = self._read()
        if state is not None and not state["finished"]:
            other = _difference(state["settings"], settings)
            if not other:
                return
            if not overwrite:
                raise UserError(
                    f"{self.directory} holds an interrupted run of another kind ({other}): pass "
                    "the same to resume it, --overwrite to begin anew, or choose another "
                    "--output_dir."
                )
        for path in self._made:  # run.json last.
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.exists(path):
                os.remove(path)
        self._write({"settings": dict(settings), "finished": False})

    def is_finished(self) -> bool:
        """Returns whether there is a decoder.h5 that no other run is about to replace."""
        return os.path.exists(self.decoder) and (self._read() or {"finished": True})["finished"]

    def end(self) -> None:
        """Notes that the run is finished; there is nothing to resume any more."""
        self._write({**self._read(), "finished": True})
        os.remove(self.backup)

    def note(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Writes a row of history.csv, for an epoch counted from 0; drops those that follow it."""
        lines = [",".join(["epoch", *sorted(metrics)])]
        if os.path.exists(self.history):
            with open(self.history, encoding="utf-8") as file:
                lines = file.read().splitlines()[: 1 + epoch]
        row = ",".join(map(str, [epoch, *(float(metrics[name]) for name in sorted(metrics))]))
        _replace(self.history, "\n".join([*lines, row]) + "\n")

    def metrics(self) -> list[dict[str, float]]:
        """Returns the rows of history.csv, without the numbers of the epochs; none without it."""
        if not os.path.exists(self.history):
            return []
        with open(self.history, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [{name: float(row[name]) for name in row if name != "epoch"} for row in rows]

    def _read(self):
        """What run.json holds; None if there is none that can be read."""
        try:
            with open(self._state, encoding="utf-8") as file:
                return {"settings": {}, "finished": False, **json.load(file)}
        except (FileNotFoundError, ValueError):
            return None

    def _write(self, state):
        _replace(self._state, json.dumps(state, indent=2) + "\n")


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
