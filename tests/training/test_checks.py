"""What a training checks as it goes on, and what a resumed run may not change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from deepcnn.config import Config
from deepcnn.errors import ConfigError, TrainingError
from deepcnn.events import Event, Saved
from deepcnn.learning import assembly, objective
from deepcnn.learning.state import TrainState
from deepcnn.runs import checkpoint
from deepcnn.runs.owner import FREE_TO_CHANGE
from deepcnn.training import session
from deepcnn.training.checks import check_changes
from deepcnn.training.start import resume, train
from tests.helpers.tiny import QUICK, saved, tiny, with_inputs, with_optimizer


def with_steps(steps: int) -> Callable[[Config], Config]:
    return lambda config: dataclasses.replace(config, steps=steps)


def test_a_resumed_run_refuses_what_would_change_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "run"
    train(tiny(steps=2), run_dir=path)
    refused: list[tuple[str, Callable[[Config], Config]]] = [
        ("batch_size", lambda c: dataclasses.replace(c, batch_size=64)),
        ("optimizer.learning_rate", lambda c: with_optimizer(c, learning_rate=0.5)),
    ]
    for name, change in refused:
        with pytest.raises(ConfigError, match=f"^{name}: cannot change"):
            resume(path, changes=change)
    linear = tmp_path / "linear"
    train(with_optimizer(tiny(steps=2), schedule="linear"), run_dir=linear)
    with pytest.raises(ConfigError, match=r"^steps: cannot change"):
        resume(linear, changes=with_steps(4))
    assert resume(path, changes=with_steps(4)).step == 4


def test_layers_that_stop_learning_fix_the_number_of_steps(tmp_path: Path) -> None:
    """On the staircase too: they stop at a share of all steps."""
    config = with_optimizer(tiny(steps=4), schedule="staircase", freeze=(("conv1", 0.5),))
    train(config, run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"^steps: cannot change"):
        resume(tmp_path / "run", changes=with_steps(8))
    assert resume(tmp_path / "run").step == 4


@pytest.mark.parametrize(
    ("config", "may"),
    [
        (tiny(), True),
        (with_optimizer(tiny(), schedule="linear"), False),
        (with_optimizer(tiny(), schedule="cosine"), False),
        (with_optimizer(tiny(), schedule="one_cycle"), False),
        (with_optimizer(tiny(), schedule="constant"), True),
        (with_optimizer(tiny(), schedule="constant", warm_up=0.1), False),
        (with_optimizer(tiny(), drops=(0.5,)), False),
        (with_optimizer(tiny(), freeze=(("conv1", 0.5),)), False),
        (with_inputs(tiny(), scales=((0.0, 0.5), (0.5, 1.0))), False),
    ],
)
def test_steps_may_change_where_nothing_happens_at_a_share_of_them(
    config: Config, may: bool
) -> None:
    more = dataclasses.replace(config, steps=2 * config.steps)
    if may:
        check_changes(config, more)
        return
    with pytest.raises(ConfigError, match=r"^steps: cannot change .* what can: ") as error:
        check_changes(config, more)
    allowed = str(error.value).partition("what can: ")[2]
    assert allowed.startswith("towers, steps_per_plan, log_every")
    assert "steps" in FREE_TO_CHANGE


@pytest.mark.parametrize(("rate", "log_every"), [(1e6, 10), (1e20, 100)])
def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_good_state(
    tmp_path: Path, rate: float, log_every: int
) -> None:
    config = with_optimizer(tiny(steps=300, save_every=1, log_every=log_every), learning_rate=rate)
    heard: list[Event] = []
    with pytest.raises(TrainingError) as error:
        train(config, run_dir=tmp_path / "run", emit=heard.append)
    found = saved(tmp_path / "run")
    last = max([event.step for event in heard if isinstance(event, Saved)], default=0)
    message = str(error.value)
    assert f"not finite at step {last}, at learning rate {rate:g}" in message
    assert (str(found[-1]) if found else "There is no checkpoint yet") in message
    for path in found:
        _, tensors, _ = checkpoint.load(path)
        assert all(t.isfinite().all() for t in tensors.values()), path


def test_the_bad_update_and_all_later_ones_are_masked(
    tmp_path: Path, every_step: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that is not a number at step 5 of 50: the state stays that of 5 updates."""
    original, make = objective.losses, assembly.make_state
    kept: list[TrainState] = []

    def losses(*arguments: object, **settings: object) -> dict[str, torch.Tensor]:
        found = original(*arguments, **settings)  # type: ignore[arg-type]
        if kept[0].step == 5:
            found[objective.TOTAL] = found[objective.TOTAL] * float("nan")
        return found

    def new_state(*arguments: Any) -> TrainState:
        kept.append(make(*arguments))
        return kept[0]

    monkeypatch.setattr(session, "make_state", new_state)
    monkeypatch.setattr(objective, "losses", losses)
    config = tiny(steps=50, save_every=1000, log_every=50)
    with pytest.raises(TrainingError, match=r"not finite at step 5, at learning rate 0.02"):
        train(config, run_dir=tmp_path / "run")
    (state,) = kept
    assert (int(state.failed), state.step) == (5, 50)
    _, expected, _ = checkpoint.load(every_step / "checkpoints" / "step-000000005.safetensors")
    for name, tensor in state.tensors().items():
        assert name == "loss_averages" or torch.equal(tensor, expected[name]), name


def test_what_is_to_be_fixed_sooner_has_to_be_a_layer_that_learns(tmp_path: Path) -> None:
    config = with_optimizer(QUICK, freeze=(("group2", 0.5), ("conv1", 0.8)))
    with pytest.raises(
        ConfigError, match=r"optimizer\.freeze: .*speednet one of stem, group1_1.*found 'conv1'"
    ):
        train(config, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_only_networks_that_take_any_size_can_see_images_grow(tmp_path: Path) -> None:
    config = with_inputs(tiny(), scales=((0.0, 0.5),))
    with pytest.raises(ConfigError, match="the network tutorial takes images of one size"):
        train(config, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_impossible_device_is_answered_with_the_possible_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'warp' cannot be used here .*expected auto, cpu"):
        train(tiny(device="warp"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_best_checkpoint_is_not_chosen_on_the_test_set(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^keep_best: expected to be scored on a validation split, found test, "
    ):
        train(tiny(keep_best=True), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    held_out = tiny(keep_best=True, steps=2, evaluate_every=1, validation_size=20)
    train(held_out, run_dir=tmp_path / "run")
    assert len(checkpoint.paths(tmp_path / "run/checkpoints/best")) == 1


def pooled() -> nn.Module:
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)
    )


@pytest.mark.parametrize(("batch_size", "towers"), [(1, 0), (2, 2), (3, 2)])
def test_a_device_that_gets_one_image_cannot_normalize_single_pixels(
    tmp_path: Path, batch_size: int, towers: int
) -> None:
    config = tiny(batch_size=batch_size, towers=towers, steps=1, data="synthetic")
    with pytest.raises(
        ConfigError,
        match=f"at least two examples for each device.* found {batch_size} for {towers or 1} dev",
    ):
        train(config, run_dir=tmp_path / "run", model=pooled)
    assert not (tmp_path / "run").exists()
    two_each = dataclasses.replace(config, batch_size=2 * max(1, towers))
    assert train(two_each, run_dir=tmp_path / "run", model=pooled).step == 1


def test_the_first_of_all_parameters_that_are_not_finite_is_named_and_the_rest_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = assembly.make_state

    def spoilt(count: int) -> Callable[..., TrainState]:
        def new_state(*arguments: Any) -> TrainState:
            state = make(*arguments)
            with torch.no_grad():
                for parameter in [*state.model.parameters()][:count]:
                    parameter.fill_(float("nan"))
            return state

        return new_state

    for count, more in ((1, ""), (2, " and 1 more"), (3, " and 2 more")):
        monkeypatch.setattr(session, "make_state", spoilt(count))
        with pytest.raises(
            TrainingError, match=rf"^The parameter conv1\.weight{more} was not finite"
        ):
            train(tiny(steps=1), run_dir=tmp_path / f"{count}")
