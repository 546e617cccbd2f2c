"""What is not finite is masked in its step and named, and no checkpoint has it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from deepcnn.config import Config
from deepcnn.engines.engine import Engine, Moment
from deepcnn.errors import CheckpointError, ConfigError, TrainingError
from deepcnn.events import Advanced, Event, RolledBack, Saved, Stepped
from deepcnn.inputs.transform import Transform
from deepcnn.learning.state import TrainState
from deepcnn.reports.subject import subject_of
from deepcnn.reports.write import write
from deepcnn.runs import checkpoint
from deepcnn.training.start import resume, train
from tests.helpers.tiny import ADAMW, Stateful, last, logged, saved, tensors, tiny, with_inputs

NAN, INFINITE = float("nan"), float("inf")
PLACES = ("gradient", "parameter", "average", "momentum")
SHORT = tiny(steps=12, log_every=3, save_every=2, keep=20)
Spoil = Callable[[TrainState], None]


def spoil(state: TrainState, place: str, value: float) -> None:
    """Put a value into one place of a state, as a mistake of a kernel would."""
    name, parameter = next(iter(state.model.named_parameters()))
    spoiled = parameter.grad if place == "gradient" else parameter.data
    if place == "momentum":
        spoiled = state.optimizers[0].tensors["momentum"][name]
    if place == "average":
        assert state.averages is not None
        spoiled = state.averages.tensors[name]
    assert spoiled is not None
    spoiled[(0,) * parameter.ndim] = value


def plant(monkeypatch: pytest.MonkeyPatch, when: Callable[[TrainState, int], Spoil | None]) -> None:
    """Spoil the state before the updates for which `when` gives something that does."""
    original = Engine._change

    def change(self: Engine, losses: Tensor, moment: Moment) -> None:
        if (spoiled := when(self._state, int(moment.step))) is not None:
            spoiled(self._state)
        original(self, losses, moment)

    monkeypatch.setattr(Engine, "_change", change)


def once(place: str, value: float, at: int, rollbacks: int = 0) -> Callable[..., Spoil | None]:
    """Return what spoils a place at a step, while the training went back so often."""

    def when(state: TrainState, step: int) -> Spoil | None:
        due = step == at and state.rollbacks == rollbacks
        return (lambda s: spoil(s, place, value)) if due else None

    return when


def all_finite(run: Path) -> bool:
    """Tell whether all that was saved is finite, as torch reads the files themselves."""
    found = [safetensors.torch.load(path.read_bytes()) for path in saved(run)]
    return all(t.isfinite().all() for each in found for t in each.values())


@pytest.mark.parametrize("towers", [0, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_planted_is_named_at_the_next_line_and_never_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, precision: Any, towers: int
) -> None:
    value = INFINITE if precision == "bf16" else NAN
    plant(monkeypatch, once(place, value, at=4))
    config = dataclasses.replace(SHORT, precision=precision, towers=towers, save_every=4)
    heard: list[Event] = []
    with pytest.raises(TrainingError) as error:
        train(config, run_dir=tmp_path / "run", emit=heard.append)
    steps = [event.step for event in heard if isinstance(event, Stepped)]
    assert steps == [0, 3, 6]  # the line after it, and no more
    assert [event.step for event in heard if isinstance(event, Saved)] == [4]
    assert all_finite(tmp_path / "run")
    named = "parameter" if place == "momentum" else place  # which the update takes it to
    assert f"The {named} " in str(error.value)
    assert "conv1.weight" in str(error.value)
    at = {"gradient": 4, "parameter": 5, "momentum": 5, "average": 6}[place]
    assert f"not finite at step {at}, at learning rate 0.02" in str(error.value)
    assert str(saved(tmp_path / "run")[-1]) in str(error.value)


def test_a_gradient_that_is_not_finite_changes_nothing_from_its_step_on(
    tmp_path: Path, every_step: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[TrainState] = []
    plant(monkeypatch, once("gradient", NAN, at=5))
    original = Engine.__init__

    def init(self: Engine, state: TrainState, *rest: Any) -> None:
        kept.append(state)
        original(self, state, *rest)

    monkeypatch.setattr(Engine, "__init__", init)
    with pytest.raises(TrainingError, match=r"gradient of conv1.weight was not finite at step 5,"):
        train(tiny(steps=30, save_every=1000, log_every=30), run_dir=tmp_path / "run")
    _, expected, _ = checkpoint.load(every_step / "checkpoints" / "step-000000005.safetensors")
    found = kept[0].tensors()
    assert (int(kept[0].failed), kept[0].step) == (5, 30)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert name == "loss_averages" or torch.equal(tensor, expected[name]), name


def test_a_network_input_that_is_not_finite_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the statistics of the images are not."""
    original = Transform.of

    def of(*arguments: Any, **settings: Any) -> Transform:
        found = original(*arguments, **settings)
        return dataclasses.replace(found, mean=(NAN, *found.mean[1:]))

    monkeypatch.setattr(Transform, "of", of)
    config = with_inputs(SHORT, standardize="dataset")
    with pytest.raises(TrainingError, match=r"^The network's input was not finite at step 0,"):
        train(config, run_dir=tmp_path / "run")
    assert not saved(tmp_path / "run")


@pytest.mark.parametrize("kind", ["average.", "momentum.", "model.", "loss_averages"])
@pytest.mark.parametrize("value", [NAN, INFINITE])
def test_a_checkpoint_that_is_not_finite_is_neither_written_nor_read(
    tmp_path: Path, every_step: Path, monkeypatch: pytest.MonkeyPatch, kind: str, value: float
) -> None:
    found = tensors(every_step)
    name = next(each for each in found if each.startswith(kind))
    found[name].view(-1)[-1] = value
    with pytest.raises(CheckpointError, match=rf"no checkpoint of step 4: {name} holds a NaN"):
        checkpoint.save(tmp_path, 4, found, keep=2)
    assert not checkpoint.paths(tmp_path)
    with monkeypatch.context() as older:  # as what did not look wrote it
        older.setattr(checkpoint, "not_finite", lambda _: [])
        path = checkpoint.save(tmp_path, 4, found, keep=2)
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(path)
    assert str(error.value).startswith(f"{path}: {name}: expected finite numbers, found a NaN")
    assert "\n" not in str(error.value)


def trained(
    config: Config, run: Path, stop: Callable[[list[Event]], BaseException | None]
) -> list[Event]:
    """Train, interrupted by what `stop` gives for the events so far; return them."""
    heard: list[Event] = []

    def emit(event: Event) -> None:
        heard.append(event)
        if isinstance(event, Advanced) and (error := stop(heard)) is not None:
            raise error

    try:
        train(config, run_dir=run, emit=emit)
    except RuntimeError:
        assert stop(heard) is not None
    return heard


def twice(state: TrainState, step: int) -> Spoil | None:
    """Spoil a gradient at step 7, and after a rollback at step 8 again."""
    return once("gradient", NAN, 7 + state.rollbacks, min(state.rollbacks, 1))(state, step)


@pytest.mark.parametrize("config", [SHORT, dataclasses.replace(SHORT, towers=2, precision="bf16")])
def test_a_run_that_went_back_and_was_interrupted_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Config
) -> None:
    plant(monkeypatch, twice)
    config = dataclasses.replace(config, on_nan="rollback", save_every=4, keep=1, log_every=2)
    heard = trained(config, tmp_path / "whole", lambda _: None)
    back = [event for event in heard if isinstance(event, RolledBack)]
    assert [(b.step, b.back_to, b.rollbacks, b.learning_rate) for b in back] == [
        (7, 4, 1, 0.01),
        (8, 4, 2, 0.005),
    ]
    assert back[0].what == "the gradient of conv1.weight"
    rates = [event.learning_rate for event in heard if isinstance(event, Stepped)]
    assert rates[0] == 0.02
    assert rates[-1] == 0.005
    assert int(tensors(tmp_path / "whole")["rollbacks"]) == 2
    assert [entry["rollbacks"] for entry in logged(tmp_path / "whole", "RolledBack")] == [1, 2]
    steps = len([event for event in heard if isinstance(event, Advanced)])
    for made in (2, 6, 9, 14, steps - 1) if not config.towers else (6, 14):
        stopped = [BrokenPipeError()] if made in (6, 14) else []
        for error in (RuntimeError("killed"), *stopped):
            run = tmp_path / f"{made} {type(error).__name__}"

            def stop(heard: list[Event], made: int = made, error: Exception = error) -> Any:
                so_far = len([event for event in heard if isinstance(event, Advanced)])
                return error if so_far == made else None

            trained(config, run, stop)
            resume(run)
            assert last(run) == last(tmp_path / "whole"), run.name
            shutil.rmtree(run)


def test_checkpoints_of_steps_that_are_made_again_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are of other numbers: here that of step 6, where the run was stopped."""
    plant(monkeypatch, once("gradient", NAN, at=7))
    config = dataclasses.replace(SHORT, on_nan="rollback", save_every=4, keep=1, log_every=1)
    run = tmp_path / "run"

    def stop(heard: list[Event]) -> BrokenPipeError | None:
        event = heard[-1]
        return BrokenPipeError() if isinstance(event, Advanced) and event.step == 6 else None

    trained(config, run, stop)
    assert [checkpoint.step_of(path) for path in saved(run)] == [4, 6]
    there: list[list[int]] = []

    def emit(event: Event) -> None:
        if isinstance(event, RolledBack):
            there.append([checkpoint.step_of(path) for path in saved(run)])

    assert resume(run, emit=emit).step == 12
    assert there == [[4]]
    assert [checkpoint.step_of(path) for path in saved(run)] == [8, 12]


def test_a_rollback_stands_in_the_report_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, once("gradient", NAN, at=5))
    run = tmp_path / "run"
    config = dataclasses.replace(SHORT, on_nan="rollback")
    train(config, run_dir=run)
    log = run / "log.jsonl"
    told = next(line for line in log.read_text().splitlines() if '"RolledBack"' in line)
    log.write_text(f"{log.read_text()}{told}\n")  # as a run that was killed tells it again
    page = write(subject_of(run))
    text = "The gradient of conv1.weight was not finite at step 5. Back to the checkpoint of step 4"
    assert page.read_text().count(text) == 1
    twin = json.loads(page.with_suffix(".json").read_text())
    assert [each["back_to"] for each in twin["rollbacks"]] == [4]


def test_a_feed_with_a_state_goes_back_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives the batches again that a function of the step gives again."""
    plant(monkeypatch, once("gradient", NAN, at=5))
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 32, 32, 3), np.uint8)
    items = [(batch, np.arange(16) % 10) for batch in images]
    config = dataclasses.replace(SHORT, on_nan="rollback", data="synthetic", batch_size=16)
    train(config, run_dir=tmp_path / "state", feed=Stateful(items))
    train(config, run_dir=tmp_path / "function", feed=lambda step: items[step])
    (back,) = logged(tmp_path / "state", "RolledBack")
    assert (back["step"], back["back_to"]) == (5, 4)
    found, expected = tensors(tmp_path / "state"), tensors(tmp_path / "function")
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


def test_a_run_goes_back_three_times_at_most_and_then_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, lambda state, step: once("gradient", NAN, 7, state.rollbacks)(state, step))
    config = dataclasses.replace(SHORT, on_nan="rollback")
    heard: list[Event] = []
    with pytest.raises(TrainingError, match=r"after going back 3 times\. The last good checkpoint"):
        train(config, run_dir=tmp_path / "run", emit=heard.append)
    back = [event for event in heard if isinstance(event, RolledBack)]
    assert [(b.back_to, b.rollbacks) for b in back] == [(6, 1), (6, 2), (6, 3)]
    assert all_finite(tmp_path / "run")


def test_a_run_that_stopped_can_go_back_when_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, once("gradient", NAN, at=1))
    with pytest.raises(TrainingError, match=r"or let it find one: --on-nan rollback"):
        train(SHORT, run_dir=tmp_path / "stopped")
    again = resume(
        tmp_path / "stopped", changes=lambda c: dataclasses.replace(c, on_nan="rollback")
    )
    assert again.step == 12
    train(dataclasses.replace(SHORT, on_nan="rollback"), run_dir=tmp_path / "whole")
    assert last(tmp_path / "stopped") == last(tmp_path / "whole")


def test_steps_after_going_back_are_those_of_a_training_at_half_of_all_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the initial weights, so that a training by other settings shows it."""
    config = dataclasses.replace(ADAMW, on_nan="rollback", save_every=23)
    with monkeypatch.context() as planted:
        plant(planted, once("gradient", NAN, at=1))
        train(config, run_dir=tmp_path / "back")
    halved = dataclasses.replace(
        ADAMW.optimizer, learning_rate=1e-3, bias_learning_rate=2e-3, weight_decay=5e-5
    )
    train(dataclasses.replace(ADAMW, optimizer=halved), run_dir=tmp_path / "half")
    found, expected = tensors(tmp_path / "back"), tensors(tmp_path / "half")
    assert int(found.pop("rollbacks")) == 1
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


def test_what_a_training_that_goes_back_cannot_have_is_refused(tmp_path: Path) -> None:
    config = dataclasses.replace(SHORT, on_nan="rollback")
    best = dataclasses.replace(config, keep_best=True, validation_size=100)
    with pytest.raises(ConfigError, match=r"^keep_best: a training that may go back"):
        train(best, run_dir=tmp_path / "run")
    batches = iter(())
    with pytest.raises(
        ConfigError, match=r"^on_nan: nothing can go back whose feed is an iterator"
    ):
        train(config, run_dir=tmp_path / "run", feed=batches)
    assert not (tmp_path / "run").exists()
