"""Checkpoints: atomic, verified, the newest k kept.

A checkpoint is one safetensors file (https://github.com/huggingface/safetensors: a JSON header,
then raw little-endian tensors; nothing in it can execute). Its metadata hold the step and the
SHA-256 of everything else, since the format itself would load a flipped bit silently. The same
state gives the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from deepcnn import atomic
from deepcnn.errors import CheckpointError

_NAME = re.compile(r"step-(\d{9,})\.safetensors")


def save(
    directory: Path,
    step: int,
    tensors: dict[str, Tensor],
    *,
    keep: int,
    feed: dict[str, Any] | None = None,
) -> Path:
    """Write a checkpoint into `directory`, then remove all but the newest `keep`; return its path.

    `feed`: the state of a feed that is more than a function of the step, fit for JSON. The caller
    must be the directory's only writer.
    """
    atomic.make_directory(directory)
    atomic.remove_unfinished(directory)
    on_host = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    # One entry, since the order of several would change from file to file.
    content = {"step": step, "sha256": _digest(step, on_host, feed)}
    metadata = {"deepcnn": json.dumps(content if feed is None else {**content, "feed": feed})}
    path = path_of(directory, step)
    atomic.write(path, safetensors.torch.save(on_host, metadata))
    prune(directory, keep)
    return path


def prune(directory: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints; the caller must be the only writer.

    What cannot be removed stays until the next time.
    """
    with contextlib.suppress(OSError):
        for old in paths(directory)[:-keep]:
            old.unlink()


def load(path: Path) -> tuple[int, dict[str, Tensor], dict[str, Any] | None]:
    """Return the step, the tensors (on the CPU) and the feed's state of a checkpoint.

    Raises CheckpointError where it is damaged, and FileNotFoundError where it is gone, as happens
    to a reader that is slower than the training it follows.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("deepcnn", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        step, sha256, feed = int(metadata["step"]), metadata["sha256"], metadata.get("feed")
    except FileNotFoundError:
        raise
    except (
        *(safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError),
        *(AttributeError, OverflowError, RecursionError),
    ) as error:
        raise CheckpointError(
            f"{path}: not a checkpoint of deepcnn, or damaged ({error})"
        ) from error
    if sha256 != _digest(step, tensors, feed):
        raise CheckpointError(
            f"{path}: damaged: its content does not match its own SHA-256. Delete it to go on from "
            "the checkpoint before."
        )
    return step, tensors, feed


def paths(directory: Path) -> list[Path]:
    """Return the paths of all checkpoints in `directory`, oldest first."""
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


def _digest(step: int, tensors: dict[str, Tensor], feed: dict[str, Any] | None) -> str:
    digest = hashlib.sha256(str(step).encode())
    if feed is not None:
        digest.update(json.dumps(feed, sort_keys=True).encode())
    add_tensors(digest, tensors)
    return digest.hexdigest()


def add_tensors(digest: hashlib._Hash, tensors: dict[str, Tensor]) -> None:
    """Update a digest with tensors on the CPU, contiguous: names, types, shapes and values."""
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
