"""What a training opens, and what it takes up of an earlier one."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from deepcnn.errors import CheckpointError, DataError
from deepcnn.events import EnvironmentChanged, Evaluated, Event, Stepped
from deepcnn.training.start import resume, train
from tests.helpers.stored import change
from tests.helpers.tiny import TINY, logged, points, saved, tiny


def test_what_cannot_be_scored_is_told_before_a_run_begins(tmp_path: Path) -> None:
    heard: list[Event] = []
    with pytest.raises(
        DataError, match=r"no validation split \(found: train, test\); hold one out"
    ):
        train(tiny(evaluate_on=("validation",)), run_dir=tmp_path / "run", emit=heard.append)
    assert not [event for event in heard if isinstance(event, Stepped)]
    assert not (tmp_path / "run").exists()  # so that the same name will do once that is mended


def test_with_a_validation_split_training_never_sees_the_test_set(tmp_path: Path) -> None:
    result = train(tiny(steps=2, validation_size=100), run_dir=tmp_path / "run")
    assert isinstance(result.evaluated, Evaluated)
    assert (result.evaluated.split, result.evaluated.total) == ("validation", 100)


def test_a_checkpoint_of_another_network_is_refused_by_name(tmp_path: Path) -> None:
    train(tiny(steps=2), run_dir=tmp_path / "a")
    model = dataclasses.replace(TINY.model, widths=(8, 8, 32, 16))
    train(tiny(steps=2, model=model), run_dir=tmp_path / "b")
    name = "step-000000002.safetensors"
    shutil.copy(tmp_path / "a/checkpoints" / name, tmp_path / "b/checkpoints" / name)
    with pytest.raises(CheckpointError, match=r"model\.widths: expected .*8.*, found"):
        resume(tmp_path / "b")


def test_a_changed_environment_is_said(tmp_path: Path) -> None:
    path = tmp_path / "run"
    train(tiny(steps=2), run_dir=path)
    change(path, "environment.json", torch="1.0")
    heard: list[Event] = []
    resume(path, emit=heard.append)
    (changed,) = [event for event in heard if isinstance(event, EnvironmentChanged)]
    assert changed.differences == (f"torch: was 1.0, is {torch.__version__}",)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_that_is_resumed_at_its_beginning_shows_each_point_once(tmp_path: Path) -> None:
    """As after a kill before the first checkpoint: what was shown of its steps is dropped."""
    path = tmp_path / "run"
    train(tiny(steps=21, summary_every=100), run_dir=path)
    (only,) = saved(path)
    only.unlink()
    resume(path)
    shown = path / "summaries" / "train"
    assert [step for step, _ in points(shown, "loss/total_loss")] == [0, 10, 20]
    assert [step for step, _ in points(shown, "accuracy/test")] == [21]
    assert [step for step, _ in points(shown, "sparsity/conv1")] == [0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_evaluation_at_the_step_that_is_resumed_from_stays_in_view(tmp_path: Path) -> None:
    path = tmp_path / "run"
    config = tiny(steps=20, evaluate_every=10, save_every=10, summary_every=100, log_every=5)
    train(config, run_dir=path)
    first, second = logged(path, "Evaluated")
    saved(path)[-1].unlink()
    resume(path)
    for tag, value in (("accuracy", "correct"), ("cross_entropy", "loss")):
        shown = points(path / "summaries" / "train", f"{tag}/test")
        expected = [e[value] / (e["total"] if value == "correct" else 1) for e in (first, second)]
        assert [step for step, _ in shown] == [10, 20]
        assert [found for _, found in shown] == pytest.approx(expected)
    shown = points(path / "summaries" / "train", "loss/total_loss")
    assert [step for step, _ in shown] == [0, 5, 10, 15, 19]
