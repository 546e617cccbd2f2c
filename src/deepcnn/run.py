"""A run: a directory with everything that belongs to one training.

config.json       the whole configuration
inputs.json       how images become input, with the statistics of the data; the classes
environment.json  versions, machine, device, threads
job.json          which job of several processes began it, so that a restart of that job finds it
log.jsonl         every event, a line each
checkpoints/      step-….safetensors
summaries/        TensorBoard: train/, test/ …
lock              locked by the process that trains, as long as it lives
"""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from deepcnn import atomic, config
from deepcnn.config import Config
from deepcnn.errors import DeepcnnError, RunError

_LOCK_SECONDS = 2.0  # longer than another process takes to see whether a lock is free


class Run:
    """A run's directory: paths, and what is stored in them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoints(self) -> Path:
        """The directory of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def summaries(self) -> Path:
        """The directory that TensorBoard is pointed at."""
        return self.path / "summaries"

    @property
    def log(self) -> Path:
        """The log, a JSON object in each line."""
        return self.path / "log.jsonl"

    @classmethod
    def create(cls, path: Path | None, preset: str, *, overwrite: bool = False) -> Run:
        """Make an empty directory for a new run; `path` None: a new name below `runs/`.

        A directory that holds anything is an error, unless it is what remains of a start that was
        killed, or it is a run that nobody is training and `overwrite` is set: then its content is
        deleted.
        """
        if path is None:
            return cls(_new_directory(Path("runs"), preset))
        run = cls(path)
        if path.exists() and not path.is_dir():
            raise RunError(f"{path}: expected a directory for the run, found a file")
        if not path.exists() or not any(path.iterdir()):
            path.mkdir(parents=True, exist_ok=True)
            return run
        if not (path / "config.json").is_file() and not run._is_unfinished():
            raise RunError(
                f"{path}: is neither empty nor a run; choose another directory with --run-dir"
            )
        if not overwrite and not run._is_unfinished():
            raise RunError(
                f"{path}: holds a run already. Go on with it by --resume {path}, replace it by "
                "--overwrite, or choose another --run-dir."
            )
        with run.lock():
            for entry in path.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry.name != "lock":
                    entry.unlink()
        return run

    @classmethod
    def of_job(cls, job: str | None, path: Path | None) -> Run | None:
        """Return the run that a job began, at `path` or, with None, anywhere below `runs/`."""
        candidates = sorted(Path("runs").glob("*")) if path is None else [path]
        for candidate in candidates if job is not None else []:
            run = cls(candidate)
            with contextlib.suppress(RunError):
                if run.read("job.json").get("job") == job and not run._is_unfinished():
                    return run
        return None

    def _is_unfinished(self) -> bool:
        """Tell whether this is what remains of a start that was killed, and nothing else."""
        names = {entry.name for entry in self.path.iterdir()}
        ours = {"lock", "environment.json", "inputs.json", "job.json"}
        return all(n in ours or n.endswith(atomic.TEMPORARY) for n in names) and "lock" in names

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open an existing run."""
        if not (path / "config.json").is_file():
            raise RunError(
                f"{path}: expected the directory of a run, with a config.json; found none"
            )
        return cls(path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run as its only trainer; raise RunError while another process does."""
        try:
            with FileLock(self.path / "lock", timeout=_LOCK_SECONDS):
                yield
        except Timeout as error:
            raise RunError(f"{self.path}: another process is training this run") from error

    def in_training(self) -> bool:
        """Tell whether a living process trains this run: it holds the lock, which dies with it."""
        try:
            with FileLock(self.path / "lock", timeout=0):
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
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / name}: cannot be read ({error})") from error
        if not isinstance(values, dict):
            raise RunError(f"{self.path / name}: expected a JSON object")
        return values

    def config(self) -> Config:
        """Return the run's configuration."""
        try:
            return config.from_dict(self.read("config.json"))
        except DeepcnnError as error:
            raise RunError(f"{self.path / 'config.json'}: {error}") from error


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
