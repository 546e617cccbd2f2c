"""What several processes train, against what one does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from torch import Tensor

from deepcnn.config import Config
from deepcnn.training.start import train
from tests.helpers.processes import DISTORTED, launched, seen, watched_batches, with_steps
from tests.helpers.tiny import ADAMW, PLAIN, QUICK, SUMMATION, difference, last, logged, tensors


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launched(2, tmp_path_factory)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launched(3, tmp_path_factory)


@pytest.fixture(params=[2, 3])
def some(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue({2: "two", 3: "three"}[request.param])
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The end of `PLAIN` on one device."""
    run = tmp_path_factory.mktemp("alone") / "run"
    train(PLAIN, run_dir=run)
    return tensors(run)


def test_processes_train_to_the_numbers_of_one_device(some: Path, alone: dict[str, Tensor]) -> None:
    """Two have 16 examples of 32 each, three 10, 11 and 11."""
    seen(some)
    assert difference(tensors(some / "plain"), alone) < SUMMATION


def test_processes_see_the_mixed_images_of_one_device(some: Path, tmp_path: Path) -> None:
    """Each with an example of another process's part beside its own."""
    seen(some)
    train(DISTORTED, run_dir=tmp_path / "run")
    assert difference(tensors(some / "distorted"), tensors(tmp_path / "run")) < SUMMATION


def test_processes_count_together_how_many_of_a_batch_are_right(some: Path, tmp_path: Path) -> None:
    seen(some)
    train(with_steps(PLAIN, 1), run_dir=tmp_path / "single")
    (expected,) = logged(tmp_path / "single", "Stepped")
    first, *_ = logged(some / "plain", "Stepped")
    assert (first["correct"], first["total"]) == (expected["correct"], PLAIN.batch_size)
    assert 0 < first["correct"] < PLAIN.batch_size


@pytest.mark.parametrize(("name", "config"), [("plain", PLAIN), ("adamw", ADAMW)])
def test_two_processes_write_the_bytes_of_two_towers(
    two: Path, tmp_path: Path, name: str, config: Config
) -> None:
    seen(two)
    train(dataclasses.replace(config, towers=2), run_dir=tmp_path / "towers")
    assert last(two / name) == last(tmp_path / "towers")


def test_processes_resume_to_the_same_bits(some: Path) -> None:
    """Three numbers and more have several sums: their order must not depend on where one began."""
    seen(some)
    assert sum(t.numel() for n, t in tensors(some / "whole").items() if "model" in n) * 4 > 1 << 20
    assert last(some / "resumed") == last(some / "whole")


def test_batch_normalization_over_two_processes_is_that_of_one_device(
    two: Path, tmp_path: Path
) -> None:
    seen(two)
    train(QUICK, run_dir=tmp_path / "single")
    assert difference(tensors(two / "quick"), tensors(tmp_path / "single")) < 2e-3


def test_the_order_of_the_examples_does_not_depend_on_the_processes(
    two: Path, tmp_path: Path
) -> None:
    """Two, one, and again two processes, ten steps each."""
    first, second = seen(two)
    changes = ["processes: was 2, is 1", "processes: was 1, is 2"]
    assert [text for text in first["changes"] if text.startswith("processes")] == changes
    assert second["changes"] == []
    with watched_batches() as expected:
        train(with_steps(PLAIN, 30), run_dir=tmp_path / "single")
    joined = [a + b for a, b in zip(first["batches"], second["batches"], strict=True)]
    assert joined == expected
    assert {len(examples) for examples in second["batches"]} == {0, 16}
    assert difference(tensors(two / "changing"), tensors(tmp_path / "single")) < SUMMATION
