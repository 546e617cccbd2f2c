"""What the tests of conversion share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from deepcnn.data.arrays import Arrays
from deepcnn.data.catalog import CIFAR10
from deepcnn.data.convert import Form, convert
from deepcnn.data.open import open_dataset
from deepcnn.data.splits import SPLITS, Split
from deepcnn.events import Listener, ignore
from deepcnn.settings import DataSpec
from tests.helpers.shards import examples

COUNTS: dict[Split, int] = {"train": 200, "validation": 41, "test": 60}


def converted(
    source: str | Path,
    target: Path,
    to: Form,
    *,
    shards: int = 1,
    emit: Listener = ignore,
    **settings: Any,
) -> dict[Split, int]:
    """Convert a data set with these settings of a `DataSpec`."""
    spec = DataSpec(data=str(source), **settings)
    return convert(spec, target, to, shards=shards, emit=emit)


def load(path: str | Path) -> dict[Split, Arrays]:
    dataset = open_dataset(path)
    return {split: dataset.split(split).load() for split in dataset.own_splits}


def assert_same(found: dict[Split, Arrays], expected: dict[Split, Arrays]) -> None:
    assert list(found) == list(expected)
    for split, arrays in expected.items():
        assert found[split].classes == arrays.classes
        assert np.array_equal(found[split].labels, arrays.labels)
        assert np.array_equal(found[split].images, arrays.images)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files by path, and of each folder without any, b""."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


def store_npz(folder: Path, splits: dict[Split, Arrays]) -> Path:
    """Write splits as NumPy would, without help of what is tested here."""
    folder.mkdir()
    for split, arrays in splits.items():
        np.savez(folder / f"{split}.npz", images=arrays.images, labels=arrays.labels)
        (folder / "classes.json").write_text(json.dumps(arrays.classes))
    return folder


def made(count: int, *shape: int, classes: tuple[str, ...] = CIFAR10.classes) -> Arrays:
    images, labels = examples(count, *shape)
    return Arrays(images, labels % len(classes), classes)


def splits_of(arrays: Arrays, *others: Arrays) -> dict[Split, Arrays]:
    return dict(zip(SPLITS, (arrays, *others), strict=False))
