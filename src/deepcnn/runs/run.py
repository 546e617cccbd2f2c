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

When a run is replaced, its config.json is first renamed to `.config.json.replaced`. If a kill
interrupts the deletion, this name says that the directory was a run and is none any more.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from deepcnn import atomic, config
from deepcnn.config import Config
from deepcnn.errors import DeepcnnError, RunError, storing
from deepcnn.shown import quoted, shown

CONFIG, INPUTS, ENVIRONMENT, JOB = "config.json", "inputs.json", "environment.json", "job.json"
CALIBRATION = "calibration.json"
LOCK = "lock"
REPLACED = f".{CONFIG}.replaced"
_OF_A_START = {LOCK, ENVIRONMENT, INPUTS, JOB, REPLACED}  # what there is before it is a run
_HALF_DELETED = (
    "the run that was here was being replaced when its replacement was killed. Start that again, "
    "with --overwrite, or choose another --run-dir."
)
FORMAT = 2  # of the files of JSON; those of the first one say nothing of it
LARGEST = 1 << 25  # bytes of such a file
_LOCK_SECONDS = 2.0  # longer than another process takes to see whether a lock is free


class Run:
    """A run's directory: its paths and what they store."""

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
        """The directory of the checkpoint with the best score, if it is kept."""
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

        `path` None: a new name below `runs/`. A directory that holds anything is an error, with two
        exceptions: the remains of a start that was killed, and, with `overwrite`, a run that nobody
        is training. Their content is deleted.
        """
        run = cls(_new_directory(Path("runs"), preset) if path is None else path)
        if run.path.exists() and not run.path.is_dir():
            raise RunError(f"{run.path}: expected a directory for the run, found a file")
        if any("\ud800" <= sign <= "\udfff" for sign in str(run.path)):
            raise RunError(
                f"{shown(run.path)}: expected a name in UTF-8, which checkpoints need, found other "
                "bytes. Choose another --run-dir."
            )
        with storing(run.path):
            atomic.make_directory(run.path)
        if not (run.path / LOCK).exists():  # else whoever holds it may be changing all of this
            run._check_free(overwrite)  # before a lock is made in a directory of somebody else
        with run.lock():
            run._check_free(overwrite)  # again: another process may have begun a run meanwhile
            with storing(run.path):
                with contextlib.suppress(PermissionError):  # also where a killed start had made it
                    atomic.flush_directory(run.path.parent)
                run._clear()
            yield run

    def _clear(self) -> None:
        """Delete all but the lock; if a kill or a power cut stops this, the next start goes on."""
        config, replaced = self.path / CONFIG, self.path / REPLACED
        if config.exists():
            config.replace(replaced)
        atomic.flush_directory(self.path)  # before the first deletion; it has the lock's name too
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name not in (LOCK, REPLACED):
                entry.unlink()
        if replaced.exists():
            atomic.flush_directory(self.path)  # after the last one
            replaced.unlink()  # on the disk before the new run's config.json: `write` flushes, too

    def _check_free(self, overwrite: bool) -> None:
        """Raise RunError unless a new run may take this directory."""
        if self._is_unfinished() or (overwrite and self._was_replaced()):
            return
        if self._was_replaced():
            raise RunError(f"{self.path}: {_HALF_DELETED}")
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
                f"{quoted(str(self.path))}, replace it by --overwrite, or choose another "
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

        `command`: the configuration that it was told to train. A run with another configuration
        belongs to another command, whose job had the same name.
        """
        candidates = sorted(Path("runs").glob("*")) if path is None else [path]
        for candidate in candidates if job is not None else []:
            run = cls(candidate)
            with contextlib.suppress(RunError):
                found = run.read(JOB)
                same = found.get("command", command) == json.loads(json.dumps(command))
                if found.get("job") == job and same and (run.path / CONFIG).is_file():
                    return run
        return None

    def _is_unfinished(self) -> bool:
        """Tell whether this is empty, or holds the remains of a start that was killed."""
        names = {entry.name for entry in self.path.iterdir()}
        known = {CONFIG, *_OF_A_START}
        rest = {
            name for name in names if not any(atomic.is_unfinished(name, each) for each in known)
        }
        return not names or (LOCK in names and rest <= _OF_A_START)

    def _was_replaced(self) -> bool:
        """Tell whether this is a run that `begin` was deleting when it was killed."""
        if (self.path / CONFIG).exists() or not (self.path / REPLACED).is_file():
            return False
        try:
            config.from_dict(self.read(REPLACED))
        except DeepcnnError:
            return False
        return True

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open an existing run."""
        if cls(path)._was_replaced():
            raise RunError(f"{path}: {_HALF_DELETED}")
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
        """Lock the run as its only trainer; raise RunError while another process has the lock."""
        lock = self._locked(_LOCK_SECONDS)
        if lock is None:
            raise RunError(f"{self.path}: another process is training this run")
        try:
            yield
        finally:
            lock.release()

    def in_training(self) -> bool:
        """Tell whether a living process trains this run: it holds the lock, which ends with it."""
        lock = self._locked(0)
        if lock is None:
            return True
        lock.release()
        return False

    def _locked(self, seconds: float) -> FileLock | None:
        """Return the held lock; None if another process holds it; raise RunError if it is no file.

        A link is not followed, since what it points to may belong to somebody else.
        """
        path = self.path / LOCK
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(path.lstat().st_mode):
                raise RunError(
                    f"{path}: expected a plain file, which only says who trains; found a folder, a "
                    "link or a device. Remove it."
                )
        lock = FileLock(path, timeout=seconds)
        try:
            lock.acquire()
        except Timeout:
            return None
        except OSError as error:
            raise RunError(
                f"{path}: cannot be locked ({error.strerror or error}), as the process that trains "
                "a run must; nothing was changed"
            ) from error
        return lock

    def identity(self) -> str:
        """Return what tells this run, with its settings, from any other one in the same place."""
        digest = hashlib.sha256()
        for name in (CONFIG, INPUTS):
            with contextlib.suppress(OSError):  # whoever reads it says so
                digest.update((self.path / name).read_bytes())
        return digest.hexdigest()

    def check_identity(self, identity: str) -> None:
        """Raise RunError if the run does not have this `identity`; call it with the lock held."""
        if self.identity() != identity:
            raise RunError(
                f"{self.path}: another process replaced this run, or went on with it, after this "
                "one had read its settings; nothing was changed. Try again."
            )

    def write(self, name: str, values: dict[str, Any]) -> None:
        """Store `values` as JSON under `name`, atomically, with the digest of all of it."""
        with storing(self.path / name):
            atomic.write(self.path / name, _sealed(values))

    def read(self, name: str) -> dict[str, Any]:
        """Return what `write` stored under `name`.

        Raises RunError if it is missing, damaged, changed by hand or of a newer format. Files of
        older versions have no digest, and are taken as they are.
        """
        path = self.path / name
        try:
            with atomic.reading(path) as file:
                content = file.read(LARGEST + 1)
            if len(content) > LARGEST:
                raise ValueError(f"expected at most {LARGEST:,} bytes, found more")
            values = json.loads(content.decode())
        except FileNotFoundError as error:
            raise RunError(
                f"{path}: expected a file, found none. The run is not whole, or another process is "
                "replacing it just now; then try again."
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{path}: cannot be read ({error})") from error
        if not isinstance(values, dict):
            raise RunError(f"{path}: expected a JSON object")
        if _SEAL.isdisjoint(values):
            return values
        found = values.get("format")
        values = {key: value for key, value in values.items() if key not in _SEAL}
        if type(found) is int and found > FORMAT:
            raise RunError(
                f"{path}: format: expected {FORMAT} or less, found {found}. A newer deepcnn wrote "
                "this run; use that one."
            )
        if content != _sealed(values):
            raise RunError(
                f"{path}: damaged, or changed by hand: its content does not match its own SHA-256. "
                "Bring it back as it was. If the change is meant, remove the entries format and "
                "sha256 from it: then it is taken as it is."
            )
        return values

    def config(self) -> Config:
        """Return the run's configuration."""
        try:
            return config.from_dict(self.read(CONFIG))
        except RunError:
            raise
        except (DeepcnnError, RecursionError) as error:
            raise RunError(f"{self.path / CONFIG}: {error}") from error


_SEAL = frozenset(["format", "sha256"])


def _sealed(values: dict[str, Any]) -> bytes:
    """Return the bytes of a JSON file that holds its format and its own SHA-256.

    The digest is of the same file without the digest.
    """

    def text(entries: dict[str, Any]) -> bytes:
        return (json.dumps(entries, indent=2) + "\n").encode()

    said = {"format": FORMAT, **values}
    return text({**said, "sha256": hashlib.sha256(text(said)).hexdigest()})


def _new_directory(parent: Path, preset: str) -> Path:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    with storing(parent):
        atomic.make_directory(parent)
    for attempt in range(1000):
        path = parent / (f"{now}-{preset}" + (f"-{attempt}" if attempt else ""))
        with storing(path):
            try:
                path.mkdir()
            except FileExistsError:
                if path.is_dir():
                    continue
                raise
        return path
    raise RunError(f"{parent}: found no free name for a new run")
