"""A small trained network, pictures, and servers that run on their own."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deepcnn
from deepcnn.inference.classifier import Classifier, Pixels
from tests.serving.process import Server


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps on synthetic data."""
    path = tmp_path_factory.mktemp("serving") / "run"
    config = dataclasses.replace(
        deepcnn.presets.tiny(), steps=20, summary_every=0, device="cpu", precision="fp32"
    )
    deepcnn.train(config, run_dir=path)
    return path


@pytest.fixture(scope="session")
def classifier(run: Path) -> Classifier:
    return deepcnn.load(run, device="cpu")


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """PNG files of several sizes and colours."""
    random = np.random.default_rng(0)
    shapes = [(24, 24, 3), (32, 32, 3), (40, 60, 3), (100, 30), (64, 64, 4), (1, 1, 3)]
    return [png(random.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


def png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


StartServer = Callable[..., Server]


@pytest.fixture
def serve(run: Path, tmp_path: Path) -> Iterator[StartServer]:
    """Start servers of the run with options; none outlives the test."""
    started: list[Server] = []

    def start(*options: str) -> Server:
        folder = tmp_path / f"server{len(started)}"
        folder.mkdir()
        started.append(Server(folder, str(run), *options))
        return started[-1]

    yield start
    for server in started:
        server.kill()
