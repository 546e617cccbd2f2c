"""What a training tells of its steps, and how much time that takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from deepcnn import presets
from deepcnn.events import Event, Stepped
from deepcnn.runs.log import events, read_log
from deepcnn.training.progress import Budget
from deepcnn.training.start import train
from tests.helpers.tiny import tiny


def test_the_log_has_the_losses_of_the_reference(tmp_path: Path) -> None:
    train(tiny(steps=21), run_dir=tmp_path / "run")
    log = read_log(tmp_path / "run" / "log.jsonl")
    steps = events(log, "Stepped")
    assert [entry["step"] for entry in steps] == [0, 10, 20]
    first = steps[0]
    names = ["cross_entropy", "local3/weight_loss", "local4/weight_loss", "total_loss"]
    assert list(first["losses"]) == names
    assert first["losses"]["total_loss"] == pytest.approx(
        sum(first["losses"][name] for name in names[:3]), rel=1e-6
    )
    assert first["averages"] == pytest.approx(first["losses"], rel=1e-5)  # debiased
    assert first["learning_rate"] == 0.02
    kinds = [entry["event"] for entry in log]
    assert kinds[0] == "Started"
    assert kinds[-3:] == ["Saved", "Evaluated", "Finished"]


def test_the_tutorials_first_loss(tmp_path: Path) -> None:
    heard: list[Event] = []
    config = dataclasses.replace(
        presets.tutorial(), data="synthetic", steps=1, summary_every=0, device="cpu"
    )
    train(config, run_dir=tmp_path / "run", emit=heard.append)
    (step,) = [event for event in heard if isinstance(event, Stepped)]
    assert step.losses["total_loss"] == pytest.approx(4.68, abs=0.03)


def test_the_budget_of_summaries_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    budget = Budget(0.03)
    assert budget.left()
    with budget:
        now = 3.0
    assert not budget.left()
    now = 99.0
    assert not budget.left()
    now = 101.0
    assert budget.left()
