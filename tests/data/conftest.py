"""What the tests of conversion share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deepcnn.data.arrays import Arrays
from deepcnn.data.catalog import CIFAR10
from deepcnn.data.formats import cifar
from deepcnn.data.splits import Split


@pytest.fixture
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test not wait for the disk."""
    monkeypatch.setattr(os, "fsync", os.fstat)


@pytest.fixture(scope="module")
def real(cifar10_test: Arrays) -> dict[Split, Arrays]:
    """Some hundred real images; the test split has no frog, and the training split no ship."""
    train = cifar10_test.select(cifar10_test.labels != 8)
    test = cifar10_test.select(cifar10_test.labels != 6)
    return {
        "train": train.select(slice(0, 200)),
        "validation": cifar10_test.select(slice(1000, 1041)),
        "test": test.select(slice(2000, 2060)),
    }


@pytest.fixture(scope="module")
def cifar_folder(real: dict[Split, Arrays], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cifar")
    for split, arrays in real.items():
        name = "data_batch_1" if split == "train" else f"{split}_batch"
        (folder / f"{name}.bin").write_bytes(cifar.TEN.encode(arrays.images, arrays.labels))
    (folder / "batches.meta.txt").write_text("\n".join(CIFAR10.classes) + "\n\n")
    return folder
