"""Steps that are planned ahead: the same numbers, and recordings that are made once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deepcnn.config import Config
from deepcnn.devices import Place
from deepcnn.engines import planned
from deepcnn.engines.engine import Job
from deepcnn.engines.planned import WARM_UP, Given, Planned
from deepcnn.engines.single import Single
from deepcnn.events import Event, Started, Stepped, Summarized
from deepcnn.inputs.loader import Loader
from deepcnn.learning import averages, muon, optimizers
from deepcnn.training.start import resume, train
from tests.helpers.distorting import EVERYTHING
from tests.helpers.tiny import (
    ADAMW,
    CPU,
    QUICK,
    difference,
    feed_of,
    last,
    make_steps,
    saved,
    state_of,
    tiny,
    transform_of,
    with_inputs,
)

# All there is in a step: distortions, averages, class weights; growing images, what learns, Muon.
TUTORIAL = tiny(steps=23, summary_every=9, class_weights="balanced")
GROWING = dataclasses.replace(QUICK, steps=23, save_every=100)
ROUNDING = 1e-5  # difference after two steps; after four a maximum may be another pixel
CUTTING = with_inputs(tiny(steps=23), cutout=9)
MIXING = with_inputs(tiny(steps=23, label_smoothing=0.1), **EVERYTHING)


@pytest.mark.parametrize("config", [TUTORIAL, GROWING, CUTTING, MIXING, ADAMW])
def test_planned_steps_are_those_of_a_single_device(config: Config, tmp_path: Path) -> None:
    """Bit for bit, with plans that end anywhere, and also from the middle of one on."""
    heard: dict[str, list[Event]] = {"single": [], "planned": []}
    train(config, run_dir=tmp_path / "single", emit=heard["single"].append)
    ahead = dataclasses.replace(config, steps_per_plan=5)
    train(ahead, run_dir=tmp_path / "planned", emit=heard["planned"].append)
    assert last(tmp_path / "planned") == last(tmp_path / "single")
    losses = [[e.losses for e in heard[n] if isinstance(e, Stepped)] for n in heard]
    assert losses[0] == losses[1]
    parts = dataclasses.replace(ahead, save_every=7, keep=9)
    train(parts, run_dir=tmp_path / "parts")
    for path in saved(tmp_path / "parts")[2:]:
        path.unlink()
    begun: list[Event] = []
    resume(tmp_path / "parts", emit=begun.append)
    assert [event.step for event in begun if isinstance(event, Started)] == [14]
    assert last(tmp_path / "parts") == last(tmp_path / "single")


class _Replay:
    """What a recording does, without a GPU: the step anew, with what it reads where it was."""

    def __init__(self, compute: Callable[[Given], Tensor], given: Given) -> None:
        self._compute, self._own = compute, tuple(tensor.clone() for tensor in given)

    def replay(self, given: Given) -> Tensor:
        for tensor, values in zip(self._own, given, strict=True):
            tensor.copy_(values)
        return self._compute(self._own)  # type: ignore[arg-type]


class _Recorder:
    """Records on a processor, and takes down the sides of the images of each recording."""

    def __init__(self) -> None:
        self.recorded: list[int] = []
        self.made = 0

    def make(self, compute: Callable[[], Tensor]) -> Tensor:
        self.made += 1
        return compute()

    def record(self, compute: Callable[[Given], Tensor], given: Given) -> _Replay:
        self.recorded.append(given[0].shape[2])
        return _Replay(compute, given)


def test_each_kind_of_step_is_recorded_once_and_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(GROWING, steps=40, summary_every=13)
    train(config, run_dir=tmp_path / "single")
    recorder = _Recorder()
    monkeypatch.setattr(planned, "recorder_for", lambda _: recorder)
    heard: list[Event] = []
    ahead = dataclasses.replace(config, steps_per_plan=6, summary_every=13)
    train(ahead, run_dir=tmp_path / "planned", emit=heard.append)
    assert last(tmp_path / "planned") == last(tmp_path / "single")
    # Half, with and without the stem's bias, three quarters and whole images, and whole ones again
    # with the first group fixed.
    assert recorder.recorded == [16, 16, 24, 32, 32]
    watched = sum(isinstance(event, Summarized) for event in heard)
    assert watched >= 1
    assert recorder.made == WARM_UP * len(recorder.recorded) + watched


def test_on_a_processor_nothing_is_recorded() -> None:
    assert planned.recorder_for(CPU) is None


@pytest.mark.parametrize("config", [TUTORIAL, GROWING, ADAMW])
def test_few_kernels_give_the_same_numbers(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does with all parameters at once, done on the processor, to rounding."""
    expected = state_after(config)
    for module in (optimizers, muon, averages):
        monkeypatch.setattr(module, "kernels_are_dear", lambda _: True)
    assert difference(state_after(config), expected) < ROUNDING


def state_after(config: Config, kind: type[Single] = Single) -> dict[str, Tensor]:
    """Return the tensors of the state after two steps of an engine."""
    state = state_of(config)
    feed = feed_of(config)
    job = Job(
        Loader(feed, transform_of(config), seed=0, training_steps=config.steps).load,
        config.batch_size,
        lambda step: 1 - step / config.steps,
        compile=config.compile,
        steps_per_plan=config.steps_per_plan or 1,
    )
    with closing(kind(state, Place(CPU, "fp32"), job)) as engine:
        state.model.train()
        make_steps(engine, state, 2)
    return state.tensors()


@pytest.mark.parametrize("config", [ADAMW, GROWING])
def test_a_compiled_step_gives_the_same_numbers(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To rounding, since nothing made for the processor is compiled; watched steps are not."""
    compiled = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", compiled)
    graphs: Any = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    config = dataclasses.replace(config, steps_per_plan=3)
    expected = state_after(config, kind=Planned)
    assert graphs["unique_graphs"] == before
    found = state_after(dataclasses.replace(config, compile=True), kind=Planned)
    assert graphs["unique_graphs"] > before
    assert difference(found, expected) < ROUNDING
