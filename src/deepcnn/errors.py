"""Errors that the user can do something about; the command line prints them without a traceback.

A message says what happened, where, what was expected and found, and what to do next.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DeepcnnError(Exception):
    """Base of every error that deepcnn raises on purpose.

    `told`: another process of the same training tells the user.
    """

    told = False


class ConfigError(DeepcnnError):
    """A setting that does not exist, or whose value cannot be used."""


class DataError(DeepcnnError):
    """A data set that is missing, incomplete, damaged or not of the stated format."""


class RunError(DeepcnnError):
    """A run directory that is missing, in use, or not what the command needs."""


class CheckpointError(DeepcnnError):
    """A checkpoint that is missing, damaged, or does not fit the run."""


class TrainingError(DeepcnnError):
    """Training that cannot go on: the loss is no longer finite."""


class ExportError(DeepcnnError):
    """A network that cannot be exported, or whose export gives other answers."""


class StorageError(DeepcnnError):
    """A file or folder that cannot be written: a full disk, a quota, a limit, no permission."""


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn errors of the system, while `path` is made or written, into a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{refused(path, error)} {advice(error)}") from error


def refused(path: Path, error: OSError) -> str:
    """Return the error that a file cannot be written, and why."""
    return f"{path}: cannot be written ({error.strerror or error})."


def advice(error: OSError) -> str:
    """Return advice for the case that a file cannot be written."""
    name = errno.errorcode.get(error.errno or 0, "")  # not every system has each of them
    return _ADVICE.get(name, "Choose another place.")


_ADVICE = {
    "ENOSPC": "Free some space on that disk, or choose another place.",
    "EDQUOT": "Your quota there is used up: remove other files, or choose another place.",
    "EFBIG": "Files may not be so large there: raise the limit (ulimit -f), or choose another "
    "place.",
    "EROFS": "That file system is read-only: make it writable, or choose another place.",
    "EACCES": "You may not write there: change the permissions, or choose another place.",
    "EPERM": "You may not write there: change the permissions, or choose another place.",
    "EIO": "The disk, or the way to it, fails: see the system's log (dmesg), or choose "
    "another place.",
    "ENOTDIR": "A part of that path is a file: choose another place.",
    "EEXIST": "A part of that path is a file: choose another place.",
    "EMFILE": "Too many files are open: raise the limit (ulimit -n).",
}
