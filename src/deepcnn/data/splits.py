"""The splits of a data set, and the names of files and folders that stand for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from deepcnn.data.shards import Shard
from deepcnn.errors import DataError

# "extra": more to train on, which is used only where that is asked for, as SVHN has it.
Split = Literal["train", "validation", "test", "extra"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "extra")
NAMES_OF_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "t10k": "test",  # MNIST's ten thousand
    "eval": "test",
    "extra": "extra",
}
NAMES_OF_FOLDERS: dict[str, Split] = {**NAMES_OF_SPLITS, "data": "train"}
_WORD = re.compile(r"t10k|[a-z]+")

Opener = Callable[[], tuple[Shard, ...]]  # opens the files of a split


def named_split(name: str) -> Split | None:
    """Return the split in a file's name: its first word that is one of NAMES_OF_SPLITS.

    `test_batch.bin`, `emnist-letters-test-images-idx3-ubyte` and `testLabels.csv` all mean "test".
    The word "extra" only counts if there is no other: `extra_train.npz` is for training.
    """
    apart = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()
    words = _WORD.findall(apart)
    said = [NAMES_OF_SPLITS[word] for word in words if word in NAMES_OF_SPLITS]
    return next((split for split in said if split != "extra"), said[0] if said else None)


def split_of(name: str) -> Split:
    """Return the split in a file's name; training if it names none."""
    return named_split(name) or "train"


def group_files(folder: Path, names: Iterable[str]) -> dict[Split, list[Path]]:
    """Group files by split, in the order of their names and of the numbers in them."""
    groups: dict[Split, list[Path]] = {}
    for name in sorted(names, key=_natural):
        groups.setdefault(split_of(name), []).append(folder / name)
    return {split: groups[split] for split in SPLITS if split in groups}


def group_by_split(
    folder: Path, names: Iterable[str], make: Callable[[Path], Shard]
) -> dict[Split, Opener]:
    """Return the functions that open the files, by split; see `group_files`."""
    return {
        split: lambda paths=paths: tuple(make(path) for path in paths)  # type: ignore[misc]
        for split, paths in group_files(folder, names).items()
    }


def only_one(found: dict[Split, Path], split: Split, path: Path, what: str) -> None:
    """Add a path for a split; raise DataError, naming both paths, if there is one already."""
    if split in found:
        raise DataError(
            f"{path.parent}: expected one {what} for the {split} split, found {found[split].name} "
            f"and {path.name}. Name the one that you mean, or move the other one away."
        )
    found[split] = path


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d{1,18})", name)
    return [(int(p), "") if i % 2 else (-1, p) for i, p in enumerate(parts)]
