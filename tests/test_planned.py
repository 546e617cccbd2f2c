"""Steps that are planned ahead: the same numbers, and recordings that are made once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deepcnn import load_dataset
from deepcnn.config import Config
from deepcnn.data.source import in_memory
from deepcnn.devices import Place
from deepcnn.engines.planned import WARM_UP, Forward, Given, Planned
from deepcnn.engines.single import Job, Single
from deepcnn.errors import ConfigError
from deepcnn.events import Event, Started, Stepped, ignore
from deepcnn.inputs.loader import Batches
from deepcnn.inputs.transform import Inputs
from deepcnn.learning import averages
from deepcnn.learning import optimizers as optim
from deepcnn.runs import checkpoint
from deepcnn.team import team
from deepcnn.team.processes import Processes
from deepcnn.training.start import start as training
from tests.test_engines import CPU, QUICK, TINY, difference, last, state_of
from tests.test_engines import steps as make_steps

# All there is in a step: distortions, averages, class weights; growing images, what learns, Muon.
TUTORIAL = dataclasses.replace(TINY, steps=23, summary_every=9, class_weights="balanced")
GROWING = dataclasses.replace(QUICK, steps=23, save_every=100)
ROUNDING = 1e-5  # difference after two steps; after four a maximum may be another pixel
CUTTING = dataclasses.replace(TINY, steps=23, inputs=dataclasses.replace(TINY.inputs, cutout=9))


@pytest.mark.parametrize("config", [TUTORIAL, GROWING, CUTTING])
def test_planned_steps_are_those_of_a_single_device(config: Config, tmp_path: Path) -> None:
    """Bit for bit, with plans that end anywhere, and also from the middle of one on."""
    heard: dict[str, list[Event]] = {"single": [], "planned": []}
    training.train(config, run_dir=tmp_path / "single", emit=heard["single"].append)
    ahead = dataclasses.replace(config, steps_per_plan=5)
    training.train(ahead, run_dir=tmp_path / "planned", emit=heard["planned"].append)
    assert last(tmp_path / "planned") == last(tmp_path / "single")
    losses = [[e.losses for e in heard[n] if isinstance(e, Stepped)] for n in heard]
    assert losses[0] == losses[1]
    parts = dataclasses.replace(ahead, save_every=7, keep=9)
    training.train(parts, run_dir=tmp_path / "parts")
    for path in checkpoint.paths(tmp_path / "parts" / "checkpoints")[2:]:
        path.unlink()
    begun: list[Event] = []
    training.resume(tmp_path / "parts", emit=begun.append)
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


def test_each_kind_of_step_is_recorded_once_and_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[int] = []

    class Recorder(Planned):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._records = True

        def _eagerly(self, given: Given, forward: Forward) -> Tensor:
            self._state.step += 1
            return self._compute(given, forward)

        def _record(self, given: Given) -> Any:
            assert set(self._met.values()) == {WARM_UP}
            recorded.append(given[0].shape[2])
            return _Replay(functools.partial(self._compute, forward=self._forward), given)

    config = dataclasses.replace(GROWING, steps=40, summary_every=13)
    training.train(config, run_dir=tmp_path / "single")
    monkeypatch.setattr(team, "Planned", Recorder)
    training.train(dataclasses.replace(config, steps_per_plan=6), run_dir=tmp_path / "planned")
    assert last(tmp_path / "planned") == last(tmp_path / "single")
    # Half, with and without the stem's bias, three quarters and whole images, and whole ones again
    # with the first group fixed.
    assert recorded == [16, 16, 24, 32, 32]


@pytest.mark.parametrize("config", [TUTORIAL, GROWING])
def test_few_kernels_give_the_same_numbers(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does with all parameters at once, done on the processor, to rounding."""
    expected = state_after(config)
    for module in (optim, averages):
        monkeypatch.setattr(module, "kernels_are_dear", lambda _: True)
    assert difference(state_after(config), expected) < ROUNDING


def state_after(config: Config, kind: type[Single] = Single) -> dict[str, Tensor]:
    """Return the tensors of the state after two steps of an engine."""
    source = in_memory(load_dataset("synthetic", "train"))
    state = state_of(config)
    inputs = Inputs.of(source, **dataclasses.asdict(config.inputs))
    feed = training._make_feed(config, source, None, ignore)
    job = Job(
        Batches(feed, inputs, seed=0, training_steps=config.steps).load,
        config.batch_size,
        lambda step: 1 - step / config.steps,
        compile=config.compile,
        steps_per_plan=config.steps_per_plan or 1,
    )
    with closing(kind(state, Place(CPU, "fp32"), job)) as engine:
        state.model.train()
        make_steps(engine, state, 2)
    return state.tensors()


@pytest.mark.parametrize("config", [TUTORIAL, GROWING])
def test_a_compiled_step_gives_the_same_numbers(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To rounding, since nothing made for the processor is compiled; watched steps are not."""
    compiled = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", compiled)
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    config = dataclasses.replace(config, steps_per_plan=3)
    expected = state_after(config, kind=Planned)
    assert graphs["unique_graphs"] == before
    found = state_after(dataclasses.replace(config, compile=True), kind=Planned)
    assert graphs["unique_graphs"] > before
    assert difference(found, expected) < ROUNDING


def test_what_is_not_planned_or_not_on_a_gpu_is_not_compiled(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="compile: only planned steps are compiled"):
        dataclasses.replace(TINY, compile=True, steps_per_plan=1)
    config = dataclasses.replace(TINY, compile=True, steps_per_plan=5)
    with pytest.raises(ConfigError, match="compile: expected a GPU that torch calls cuda, found c"):
        training.train(config, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("triton", "change", "message"),
    [
        (False, {}, "expected the package triton"),
        (True, {}, None),
        (True, {"feed": "streamed"}, "only planned steps are compiled"),
        (True, {"towers": 2}, "only planned steps are compiled"),
    ],
)
def test_a_gpu_compiles_with_triton_what_it_plans(
    triton: bool,
    change: dict[str, Any],
    message: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "HAS_TRITON", triton)
    config = dataclasses.replace(TINY, compile=True, **change)
    place = Place(torch.device("cuda"), "bf16")
    expected = nullcontext() if message is None else pytest.raises(ConfigError, match=message)
    with expected:
        training._check_that_it_compiles(config, place, team.Team())


@pytest.mark.parametrize(
    ("device", "change", "expected"),
    [
        ("cuda", {}, 100),
        ("cuda:1", {}, 100),
        ("cuda", {"steps_per_plan": 7}, 7),
        ("cuda", {"towers": 2}, 1),
        ("cuda", {"feed": "streamed"}, 1),
        ("cpu", {}, 1),
        ("cpu", {"steps_per_plan": 7}, 7),
    ],
)
def test_a_gpu_alone_plans_unless_told_otherwise(
    device: str, change: dict[str, Any], expected: int
) -> None:
    config = dataclasses.replace(TINY, **change)
    place = Place(torch.device(device), "fp32")
    assert training._steps_per_plan(config, place, team.Team()) == expected


def test_a_group_of_one_process_on_a_gpu_does_not_plan() -> None:
    """Its engine is that of many, which `check` refuses a plan."""
    group = Processes.__new__(Processes)
    group.count = 1
    place = Place(torch.device("cuda"), "fp32")
    steps = training._steps_per_plan(TINY, place, group)
    assert steps == 1
    group.check(place, batch_size=32, towers=0, sync_batch_norm=False, steps_per_plan=steps)


@pytest.mark.parametrize("change", [{"towers": 2}, {"feed": "streamed"}, {"feed": "fed"}])
def test_plans_are_refused_where_nobody_follows_them(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="steps_per_plan: only a single device"):
        dataclasses.replace(TINY, steps_per_plan=2, **change)
