"""The folder of a training run: what it was asked for, how far it came, what belongs to it."""

import contextlib
import csv
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping

from unpooling import vgg19

__all__ = ["Run"]

_STATE = "run.json"
_MADE = ("history.csv", "tensorboard", "backup", "samples", _STATE)


class Run:
    """A folder that holds, once the run has ended,

        decoder.h5      the weights, and how they were trained
        history.csv     losses and metrics of each epoch
        tensorboard/    the same as curves
        samples/        pictures held out from training, above their reconstructions
        run.json        what the run was asked for, and whether it has ended

    and until then also backup/, from which it goes on if it is interrupted.

    Attributes:
      directory, decoder, history, tensorboard, backup, samples: their paths.
    """

    def __init__(self, output_dir: str, layer: str):
        """Names the folder; nothing is made yet.

        Args:
          output_dir: the folder of all runs.
          layer: one of `vgg19.LAYERS`.
        """
        directory = os.path.join(output_dir, vgg19.artifact_name(layer, "decoder"))
        self.directory = directory
        self.decoder = os.path.join(directory, "decoder.h5")
        self.history = os.path.join(directory, "history.csv")
        self.tensorboard = os.path.join(directory, "tensorboard")
        self.backup = os.path.join(directory, "backup")
        self.samples = os.path.join(directory, "samples")

    def check(self, settings: Mapping[str, object], overwrite: bool) -> bool:
        """Returns whether an interrupted run with the same settings is to be gone on with.

        Args:
          settings: everything on which the result depends: values that JSON has.
          overwrite: whether a finished run, or one with other settings, may be replaced.

        Raises:
          FileExistsError: if there is one of these and `overwrite` is not set.
        """
        state = self._state()
        found = [name for name in ("decoder.h5", *_MADE) if os.path.exists(self._path(name))]
        if state is not None and not state.get("finished"):
            other = _difference(state.get("settings", {}), settings)
            if not other:
                return True
            if not overwrite:
                raise FileExistsError(
                    f"{self.directory} holds an interrupted run of another kind ({other}): pass "
                    "the same to go on with it, --overwrite to begin anew, or choose another "
                    "--output_dir."
                )
        elif found and not overwrite:
            raise FileExistsError(
                f"{self.directory} already holds {found[0]}: pass --overwrite to replace it, or "
                "choose another --output_dir."
            )
        return False

    def is_finished(self) -> bool:
        """Returns whether there is a decoder.h5 that no other run is about to replace."""
        state = self._state()
        return os.path.exists(self.decoder) and (state is None or bool(state.get("finished")))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and keeps other processes from working in it meanwhile.

        Raises:
          OSError: if it cannot be made, or another process is at work there.
        """
        os.makedirs(self.directory, exist_ok=True)
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OSError(
                    f"another process is training in {self.directory}: wait for it, or choose "
                    "another --output_dir."
                ) from None
            yield
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.rmdir(self.directory)  # If nothing came of it.

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
        """Notes that the run has ended; there is nothing to go on with any more."""
        self._write({**self._state(), "finished": True})
        shutil.rmtree(self.backup, ignore_errors=True)

    def trim_history(self, epochs: int) -> None:
        """Drops from history.csv what came after the last epoch that can be gone on from."""
        if os.path.exists(self.history):
            with open(self.history, encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file))
            kept = rows[: 1 + epochs] if epochs else []
            with open(f"{self.history}.partial", "w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(kept)
            os.replace(f"{self.history}.partial", self.history)

    def last_metrics(self) -> dict[str, float]:
        """Returns the last row of history.csv, without the number of the epoch."""
        with open(self.history, encoding="utf-8", newline="") as file:
            row = list(csv.DictReader(file))[-1]
        return {name: float(value) for name, value in row.items() if name != "epoch"}

    def _path(self, name):
        return os.path.join(self.directory, name)

    def _state(self):
        try:
            with open(self._path(_STATE), encoding="utf-8") as file:
                return json.load(file)
        except (FileNotFoundError, ValueError):
            return None

    def _write(self, state):
        partial = self._path(f"{_STATE}.partial")
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(state, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._path(_STATE))


def _difference(before, now):
    """The settings that differ, as text for a message."""
    names = [name for name in now if before.get(name) != now[name]]
    return ", ".join(
        f"other {name.removesuffix('_sha256').replace('_', ' ')}"
        if name.endswith("_sha256")
        else f"--{name}={before.get(name)}, now {now[name]}"
        for name in names
    )
