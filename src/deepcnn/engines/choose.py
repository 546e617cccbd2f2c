"""Checks and decides, once and at the beginning, which engine computes a training's steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch

from deepcnn.config import Config
from deepcnn.devices import Place
from deepcnn.engines.engine import Engine, Job
from deepcnn.engines.planned import Planned
from deepcnn.engines.single import Single
from deepcnn.engines.towers import Towers
from deepcnn.errors import ConfigError
from deepcnn.hardware import HAS_TRITON
from deepcnn.learning.state import TrainState
from deepcnn.team.team import Team

STEPS_PER_PLAN = 100  # where a GPU replays them; more need not be planned at once


@dataclass(frozen=True)
class Choice:
    """What `choose` decided.

    `steps_per_plan`: for how many steps the host plans at once; 1: for each step as it comes.
    `towers`: a device for each tower; none if no towers were asked for.
    """

    steps_per_plan: int
    towers: tuple[torch.device, ...] = ()

    def engine(self, state: TrainState, place: Place, job: Job, team: Team) -> Engine:
        """Make the engine."""
        if team.distributed:  # imported only here, since torch.distributed takes a while
            from deepcnn.engines.distributed import Distributed
            from deepcnn.team.processes import Processes

            return Distributed(cast(Processes, team), state, place, job)
        if self.towers:
            return Towers(state, place, job, self.towers)
        return (Planned if self.steps_per_plan > 1 else Single)(state, place, job)


def choose(config: Config, place: Place, team: Team) -> Choice:
    """Decide which engine a configuration asks for here.

    Raises ConfigError if `towers`, `feed`, `steps_per_plan`, `compile` and `sync_batch_norm`
    contradict each other, the device, or the number of processes.
    """
    if team.distributed:
        _check_processes(config, team)
    towers = devices_of_towers(place.device, config.towers)
    _check_towers(config, place, towers)
    steps_per_plan = _steps_per_plan(config, place, team)
    if config.compile:
        _check_compilation(config, place, steps_per_plan)
    return Choice(steps_per_plan, towers)


def devices_of_towers(device: torch.device, towers: int) -> tuple[torch.device, ...]:
    """Return a device for each tower: all GPUs in turn, or the one that was asked for."""
    if device.type != "cuda" or device.index is not None:
        return (device,) * towers
    count = torch.cuda.device_count()
    return tuple(torch.device("cuda", i % count) for i in range(towers))


def _check_processes(config: Config, team: Team) -> None:
    if config.towers:
        raise ConfigError(
            f"towers: {team.count} processes were started, each of which has one device; leave out "
            "--towers"
        )
    if team.count > config.batch_size:
        raise ConfigError(
            f"batch_size: expected at least one example for each of {team.count} processes, found "
            f"{config.batch_size}"
        )


def _check_towers(config: Config, place: Place, towers: tuple[torch.device, ...]) -> None:
    if len(towers) > config.batch_size:
        raise ConfigError(
            f"towers: expected at most one for each of the {config.batch_size} examples of a "
            f"batch, found {len(towers)}"
        )
    devices = len(set(towers))
    if config.sync_batch_norm and devices < len(towers) and place.device.type != "cpu":
        raise ConfigError(
            f"sync_batch_norm: expected a device for each of {len(towers)} towers, since those "
            f"that share a GPU go backward in turn; found {devices}"
        )


def _steps_per_plan(config: Config, place: Place, team: Team) -> int:
    """Return for how many steps the host plans; this needs a single device fed from memory."""
    alone = not team.distributed and not config.towers and config.feed == "preloaded"
    wanted = config.steps_per_plan
    if wanted is None:
        return STEPS_PER_PLAN if alone and place.device.type == "cuda" else 1
    if wanted > 1 and team.distributed:
        raise ConfigError(
            f"steps_per_plan: {team.count} processes were started, and only one process alone "
            f"plans ahead; expected 1, found {wanted}"
        )
    if wanted > 1 and not alone:
        raise ConfigError(
            "steps_per_plan: only a single device whose feed is preloaded plans ahead; expected 1, "
            f"found {wanted}"
        )
    return wanted


def _check_compilation(config: Config, place: Place, steps_per_plan: int) -> None:
    if config.steps_per_plan == 1:
        raise ConfigError(
            "compile: only planned steps are compiled; expected steps_per_plan above 1, found 1"
        )
    if place.device.type != "cuda":
        raise ConfigError(
            f"compile: expected a GPU that torch calls cuda, found {place.device.type}; for a "
            "processor the networks have functions of their own. Leave it out."
        )
    if not HAS_TRITON:
        raise ConfigError(
            "compile: expected the package triton, which torch compiles with, found none. Install "
            "it, or leave this out."
        )
    if steps_per_plan == 1:
        raise ConfigError(
            "compile: only planned steps are compiled; expected one process and one GPU, training "
            "from memory, or steps_per_plan above 1. Leave it out."
        )
