"""Checkpoints: atomic, verified, the newest k whole ones kept.

A checkpoint is one safetensors file (https://github.com/huggingface/safetensors: a JSON header,
then raw little-endian tensors; nothing in it can execute). Its metadata hold the format's version,
the step, the run that it belongs to, and the SHA-256 of all of that and of the tensors, since
safetensors itself would load a flipped bit silently. The same state gives the same bytes: no time,
name or path is in them.

Two things can be wrong. What is damaged, or no file at all, is passed over, told, and never
deleted. What is whole but belongs elsewhere is an error: to go on with another one in its place
would hide a mistake.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from deepcnn import atomic
from deepcnn.errors import CheckpointError
from deepcnn.events import Listener, Noted, ignore
from deepcnn.learning.finite import not_finite
from deepcnn.runs.owner import Owner
from deepcnn.shown import shown

FORMAT = 2  # 1, which does not say so, had no run; the rule of the sum is the same from 2 on
LARGEST_HEADER = 1 << 23  # bytes: JSON takes twenty times as much in memory
_NAME = re.compile(r"step-(\d{9,})\.safetensors")
_ASIDE = ".damaged"  # how the name of a damaged one ends whose place is needed


class Checkpoint(NamedTuple):
    """What a checkpoint holds: the tensors are on the CPU; `feed`: the feed's state, or None."""

    step: int
    tensors: dict[str, Tensor]
    feed: dict[str, Any] | None


class DamagedError(CheckpointError):
    """What lies under a checkpoint's name is damaged, or none."""


def save(
    directory: Path,
    step: int,
    tensors: dict[str, Tensor],
    *,
    keep: int,
    owner: Owner | None = None,
    feed: dict[str, Any] | None = None,
) -> Path:
    """Write a checkpoint into `directory`, then remove all but the newest `keep`; return its path.

    `owner`: the run; `feed`: the state of a feed that is more than a function of the step, fit for
    JSON. The caller must be the directory's only writer. What is damaged there neither counts nor
    is removed; where it has this step's name, it is moved aside.
    """
    atomic.make_directory(directory)
    atomic.remove_unfinished(directory)
    on_host = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    said: dict[str, Any] = {"format": FORMAT, "step": step}
    said |= {} if owner is None else {"run": owner.to_dict()}
    said |= {} if feed is None else {"feed": feed}
    if found := not_finite(on_host):
        raise CheckpointError(
            f"{directory}: no checkpoint of step {step}: {found[0]} holds a NaN or an infinity"
        )
    # One entry, since the order of several would change from file to file.
    metadata = {"deepcnn": json.dumps({**said, "sha256": digest(said, on_host)})}
    content = safetensors.torch.save(on_host, metadata)
    path = path_of(directory, step)
    if int.from_bytes(content[:8], "little") > LARGEST_HEADER:
        raise CheckpointError(
            f"{path}: expected a state of the feed and names of tensors below {LARGEST_HEADER:,} "
            "bytes as JSON, found more. Give the feed a smaller state_dict."
        )
    if os.path.lexists(path) and not _is_whole(path):
        _move_aside(path)
    atomic.write(path, content)
    prune(directory, keep, newest=path)
    return path


def prune(directory: Path, keep: int, newest: Path | None = None) -> None:
    """Remove all whole checkpoints but the newest `keep`; the caller must be the only writer.

    `newest`: one that is known to be whole, and stays. What is damaged neither counts nor is
    removed; what cannot be removed stays until the next time.
    """
    whole = [path for path in reversed(paths(directory)) if path == newest or _is_whole(path)]
    with contextlib.suppress(OSError):
        for old in whole[keep:]:
            if old != newest:
                old.unlink()


def load(path: Path, owner: Callable[[], Owner] | None = None) -> Checkpoint:
    """Return what a checkpoint holds; `owner` gives the run that it must be of.

    It is asked after reading, since a training stores its settings before it saves by them.

    Raises DamagedError where it is damaged or no file, CheckpointError where it is whole, but of
    another run, another step than its name says or a newer format, and FileNotFoundError where it
    is gone, as happens to a reader that is slower than the training it follows.
    """
    try:
        said, tensors = _read(path)
        sha256, step, feed = said.pop("sha256"), said["step"], said.get("feed")
        whole = sha256 == digest(said, tensors) and type(step) is int
        known = said.get("format", 1)
    except _UNREADABLE as error:
        if isinstance(error, FileNotFoundError) and not os.path.lexists(path):
            raise
        raise DamagedError(
            f"{path}: not a checkpoint of deepcnn, or damaged ({_why(error)})"
        ) from error
    if not whole:
        raise DamagedError(f"{path}: damaged: its content does not match its own SHA-256")
    if known not in (1, FORMAT):
        raise CheckpointError(
            f"{path}: format: expected {FORMAT} or less, found {known}. A newer deepcnn wrote this "
            "checkpoint; use that one."
        )
    if _NAME.fullmatch(path.name) and step != step_of(path):  # a copy may have any name
        raise CheckpointError(
            f"{path}: step: expected {step_of(path)}, as its name says, found {step}. Give it back "
            "its own name."
        )
    if owner is not None:
        owner().check(path, step, said.get("run"))
    if found := not_finite(tensors):
        raise CheckpointError(
            f"{path}: {found[0]}: expected finite numbers, found a NaN or an infinity. Delete this "
            "checkpoint to go on from the one before."
        )
    return Checkpoint(step, tensors, feed)


def newest_whole(
    directory: Path, owner: Callable[[], Owner], emit: Listener = ignore
) -> tuple[Path, Checkpoint] | None:
    """Return the newest checkpoint that is whole, with its path; None where there is none at all.

    `owner`: see `load`; `emit` is told what is passed over, and why. Raises DamagedError where none
    of those that are there is whole, and CheckpointError as `load` does.
    """
    told: set[str] = set()
    while True:
        for path in reversed(paths(directory)):
            try:
                return path, load(path, owner)
            except FileNotFoundError:  # a training has removed it meanwhile; there is a newer one
                break
            except DamagedError as error:
                if (text := str(error)) not in told:
                    told.add(text)
                    emit(Noted(f"Passed over: {text}"))
        else:
            break
    if not told:
        return None
    raise DamagedError(
        f"{directory}: expected a whole checkpoint, found only damaged ones: "
        f"{'; '.join(sorted(told))}. Bring one back from a copy, or start a new run."
    )


def paths(directory: Path) -> list[Path]:
    """Return the paths of all checkpoints in `directory`, oldest first, damaged ones too."""
    found = [path for path in directory.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of)


def path_of(directory: Path, step: int) -> Path:
    """Return the path of a checkpoint of a step."""
    return directory / f"step-{step:09d}.safetensors"


def step_of(path: Path) -> int:
    """Return the step that a checkpoint's name states."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise CheckpointError(f"{path}: expected a name such as step-000001000.safetensors")
    return int(match.group(1))


class Version(NamedTuple):
    """What changes with the content under a name; `modified`: in nanoseconds since 1970."""

    inode: int
    modified: int
    size: int


def version_of(path: Path) -> Version | None:
    """Return the version of what lies at a path; None where there is nothing."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return Version(status.st_ino, status.st_mtime_ns, status.st_size)


def versions(directory: Path) -> dict[Path, Version | None]:
    """Return the versions of all checkpoints in `directory`, damaged ones too."""
    return {path: version_of(path) for path in paths(directory)}


# What damaged bytes, and what is no file, make readers raise.
_UNREADABLE = (
    *(safetensors.SafetensorError, OSError, RecursionError, OverflowError),
    *(AttributeError, LookupError, TypeError, ValueError),
)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a checkpoint says of itself, and its tensors, unverified.

    It is opened once, so that nothing changes under the reader's hands. Its size is compared with
    what the header tells before anything large is read.
    """
    with atomic.reading(path) as file:
        size, start = os.fstat(file.fileno()).st_size, file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, LARGEST_HEADER):
            raise ValueError(f"it has {size} bytes, and no header")
        header = json.loads(file.read(length))
        stops = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
        expected = 8 + length + max(stops, default=0)
        if size != expected:
            raise ValueError(f"expected {expected} bytes, found {size}")
        file.seek(0)
        content = file.read()
    said = json.loads(header["__metadata__"]["deepcnn"])
    return dict(said), safetensors.torch.load(content)


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "a link to nothing"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "nested too deeply" if isinstance(error, RecursionError) else shown(error)


def _is_whole(path: Path) -> bool:
    version = version_of(path)
    return version is not None and _was_whole(path, version)


# All that a run keeps: each saving asks about them all in turn, and where one were forgotten for
# the next, each saving would read them all.
@functools.lru_cache(maxsize=1 << 10)
def _was_whole(path: Path, version: Version) -> bool:  # noqa: ARG001
    """Tell whether a file was whole when it was of a version, read only once."""
    try:
        load(path)
    except (CheckpointError, FileNotFoundError):
        return False
    return True


def _move_aside(path: Path) -> None:
    number = 0
    while os.path.lexists(aside := path.with_name(f"{path.name}{_ASIDE}{number or ''}")):
        number += 1
    path.rename(aside)


def digest(said: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of what a checkpoint says of itself, and of its tensors."""
    if "format" not in said:  # as it was in the first format
        found = hashlib.sha256(str(said["step"]).encode())
        if said.get("feed") is not None:
            found.update(json.dumps(said["feed"], sort_keys=True).encode())
    else:
        found = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    add_tensors(found, tensors)
    return found.hexdigest()


def add_tensors(digest: hashlib._Hash, tensors: dict[str, Tensor]) -> None:
    """Update a digest with tensors on the CPU, contiguous: names, types, shapes and values."""
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
