"""The arithmetic of plans, against adding up step by step, and trainings that keep their time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest

from deepcnn.config import Config
from deepcnn.errors import ConfigError
from deepcnn.events import Event, Noted
from deepcnn.learning.assembly import make_schedule
from deepcnn.training.forecast import Costs, Forecast, guessed, phases_of
from deepcnn.training.pacer import Pacer
from deepcnn.training.plan import AIM, BEGIN, MORE, Plan, fitted
from deepcnn.training.session import Session
from tests.helpers.tiny import QUICK, TINY, transform_of

COSTS = Costs(((0.0, 0.02), (0.15, 0.015), (0.3, 0.05), (0.8, 0.09)), 1.5, 3.0, measured=True)


def plan_of(config: Config, costs: Costs, budget: float, most: int = 10**9) -> Plan:
    return Plan(config, costs, budget, began=100.0, now=107.0, most=most)


@pytest.mark.parametrize("seed", range(10))
def test_so_many_steps_fit_as_adding_them_up_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    starts = [0.0, *sorted(rng.uniform(0.05, 0.95, rng.integers(0, 5)))]
    costs = Costs(tuple((s, rng.uniform(0.01, 0.1)) for s in starts), 2.0, 3.0, measured=True)
    found = fitted(plan_of(TINY, costs, 30.0)).config.steps

    def seconds(steps: int) -> float:
        shares = np.arange(steps) / steps
        phase = np.searchsorted(starts, shares, side="right") - 1
        total = np.array([cost for _, cost in costs.phases])[phase].sum()
        return float(7.0 + BEGIN + MORE * total + 2.0 + 3.0)

    most = max(steps for steps in range(1, 2000) if seconds(steps) <= AIM * 30)
    assert abs(found - most) <= len(starts) + 1  # where phases begin is rounded to steps


def test_beyond_what_is_useful_there_are_no_more_steps() -> None:
    plan = fitted(plan_of(TINY, COSTS, 600.0, most=500))
    assert plan.config.steps == 500
    assert plan.enough
    assert plan.total < 0.9 * 600
    short = fitted(plan_of(TINY, COSTS, 60.0, most=10**6))
    assert not short.enough
    assert short.total == pytest.approx(AIM * 60, abs=0.1)


def test_a_budget_that_is_too_small_says_how_much_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"budget: 12 s are too little: .*--budget 15s"):
        fitted(plan_of(TINY, COSTS, 12.0))
    assert fitted(plan_of(TINY, COSTS, 15.0)).config.steps >= 10


def test_phases_are_where_images_grow_and_layers_settle() -> None:
    assert phases_of(QUICK) == (0.0, 0.15, 0.3, 0.65, 0.8)
    assert phases_of(TINY) == (0.0,)


def test_costs_that_nobody_measured_go_with_the_pixels() -> None:
    costs = guessed(QUICK, transform_of(QUICK), 640, report=True)
    assert costs.phases == ((0.0, 0.25), (0.15, 0.25), (0.3, 0.5625), (0.65, 1.0), (0.8, 1.0))
    assert costs.scoring == pytest.approx(640 / 64 / 3)
    assert costs.mean() == pytest.approx(0.3 * 0.25 + 0.35 * 0.5625 + 0.35)
    assert costs.mean(0.65) == pytest.approx(1.0)


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("speed", [0.5, 1.0, 3.0])
def test_the_time_that_is_left_comes_true(measured: bool, speed: float) -> None:
    """Whatever the unit of the costs, and although later steps cost more."""
    clock, steps = Clock(), 3000
    costs = dataclasses.replace(COSTS, measured=measured)
    forecast = Forecast(costs, clock=clock)
    said: list[tuple[float, float | None]] = []
    for step in range(steps):
        clock.now += costs.at(step / steps) * speed
        forecast.made(step / steps)
        said.append((clock.now, forecast.seconds_left((step + 1) / steps, steps - step - 1)))
    end = clock.now + costs.scoring * speed + costs.report
    assert said[0][1] is None or measured
    for now, left in said[steps // 2 :]:
        assert left == pytest.approx(end - now, rel=0.1)


class Simulated:
    """What a pacer sees of a session, in which steps take as long as a test says."""

    def __init__(self, config: Config, every: int = 16) -> None:
        self.config, self.decided_at_once, self.step = config, every, 0
        self.told: list[Event] = []
        self.state = self

    def tell(self, event: Event) -> None:
        self.told.append(event)

    def change_pace(self, pace: tuple[tuple[int, int], ...], steps: int) -> bool:
        assert self.step % self.decided_at_once == 0
        self.config = dataclasses.replace(self.config, pace=pace, steps=steps)
        return True


def trained(plan: Plan, slower: Callable[[float], float]) -> tuple[Simulated, float]:
    """Make the steps of a plan, each so many times slower at a time; return when all was done."""
    clock = Clock()
    clock.now = plan.now + BEGIN
    session = Simulated(plan.config)
    forecast = Forecast(plan.costs, settles=3.0, clock=clock)
    pacer = Pacer(cast(Session, session), plan, forecast, clock)
    while session.step < session.config.steps:
        share = session.config.share_at(session.step)
        clock.now += plan.costs.at(share) * slower(clock.now - plan.began)
        session.step += 1
        forecast.made(share)
        pacer.look()
    pace = slower(clock.now - plan.began)
    return session, clock.now + plan.costs.scoring * pace + plan.costs.report - plan.began


@pytest.mark.parametrize("budget", [30.0, 120.0, 300.0])
@pytest.mark.parametrize(
    "slower",
    [
        lambda _: 1.0,
        lambda _: 0.6,
        lambda _: 1.4,
        lambda _: 3.0,
        lambda at: 1.0 if at < 15 else 1.5,  # a laptop that has become hot
        lambda at: 1.0 if at < 15 else 0.7,
        lambda at: 1.3 if int(at / 3) % 2 else 0.9,  # somebody else works now and then
        lambda at: 8.0 if 12 < at < 14 else 1.0,
    ],
)
def test_a_budget_is_kept_on_a_machine_that_changes_its_speed(
    budget: float, slower: Callable[[float], float]
) -> None:
    plan = fitted(plan_of(QUICK, COSTS, budget))
    session, seconds = trained(plan, slower)
    assert 0.9 * budget <= seconds <= 1.05 * budget
    assert session.config.share_at(session.config.steps) == 1


def test_as_long_as_all_goes_as_measured_nothing_is_changed() -> None:
    plan = fitted(plan_of(QUICK, COSTS, 120.0))
    session, _ = trained(plan, lambda _: 1.01)
    assert session.config == plan.config
    assert session.told == []
    changed, _ = trained(plan, lambda _: 2.0)
    assert changed.config.steps < plan.config.steps
    (first, *_) = changed.told
    assert isinstance(first, Noted)
    assert first.text.startswith("Steps are slower than measured: to keep the budget there are")


def test_a_faster_machine_makes_no_more_steps_than_are_useful() -> None:
    plan = fitted(plan_of(QUICK, COSTS, 120.0))
    plan = dataclasses.replace(plan, most=plan.config.steps + 10)
    session, _ = trained(plan, lambda _: 0.5)
    assert session.config.steps == plan.config.steps + 10


# Pace: what is stored of a training that changed its number of steps


def test_without_a_change_a_share_is_that_of_the_steps() -> None:
    assert [QUICK.share_at(step) for step in range(11)] == [step / 10 for step in range(11)]


def test_a_change_leaves_all_before_it_as_it_was_to_the_bit() -> None:
    first = dataclasses.replace(QUICK, steps=290)
    second = dataclasses.replace(first, steps=250, pace=((160, 290),))
    third = dataclasses.replace(first, steps=330, pace=((160, 290), (200, 250)))
    rates = [make_schedule(config, 50_000) for config in (first, second, third)]
    for step in range(161):
        assert first.share_at(step) == second.share_at(step) == third.share_at(step)
        assert rates[0](step) == rates[1](step) == rates[2](step)
    for step in range(201):
        assert second.share_at(step) == third.share_at(step)
        assert rates[1](step) == rates[2](step)
    assert second.share_at(205) == pytest.approx(160 / 290 + (1 - 160 / 290) / 2)
    for config, rate in zip((first, second, third), rates, strict=True):
        shares = [config.share_at(step) for step in range(config.steps + 1)]
        assert shares == sorted(shares)
        assert shares[-1] == 1
        assert rate(config.steps) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("pace", [((0, 5),), ((10, 20),), ((5, 5),), ((7, 9), (5, 9))])
def test_a_pace_that_cannot_be_is_refused(pace: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ConfigError, match="pace: expected pairs of a step"):
        dataclasses.replace(QUICK, pace=pace)
