"""A run: a directory with everything that belongs to one training.

config.json       the whole configuration
inputs.json       how images become input, with the statistics of the data; the classes
calibration.json  a temperature, and when an answer is unsure, of the last checkpoint
environment.json  versions, machine, device, threads
job.json          which job of several processes began it, and with which configuration, so that a
                  restart of that job finds it
log.jsonl         every event, a line each
checkpoints/      step-….safetensors
summaries/        TensorBoard: train/, test/ …
lock              locked by the process that trains, as long as it lives
"""

from __future__ import annotations

import contextlib
import datetime
import json
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from deepcnn import atomic, config
from deepcnn.config import Config
from deepcnn.errors import DeepcnnError, RunError

CONFIG, INPUTS, ENVIRONMENT, JOB = "config.json", "inputs.json", "environment.json", "job.json"
CALIBRATION = "calibration.json"
LOCK = "lock"
_LOCK_SECONDS = 2.0  # longer than another process takes to see whether a lock is free


class Run:
    """A run's directory: paths, and what is stored in them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"<Run {self.path}>"

    @property
    def checkpoints(self) -> Path:
        """The directory of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The directory of the checkpoint with the best score, where that is kept."""
        return self.checkpoints / "best"

    @property
    def summaries(self) -> Path:
        """The directory that TensorBoard is pointed at."""
        return self.path / "summaries"

    @property
    def log(self) -> Path:
        """The log, a JSON object in each line."""
        return self.path / "log.jsonl"

    @classmethod
    @contextmanager
    def begin(cls, path: Path | None, preset: str, *, overwrite: bool = False) -> Iterator[Run]:
        """Make a new run's directory, empty and locked as long as the context lasts.

        `path` None: a new name below `runs/`. A directory that holds anything is an error, unless
        it is what remains of a start that was killed, or it is a run that nobody is training and
        `overwrite` is set: then its content is deleted.
        """
        run = cls(_new_directory(Path("runs"), preset) if path is None else path)
        if run.path.exists() and not run.path.is_dir():
            raise RunError(f"{run.path}: expected a directory for the run, found a file")
        run.path.mkdir(parents=True, exist_ok=True)
        run._check_free(overwrite)
        with run.lock():
            run._check_free(overwrite)  # again: another process may have begun a run meanwhile
            for entry in run.path.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry.name != LOCK:
                    entry.unlink()
            yield run

    def _check_free(self, overwrite: bool) -> None:
        """Raise RunError unless a new run may take this directory."""
        if self._is_unfinished():
            return
        if not (self.path / CONFIG).is_file():
            raise RunError(
                f"{self.path}: is neither empty nor a run; choose another directory with --run-dir"
            )
        if (problem := self._problem()) is not None:
            raise RunError(
                f"{self.path}: holds a {CONFIG}, but is no run of deepcnn ({problem}), so nothing "
                "in it is deleted; choose another directory with --run-dir"
            )
        if not overwrite:
            raise RunError(
                f"{self.path}: holds a run already. Go on with it by --resume "
                f"{shlex.quote(str(self.path))}, replace it by --overwrite, or choose another "
                "--run-dir."
            )

    def _problem(self) -> str | None:
        """Return why this directory is not one that a training made, or None."""
        try:
            about = self.read(INPUTS)
            if not isinstance(about.get("inputs"), dict) or not about.get("classes"):
                return f"{INPUTS} has no inputs or no classes"
            self.config()
        except RunError as error:
            return str(error)
        return None

    @classmethod
    def of_job(cls, job: str | None, path: Path | None, command: dict[str, Any]) -> Run | None:
        """Return the run that a job began, at `path` or, with None, anywhere below `runs/`.

        `command`: the configuration that it was told to train. A run that was begun with another
        one is another command's, whose job had the same name.
        """
        candidates = sorted(Path("runs").glob("*")) if path is None else [path]
        for candidate in candidates if job is not None else []:
            run = cls(candidate)
            with contextlib.suppress(RunError):
                found = run.read(JOB)
                same = found.get("command", command) == json.loads(json.dumps(command))
                if found.get("job") == job and same and not run._is_unfinished():
                    return run
        return None

    def _is_unfinished(self) -> bool:
        """Tell whether this is empty, or what remains of a start that was killed."""
        names = {entry.name for entry in self.path.iterdir()}
        ours = {LOCK, ENVIRONMENT, INPUTS, JOB}
        killed = all(n in ours or n.endswith(atomic.TEMPORARY) for n in names) and LOCK in names
        return killed or not names

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open an existing run."""
        if not (path / CONFIG).is_file():
            raise RunError(
                f"{path}: expected the directory of a run, with a config.json; found none"
            )
        return cls(path)

    def is_finished(self) -> bool:
        """Tell whether the run has a checkpoint of its last step."""
        return (self.checkpoints / f"step-{self.config().steps:09d}.safetensors").exists()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run as its only trainer; raise RunError while another process does."""
        try:
            with FileLock(self.path / LOCK, timeout=_LOCK_SECONDS):
                yield
        except Timeout as error:
            raise RunError(f"{self.path}: another process is training this run") from error

    def in_training(self) -> bool:
        """Tell whether a living process trains this run: it holds the lock, which dies with it."""
        try:
            with FileLock(self.path / LOCK, timeout=0):
                return False
        except Timeout:
            return True

    def write(self, name: str, values: dict[str, Any]) -> None:
        """Store `values` as JSON under `name`, atomically."""
        atomic.write(self.path / name, (json.dumps(values, indent=2) + "\n").encode())

    def read(self, name: str) -> dict[str, Any]:
        """Return what `write` stored under `name`."""
        try:
            values = json.loads((self.path / name).read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{self.path / name}: cannot be read ({error})") from error
        if not isinstance(values, dict):
            raise RunError(f"{self.path / name}: expected a JSON object")
        return values

    def config(self) -> Config:
        """Return the run's configuration."""
        try:
            return config.from_dict(self.read(CONFIG))
        except DeepcnnError as error:
            raise RunError(f"{self.path / CONFIG}: {error}") from error


def _new_directory(parent: Path, preset: str) -> Path:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    for attempt in range(1000):
        path = parent / (f"{now}-{preset}" + (f"-{attempt}" if attempt else ""))
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise RunError(f"{parent}: found no free name for a new run")
