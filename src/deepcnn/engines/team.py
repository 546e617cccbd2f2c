"""The processes that work on one training, and the engine that suits them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from deepcnn.devices import Place, Precision
from deepcnn.engines.planned import Planned
from deepcnn.engines.single import Engine, Job, Single
from deepcnn.engines.towers import Towers
from deepcnn.errors import ConfigError
from deepcnn.events import Listener
from deepcnn.state import TrainState

T = TypeVar("T")


class Team:
    """The processes that work on one training; here: this one alone.

    One of them `writes`: it keeps the run's directory and speaks to the user. `index` and `count`
    say which share of a scoring is this process's. `plans`: whether its engine plans steps.
    """

    writes = True
    plans = True
    index = 0
    count = 1

    def once(self, make: Callable[[], T]) -> T:
        """Let one process, the one that writes, do something; all get the result or the error.

        What it makes is a plain value that can be sent.
        """
        return make()

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes of tensors on the CPU."""
        return values

    def any(self, flag: bool) -> bool:
        """Tell whether any process says so. All hear the same, perhaps one call late."""
        return flag

    def listener(self, emit: Listener) -> Listener:
        """Return what this process tells its events to."""
        return emit

    def job(self) -> str | None:
        """Return what identifies the job that starts, and may restart, these processes."""
        return None

    def place(
        self, device: str, precision: Literal["auto"] | Precision, threads: int | None
    ) -> Place:
        """Choose where this process computes, and settle how many processor threads it takes."""
        if threads is not None:
            torch.set_num_threads(threads)
        return Place.choose(device, precision)

    def check(
        self,
        place: Place,
        *,
        batch_size: int,  # noqa: ARG002 (processes' matter)
        towers: int,
        sync_batch_norm: bool,
        steps_per_plan: int,  # noqa: ARG002
    ) -> None:
        """Raise ConfigError for what this team cannot do."""
        devices = len(set(_devices_of(place.device, towers)))
        if sync_batch_norm and devices < towers and place.device.type != "cpu":
            raise ConfigError(
                f"sync_batch_norm: expected a device for each of {towers} towers, since those that "
                f"share a GPU go backward in turn; found {devices}"
            )

    def engine(self, state: TrainState, place: Place, job: Job, *, towers: int) -> Engine:
        """Make the engine; `towers` is 0 for a single device."""
        if not towers:
            return (Planned if job.steps_per_plan > 1 else Single)(state, place, job)
        return Towers(state, place, job, _devices_of(place.device, towers))

    def describe(self, towers: int) -> dict[str, Any]:
        """Return what a run's numbers depend on beside a process's own environment."""
        return {"processes": self.count, "towers": towers}


def _devices_of(device: torch.device, towers: int) -> tuple[torch.device, ...]:
    """Return a device for each tower: all GPUs in turn, or the one that was asked for."""
    if device.type != "cuda" or device.index is not None:
        return (device,) * towers
    count = torch.cuda.device_count()
    return tuple(torch.device("cuda", i % count) for i in range(towers))
