"""What several tests need."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from deepcnn.data.arrays import Arrays
from deepcnn.data.fetch import default_data_dir, fetch
from deepcnn.data.open import load_dataset

if TYPE_CHECKING:
    from tests.helpers.browser import Browser

pytest.register_assert_rewrite("tests.helpers")
# Triton reads it when it is first imported, and some test may let torch do that.
os.environ["TRITON_INTERPRET"] = "1"
torch.set_num_threads(1)  # tests run in parallel, a process for each core


@pytest.fixture(scope="session")
def cifar10_folder() -> Path:
    """The real CIFAR-10: fetched where it is missing, and a failure where it cannot be had."""
    return fetch("cifar10", data_dir=default_data_dir())


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps with averages, and checkpoints of steps 20 and 40; not to be changed."""
    from deepcnn.training.start import train
    from tests.helpers.tiny import tiny

    path = tmp_path_factory.mktemp("trained") / "tiny"
    train(tiny(steps=40, save_every=20), run_dir=path)
    return path


@pytest.fixture(scope="session")
def unsure_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in bf16 whose views are "unsure"; not to be changed."""
    from deepcnn.training.start import train
    from tests.helpers.tiny import QUICK, with_inputs

    path = tmp_path_factory.mktemp("trained") / "unsure"
    config = dataclasses.replace(with_inputs(QUICK, views="unsure"), precision="bf16", steps=6)
    train(config, run_dir=path)
    return path


@pytest.fixture(scope="session")
def cifar10_test(cifar10_folder: Path) -> Arrays:
    return load_dataset("cifar10", "test", data_dir=cifar10_folder.parent)


@pytest.fixture(scope="session")
def cifar10_train(cifar10_folder: Path) -> Arrays:
    return load_dataset("cifar10", "train", data_dir=cifar10_folder.parent)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium for all tests of pages."""
    from tests.helpers.browser import chromium

    with chromium() as found:
        yield found
