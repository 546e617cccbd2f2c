"""The learning-rate range test: what it makes of a curve, and the curve that it measures."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from deepcnn.config import Config
from deepcnn.errors import ConfigError, TrainingError
from deepcnn.events import Advanced, Event
from deepcnn.training.rates import RangeTest, range_test
from deepcnn.training.start import train
from tests.helpers.tiny import QUICK, TINY, logged, tiny, with_optimizer


def curve(losses: list[float], config: Config = TINY, *, diverged: bool = False) -> RangeTest:
    """Return a test whose rates grow from 1e-6 to 1, with averages by their definition."""
    average, smoothed = 0.0, []
    for n, loss in enumerate(losses, start=1):
        average = 0.9 * average + 0.1 * loss
        smoothed.append(average / (1 - 0.9**n))
    rates = np.logspace(-6, 0, len(losses)).tolist()
    return RangeTest(config, tuple(rates), tuple(losses), tuple(smoothed), diverged)


def falling(noise: float, seed: int = 0) -> list[float]:
    """Return losses that stay the same, fall at rates from 1e-3 to 1e-2, and rise from 0.1 on."""
    x = np.linspace(-6, 0, 241)
    level = 2.3 - 0.5 * np.clip(x + 3, 0, 1) + np.clip(x + 1, 0, 1) * 2
    return list(level + noise * np.random.default_rng(seed).standard_normal(241))


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_the_suggestion_lies_between_the_steepest_descent_and_a_tenth_of_the_lowest(
    noise: float,
) -> None:
    found = curve(falling(noise))
    assert found.fell
    assert found.remarks == ()
    steepest, lowest = found.rates[found.steepest], found.rates[found.lowest]
    assert 2e-3 < steepest < 2e-2  # averages of ten steps, a quarter of a decade, come late
    assert 1e-2 < lowest < 0.15
    assert found.suggestion == pytest.approx(math.sqrt(steepest * lowest / 10), rel=0.06)


def test_noise_alone_suggests_nothing() -> None:
    suggested = 0
    for seed in range(200):
        noise = np.random.default_rng(seed).standard_normal(100 + seed)
        found = curve(list(2.3 + 0.05 * noise))
        suggested += found.suggestion is not None
        assert found.fell or "did not fall" in found.remarks[0]
    assert suggested <= 2


def test_what_speaks_against_a_suggestion_is_said() -> None:
    losses = falling(0.0)
    assert "to the end: test higher rates" in curve(losses[:170]).remarks[0]
    assert "from the beginning: test lower rates" in curve(losses[135:]).remarks[0]
    rising = curve([2.3 + 0.1 * i for i in range(30)], diverged=True)
    assert rising.suggestion is None
    assert "grew before it fell" in rising.remarks[0]
    assert curve(losses[:19]).suggestion is None


def test_all_rates_go_together() -> None:
    config = with_optimizer(
        QUICK, learning_rate=20.0, head_learning_rate=250.0, muon_learning_rate=0.18
    )
    found = dataclasses.replace(curve(falling(0.0)), config=config).at(1.0)
    rates = found.optimizer.learning_rate, found.optimizer.head_learning_rate
    assert rates == (1.0, 12.0)  # of two digits
    assert found.optimizer.muon_learning_rate == 0.009
    assert found.optimizer.bias_learning_rate is None
    assert dataclasses.replace(found, optimizer=config.optimizer) == config


def test_its_losses_are_those_of_a_training_at_these_rates(tmp_path: Path) -> None:
    """At rates so close together that they are one, in all that a training may have."""
    config = with_optimizer(tiny(steps=20, log_every=1), schedule="constant", learning_rate=0.03)
    heard: list[Event] = []
    found = range_test(config, lowest=0.03, highest=0.03 * (1 + 1e-9), tries=20, emit=heard.append)
    told = [event for event in heard if isinstance(event, Advanced)]
    assert [(event.step, event.steps, event.work) for event in told] == [
        (step, 20, step / 20) for step in range(1, 21)
    ]
    train(config, run_dir=tmp_path / "run")
    steps = logged(tmp_path / "run", "Stepped")
    assert found.losses == tuple(step["losses"]["total_loss"] for step in steps)
    averages = [step["averages"]["total_loss"] for step in steps]
    assert found.smoothed == pytest.approx(averages, rel=1e-6)


def test_rates_grow_by_a_factor_from_step_to_step_until_the_loss_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    falls = with_optimizer(TINY, schedule="linear", warm_up=0.5, freeze=(("conv1", 0.1),))
    found = range_test(falls, lowest=0.02, highest=20.0, tries=40)
    assert found.diverged
    assert found.smoothed[-1] > 4 * min(found.smoothed[:-1])
    expected = [0.02 * 1000 ** (step / 39) for step in range(len(found.rates))]
    assert found.rates == pytest.approx(expected)
    assert found.config is falls
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_tested_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"0 < lowest < highest, found 3 and 2"):
        range_test(TINY, lowest=3.0, highest=2.0)
    with pytest.raises(ConfigError, match="tries: expected at least 20, found 19"):
        range_test(TINY, tries=19)
    with pytest.raises(TrainingError, match=r"not finite from the beginning, .* 1e\+30"):
        range_test(TINY, lowest=1e30, highest=1e37, tries=20)
