"""Checkpoints: atomic and verified; the newest k whole ones are kept.

A checkpoint is one safetensors file (https://github.com/huggingface/safetensors: a JSON header,
then raw little-endian tensors; nothing in it can be executed). Its metadata hold the format's
version, the step and the run that it belongs to. They also hold the SHA-256 of all this and of the
tensors, since safetensors itself would load a flipped bit silently. The same state gives the same
bytes; the file holds no time, name or path.

Two things can be wrong. A checkpoint that is damaged, or not a file, is skipped, reported, and
never deleted. A whole checkpoint that belongs elsewhere is an error: going on with another one in
its place would hide a mistake.
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
    """The content of a checkpoint: tensors on the CPU, and `feed`, the feed's state or None."""

    step: int
    tensors: dict[str, Tensor]
    feed: dict[str, Any] | None


class DamagedError(CheckpointError):
    """What lies under a checkpoint's name is damaged, or not a checkpoint."""


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

    `owner`: the run. `feed`: the state of a feed that is not only a function of the step, in a form
    for JSON. The caller must be the directory's only writer. Damaged checkpoints there do not count
    and are not removed. If one of them has this step's name, it is moved aside.
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

    `newest`: one that is known to be whole; it stays. Damaged ones do not count and are not
    removed. One that cannot be removed now stays until the next time.
    """
    whole = [path for path in reversed(paths(directory)) if path == newest or _is_whole(path)]
    with contextlib.suppress(OSError):
        for old in whole[keep:]:
            if old != newest:
                old.unlink()


def load(path: Path, owner: Callable[[], Owner] | None = None) -> Checkpoint:
    """Return what a checkpoint holds; `owner` gives the run that it must belong to.

    `owner` is called after reading, since a training stores its settings before it saves
    checkpoints with them.

    Raises DamagedError if the checkpoint is damaged or not a file. Raises CheckpointError if it is
    whole, but belongs to another run, has another step than its name says, or has a newer format.
    Raises FileNotFoundError if it is gone, which happens to a reader that is slower than the
    training it follows.
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
    """Return the newest whole checkpoint, with its path; None if there is no checkpoint at all.

    `owner`: see `load`. `emit` hears what is skipped, and why. Raises DamagedError if there are
    checkpoints, but none is whole, and CheckpointError as `load` does.
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
    """Return the paths of all checkpoints in `directory`, oldest first, including damaged ones."""
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
    """Values that change with the content of a file; `modified`: in nanoseconds since 1970."""

    inode: int
    modified: int
    size: int


def version_of(path: Path) -> Version | None:
    """Return the version of the file at a path; None if there is nothing."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return Version(status.st_ino, status.st_mtime_ns, status.st_size)


def versions(directory: Path) -> dict[Path, Version | None]:
    """Return the versions of all checkpoints in `directory`, including damaged ones."""
    return {path: version_of(path) for path in paths(directory)}


# What damaged bytes, and what is no file, make readers raise.
_UNREADABLE = (
    *(safetensors.SafetensorError, OSError, RecursionError, OverflowError),
    *(AttributeError, LookupError, TypeError, ValueError),
)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a checkpoint says about itself, and its tensors, unverified.

    The file is opened only once, so nothing can change while it is read. Its size is compared with
    the header before anything large is read.
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
    """Tell whether a file of a certain version was whole; each version is read only once."""
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
    """Return the SHA-256 of what a checkpoint says about itself, and of its tensors."""
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
