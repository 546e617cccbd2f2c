"""Training with every distortion at once: on several devices, and resumed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Literal

import pytest

from deepcnn.training.start import resume, train
from tests.helpers.distorting import EVERYTHING
from tests.helpers.tiny import PLAIN, SUMMATION, difference, last, saved, tensors, tiny, with_inputs

# Odd, so that parts differ in length; with all that changes the loss of an example.
CONFIG = with_inputs(
    dataclasses.replace(
        PLAIN, steps=20, batch_size=33, save_every=5, label_smoothing=0.1, class_weights="balanced"
    ),
    **EVERYTHING,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("distorted") / "whole"
    train(CONFIG, run_dir=path)
    return path


def test_a_distorted_training_resumes_to_the_same_bits(whole: Path, tmp_path: Path) -> None:
    first = dataclasses.replace(CONFIG, steps=5)
    train(first, run_dir=tmp_path / "parts")
    resume(tmp_path / "parts", changes=lambda c: dataclasses.replace(c, steps=20))
    assert len(saved(whole)) == 4
    assert last(tmp_path / "parts") == last(whole)
    stored = json.loads((tmp_path / "parts" / "inputs.json").read_text())["inputs"]
    for name, value in EVERYTHING.items():
        assert stored[name] == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(("towers", "feed"), [(2, "preloaded"), (3, "streamed")])
def test_towers_see_the_mixed_images_of_one_device(
    whole: Path, tmp_path: Path, towers: int, feed: Literal["preloaded", "streamed"]
) -> None:
    config = dataclasses.replace(CONFIG, towers=towers, feed=feed, shuffle_buffer=10**6)
    train(config, run_dir=tmp_path / "towers")
    assert difference(tensors(tmp_path / "towers"), tensors(whole)) < SUMMATION


def test_a_tiny_network_learns_from_distorted_images(tmp_path: Path) -> None:
    gentle = {"rotation": 5.0, "hue": 0.02, "brightness": 10.0, "erase": 0.2, "mixup": 0.2}
    result = train(with_inputs(tiny(steps=120, save_every=120), **gentle), run_dir=tmp_path / "run")
    assert result.evaluated is not None
    assert result.evaluated.correct / result.evaluated.total > 0.5  # of ten classes
