"""Schedules by their definitions, and against torch's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from deepcnn.learning.assembly import make_schedule
from deepcnn.learning.schedules import cosine, drops, linear, one_cycle, staircase, warm_up
from tests.helpers.tiny import tiny, with_optimizer


def test_the_staircase_drops_after_its_steps_and_the_line_reaches_zero() -> None:
    steps = (0, 136_717, 136_718, 273_435, 273_436)
    found = [staircase(step, decay_steps=136_718, factor=0.1) for step in steps]
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert [linear(step, steps=4) for step in range(6)] == [1, 0.75, 0.5, 0.25, 0, 0]


def torchs(make: Callable[[torch.optim.Optimizer], Any], steps: int) -> list[float]:
    """Return the learning rates that torch's scheduler gives to the steps of a training."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():  # of a step after the last one
            warnings.simplefilter("ignore")
            scheduler.step()
    return found


@pytest.mark.parametrize("steps", [2, 10, 391, 4000])
def test_schedules_equal_torchs(steps: int) -> None:
    def close(found: Callable[[int], float], make: Callable[[Any], Any]) -> None:
        expected = torchs(make, steps)
        assert [found(step) for step in range(steps)] == pytest.approx(expected, abs=1e-9)

    close(lambda s: cosine(s, steps=steps), lambda o: lr_scheduler.CosineAnnealingLR(o, steps))
    close(
        lambda s: linear(s, steps=steps),
        lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=steps),
    )
    close(
        lambda s: one_cycle(s, steps=steps),
        lambda o: lr_scheduler.OneCycleLR(o, 1.0, total_steps=steps),
    )
    marks = [steps // 2, max(steps // 2 + 1, 3 * steps // 4)]
    close(
        lambda s: drops(s, starts=marks, factor=0.2),
        lambda o: lr_scheduler.MultiStepLR(o, marks, gamma=0.2),
    )


@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        ("constant", lambda o: lr_scheduler.ConstantLR(o, 1.0)),
        ("linear", lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=80)),
        ("cosine", lambda o: lr_scheduler.CosineAnnealingLR(o, 80)),
    ],
)
def test_a_rise_comes_first_and_what_falls_falls_in_the_rest(schedule: str, after: Any) -> None:
    config = with_optimizer(tiny(steps=100), schedule=schedule, warm_up=0.2)
    found = [make_schedule(config, 8192)(step) for step in range(100)]
    assert found[0] == 0

    def both(optimizer: Any) -> Any:
        rise = lr_scheduler.LinearLR(optimizer, 1e-12, 1.0, total_iters=20)
        return lr_scheduler.SequentialLR(optimizer, [rise, after(optimizer)], [20])

    assert found == pytest.approx(torchs(both, 100), abs=1e-9)


def test_a_staircase_rises_first_and_drops_at_shares_of_the_whole_training() -> None:
    config = with_optimizer(tiny(steps=10), drops=(0.4, 0.8), decay_factor=0.5, warm_up=0.5)
    found = [make_schedule(config, 8192)(step) for step in range(12)]
    ramp = [0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1, 1]
    factor = [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]
    assert found == pytest.approx([a * b for a, b in zip(ramp, factor, strict=True)])
    every = with_optimizer(tiny(steps=600), decay_epochs=1.0, warm_up=0.5)  # 8192 / 32 steps each
    found = [make_schedule(every, 8192)(step) for step in (128, 255, 256, 300, 511, 512)]
    assert found == pytest.approx([128 / 300, 255 / 300, 0.1 * 256 / 300, 0.1, 0.1, 0.01])


def test_shares_of_a_training_meet_its_steps_though_they_are_rounded() -> None:
    """450 of 470 epochs of 391 steps, as written in a preset, are 175,950 steps exactly."""
    config = with_optimizer(tiny(steps=470 * 391), drops=(450 / 470, 460 / 470))
    schedule = make_schedule(config, 50_000)
    steps = (450 * 391 - 1, 450 * 391, 460 * 391 - 1, 460 * 391)
    assert [schedule(step) for step in steps] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_beyond_their_end_schedules_stay_where_they_are() -> None:
    assert [cosine(s, steps=4) for s in (4, 9)] == [0, 0]
    assert [one_cycle(s, steps=4) for s in (4, 9)] == [one_cycle(3, steps=4)] * 2
    assert [warm_up(s, steps=0.5) for s in (0, 1, 5)] == [0, 1, 1]
    assert one_cycle(0, steps=1) == pytest.approx(1 / 25 / 1e4)
