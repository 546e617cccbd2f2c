"""Room on the disk for the checkpoints of a training."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from deepcnn.config import Config
from deepcnn.errors import StorageError
from deepcnn.events import Listener, Noted
from deepcnn.runs import checkpoint


def check_room(where: Path, tensors: Mapping[str, Tensor], keep: int, emit: Listener) -> None:
    """Check whether checkpoints of these tensors fit on a folder's disk; it need not exist yet.

    `keep`: how many more there will be. Raises StorageError if not even one fits. Tells a note if
    this many, and one more that is being written, do not fit. Quotas are not taken into account.
    """
    try:
        there = next(folder for folder in (where, *where.absolute().parents) if folder.exists())
        disk = shutil.disk_usage(there)
    except (OSError, StopIteration):  # whoever makes the folder tells
        return
    if not disk.total:  # some file systems of the network do not tell
        return
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    free, needed = _megabytes(disk.free), _megabytes((keep + 1) * size)
    if disk.free < size:
        raise StorageError(
            f"{where}: a checkpoint of this training takes {_megabytes(size)}, and {free} are free "
            "on that disk. Free some space there, or choose another place with --run-dir."
        )
    if disk.free < (keep + 1) * size:
        emit(
            Noted(
                f"{where}: {free} are free on that disk; {keep} checkpoints more and the one that "
                f"is being written take {needed}. Keep fewer (--keep), or free some space."
            )
        )


def keep_until(config: Config, directory: Path, step: int) -> int:
    """Return how many of the newest checkpoints to keep, if a step's checkpoint is the newest.

    This is the number in the configuration. If the training may go back, all checkpoints since the
    one that it would go back to are kept, too.
    """
    if config.on_nan == "stop":
        return config.keep
    oldest = _last_before(config, step)
    later = [path for path in checkpoint.paths(directory) if checkpoint.step_of(path) >= oldest]
    return max(config.keep, len([path for path in later if checkpoint.step_of(path) < step]) + 1)


def _last_before(config: Config, step: int) -> int:
    """Return the last multiple of `save_every` before a step."""
    return max(0, (step - 1) // config.save_every * config.save_every)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
