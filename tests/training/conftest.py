from __future__ import annotations

from pathlib import Path

import pytest

from deepcnn.training.start import train
from tests.helpers.tiny import tiny


@pytest.fixture(scope="session")
def every_step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of tiny that kept the checkpoint of every step."""
    path = tmp_path_factory.mktemp("every_step") / "run"
    train(tiny(save_every=1, keep=200), run_dir=path)
    return path
