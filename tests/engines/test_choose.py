"""Which engine a configuration gets on a device and in a team, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from deepcnn.devices import Place
from deepcnn.engines import choose as choosing
from deepcnn.engines.choose import Choice, choose, devices_of_towers
from deepcnn.engines.engine import Engine, Job
from deepcnn.engines.planned import Planned
from deepcnn.engines.single import Single
from deepcnn.engines.towers import Towers
from deepcnn.errors import ConfigError
from deepcnn.team.team import Team
from deepcnn.training.start import train
from tests.helpers.tiny import CPU, TINY, state_of, tiny

CUDA, SECOND = torch.device("cuda"), torch.device("cuda:1")
JOB = Job(lambda *_: (torch.empty(0), torch.empty(0)), 32, lambda _: 1.0)


class Several(Team):
    """So many processes, as far as the choice of an engine is concerned."""

    distributed = True

    def __init__(self, count: int) -> None:
        self.count = count


def chosen(device: torch.device, team: Team | None = None, **changes: Any) -> Choice:
    return choose(tiny(**changes), Place(device, "fp32"), team or Team())


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "HAS_TRITON", True)


@pytest.mark.parametrize(
    ("device", "changes", "expected"),
    [
        ("cuda", {}, 100),
        ("cuda:1", {}, 100),
        ("cuda", {"steps_per_plan": 7}, 7),
        ("cuda", {"steps_per_plan": 1}, 1),
        ("cuda:1", {"towers": 2}, 1),
        ("cuda", {"feed": "streamed"}, 1),
        ("cpu", {}, 1),
        ("cpu", {"steps_per_plan": 7}, 7),
    ],
)
def test_a_gpu_alone_plans_unless_told_otherwise(
    device: str, changes: dict[str, Any], expected: int
) -> None:
    assert chosen(torch.device(device), **changes).steps_per_plan == expected


def test_a_group_of_one_process_on_a_gpu_does_not_plan() -> None:
    """Its engine is that of many, which has no plans."""
    assert chosen(CUDA, Several(1)).steps_per_plan == 1


def test_each_choice_makes_its_engine() -> None:
    place = Place(CPU, "fp32")
    kinds: list[tuple[dict[str, Any], type[Engine]]] = [
        ({}, Single),
        ({"steps_per_plan": 5}, Planned),
        ({"towers": 1}, Towers),
        ({"towers": 3}, Towers),
    ]
    for changes, kind in kinds:
        engine = chosen(CPU, **changes).engine(state_of(TINY), place, JOB, Team())
        assert type(engine) is kind
        engine.close()


def test_towers_take_all_gpus_in_turn_or_the_one_that_was_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    zero, one = torch.device("cuda", 0), torch.device("cuda", 1)
    assert devices_of_towers(CUDA, 3) == (zero, one, zero)
    assert devices_of_towers(one, 2) == (one, one)
    assert devices_of_towers(CPU, 2) == (CPU, CPU)
    assert devices_of_towers(CUDA, 0) == ()
    assert chosen(CUDA, towers=2, sync_batch_norm=True).towers == (zero, one)
    assert chosen(CPU, towers=2, sync_batch_norm=True).towers == (CPU, CPU)


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize(
    ("device", "processes", "changes", "message"),
    [
        (CPU, 3, {"towers": 2}, r"^towers: 3 processes were started, each of which has one device"),
        (CPU, 33, {}, r"^batch_size: .* each of 33 processes, found 32$"),
        (CPU, 0, {"towers": 33}, r"^towers: .* each of the 32 examples of a batch, found 33$"),
        (
            SECOND,
            0,
            {"towers": 2, "sync_batch_norm": True},
            r"^sync_batch_norm: expected a device for each of 2 towers, .*; found 1$",
        ),
        (
            CPU,
            2,
            {"steps_per_plan": 5},
            r"^steps_per_plan: 2 processes were started, .*; expected 1, found 5$",
        ),
        (CPU, 0, {"steps_per_plan": 2, "towers": 2}, r"^steps_per_plan: only a single device"),
        (
            CPU,
            0,
            {"steps_per_plan": 2, "feed": "streamed"},
            r"^steps_per_plan: only a single device whose feed is preloaded .*expected 1, found 2$",
        ),
        (CPU, 0, {"steps_per_plan": 2, "feed": "queued"}, r"^steps_per_plan: only a single"),
        (CUDA, 0, {"steps_per_plan": 2, "feed": "fed"}, r"^steps_per_plan: only a single device"),
        (CUDA, 0, {"compile": True, "steps_per_plan": 1}, r"^compile: only planned .* found 1$"),
        (CPU, 0, {"compile": True, "steps_per_plan": 1}, r"^compile: only planned .* found 1$"),
        (CPU, 0, {"compile": True}, r"^compile: expected a GPU that torch calls cuda, found cpu"),
        (CPU, 0, {"compile": True, "steps_per_plan": 5}, r"^compile: expected a GPU .*found cpu"),
        (CUDA, 0, {"compile": True, "feed": "streamed"}, r"^compile: only planned .*one process"),
        (SECOND, 0, {"compile": True, "towers": 2}, r"^compile: only planned steps .*one process"),
        (CUDA, 2, {"compile": True}, r"^compile: only planned steps .*one process and one GPU"),
    ],
)
def test_what_contradicts_itself_or_the_machine_is_refused(
    device: torch.device, processes: int, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen(device, Several(processes) if processes else Team(), **changes)


@pytest.mark.parametrize("triton", [False, True])
def test_a_gpu_compiles_with_triton_what_it_plans(
    triton: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "HAS_TRITON", triton)
    if triton:
        assert chosen(CUDA, compile=True).steps_per_plan == 100
        return
    with pytest.raises(ConfigError, match=r"^compile: expected the package triton"):
        chosen(CUDA, compile=True)


def test_as_many_parts_as_examples_are_enough() -> None:
    assert len(chosen(CPU, towers=32).towers) == 32
    assert chosen(CPU, Several(32)).towers == ()


@pytest.mark.parametrize(
    "config", [tiny(compile=True, steps_per_plan=5), tiny(towers=33), tiny(compile=True)]
)
def test_a_run_that_is_refused_has_no_directory(config: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        train(config, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
