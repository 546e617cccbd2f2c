"""How many of a step's batch are answered rightly, whoever computes the step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from deepcnn.devices import Part, Place
from deepcnn.engines import planned
from deepcnn.engines.engine import Engine, Job
from deepcnn.engines.planned import Given, Made, Planned
from deepcnn.engines.single import Single
from deepcnn.engines.towers import Towers
from deepcnn.learning.state import TrainState
from deepcnn.training.start import train
from tests.helpers.tiny import CPU, PLAIN, QUICK, logged, state_of

BATCH = 33  # not to be divided evenly
HERE = Place(CPU, "fp32")


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return (
        torch.randn(BATCH, 3, 24, 24, generator=generator),
        torch.randint(10, (BATCH,), generator=generator),
    )


def load(step: int, part: Part) -> tuple[Tensor, Tensor]:
    images, labels = batch(step)
    mine = part.slice(BATCH)
    return images[mine], labels[mine]


JOB = Job(load, BATCH, lambda _: 1.0, steps_per_plan=3)


class _Replay:
    """A recorded step, without a GPU: what it reads and makes lies where it lay before."""

    def __init__(self, compute: Callable[[Given], Made], given: Given) -> None:
        self._compute, self._own = compute, tuple(tensor.clone() for tensor in given)
        self._made: Made | None = None

    def replay(self, given: Given) -> Made:
        for tensor, values in zip(self._own, given, strict=True):
            tensor.copy_(values)
        made = self._compute(self._own)  # type: ignore[arg-type]
        if self._made is None:
            self._made = made
        for tensor, values in zip(self._made, made, strict=True):
            tensor.copy_(values)
        return self._made


class _Recorder:
    def make(self, compute: Callable[[], Made]) -> Made:
        return compute()

    def record(self, compute: Callable[[Given], Made], given: Given) -> _Replay:
        return _Replay(compute, given)


ENGINES: dict[str, Callable[[TrainState], Engine]] = {
    "single": lambda state: Single(state, HERE, JOB),
    "planned": lambda state: Planned(state, HERE, JOB),
    "recorded": lambda state: Planned(state, HERE, JOB),
    "one tower": lambda state: Towers(state, HERE, JOB, (CPU,)),
    "towers": lambda state: Towers(state, HERE, JOB, (CPU,) * 2),
}


@pytest.mark.parametrize("kind", ENGINES)
def test_an_engine_counts_right_answers_of_the_network_before_the_update(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "recorded":
        monkeypatch.setattr(planned, "recorder_for", lambda _: _Recorder())
    state = state_of(PLAIN)
    found, expected = [], []
    with closing(ENGINES[kind](state)) as engine:
        for step in range(6):
            images, labels = batch(step)
            with torch.no_grad():
                logits = state.model(images).double().numpy()
            expected.append(int(np.count_nonzero(logits.argmax(1) == labels.numpy())))
            engine.step()
            state.forget_gradients()
            found.append(int(engine.correct()))
    assert found == expected
    assert len(set(expected)) > 2


def test_a_log_tells_how_many_of_each_logged_batch_were_right(tmp_path: Path) -> None:
    """And what learns its training set answers ever more of it rightly."""
    few = dataclasses.replace(QUICK, steps=30, log_every=4, save_every=30)
    train(few, run_dir=tmp_path / "run")
    steps = logged(tmp_path / "run", "Stepped")
    assert [each["step"] for each in steps] == [*range(0, 30, 4), 29]
    assert {each["total"] for each in steps} == {QUICK.batch_size}
    shares = [each["correct"] / each["total"] for each in steps]
    assert all(0 <= share <= 1 for share in shares)
    assert np.mean(shares[-3:]) > np.mean(shares[:3])
