"""What several tests need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from deepcnn.data.arrays import Arrays
from deepcnn.data.fetch import default_data_dir, fetch
from deepcnn.data.open import load_dataset

pytest.register_assert_rewrite("tests.helpers")
# Triton reads it when it is first imported, and some test may let torch do that.
os.environ["TRITON_INTERPRET"] = "1"
torch.set_num_threads(1)  # tests run in parallel, a process for each core


@pytest.fixture(scope="session")
def cifar10_folder() -> Path:
    """The real CIFAR-10: fetched where it is missing, and a failure where it cannot be had."""
    return fetch("cifar10", data_dir=default_data_dir())


@pytest.fixture(scope="session")
def cifar10_test(cifar10_folder: Path) -> Arrays:
    return load_dataset("cifar10", "test", data_dir=cifar10_folder.parent)


@pytest.fixture(scope="session")
def cifar10_train(cifar10_folder: Path) -> Arrays:
    return load_dataset("cifar10", "train", data_dir=cifar10_folder.parent)
