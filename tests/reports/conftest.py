"""A run that was trained on photographs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import deepcnn
from deepcnn import presets
from deepcnn.data.arrays import Arrays
from deepcnn.settings import ModelConfig


@pytest.fixture(scope="session")
def run(
    tmp_path_factory: pytest.TempPathFactory, cifar10_train: Arrays, cifar10_test: Arrays
) -> Path:
    """A small network that was trained on some of CIFAR-10, with its report."""
    folder = tmp_path_factory.mktemp("trained")
    parts = {"train": (cifar10_train, 3000), "test": (cifar10_test, 800)}
    content = {
        f"{what}_{split}": getattr(source, name)[:count]
        for split, (source, count) in parts.items()
        for what, name in (("x", "images"), ("y", "labels"))
    }
    np.savez(folder / "photos.npz", **content)
    quick = presets.quick()
    config = dataclasses.replace(
        quick,
        data=str(folder / "photos.npz"),
        model=ModelConfig("speednet", widths=(8, 16, 24)),
        inputs=dataclasses.replace(quick.inputs, scales=((0.0, 0.5), (0.6, 1.0))),
        optimizer=dataclasses.replace(
            quick.optimizer, learning_rate=6.0, head_learning_rate=80.0, muon_learning_rate=0.1
        ),
        steps=60,
        batch_size=150,
        precision="fp32",
        device="cpu",
        threads=1,
        summary_every=0,
        evaluate_every=30,
    )
    result = deepcnn.train(config, run_dir=folder / "run", report=True)
    assert result.evaluated is not None
    assert result.evaluated.accuracy > 0.3
    return result.run
