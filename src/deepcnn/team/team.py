"""The processes that work on one training: here, only this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from deepcnn.devices import Place, Precision
from deepcnn.events import Listener

T = TypeVar("T")


class Team:
    """The processes that work on one training; here only this one.

    One of them `writes`: it keeps the run's directory and speaks to the user. `index` and `count`
    tell this process's share of a scoring. `distributed`: whether the processes average their
    gradients. This is also so for a single process that torchrun has started.
    """

    writes = True
    distributed = False
    index = 0
    count = 1

    def once(self, make: Callable[[], T]) -> T:
        """Let one process, the one that writes, do something; all get the result or the error.

        The result must be a plain value that can be sent.
        """
        return make()

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes of tensors on the CPU."""
        return values

    def gather(self, value: T) -> list[T]:
        """Return what each process brings, a value that can be sent, by its index."""
        return [value]

    def any(self, flag: bool) -> bool:
        """Tell whether any process says so. All hear the same, perhaps one call late."""
        return flag

    def listener(self, emit: Listener) -> Listener:
        """Return the listener to which this process tells its events."""
        return emit

    def job(self) -> str | None:
        """Return what identifies the job that starts, and may restart, these processes."""
        return None

    def place(
        self, device: str, precision: Literal["auto"] | Precision, threads: int | None
    ) -> Place:
        """Choose where this process computes, and how many processor threads it uses."""
        if threads is not None:
            torch.set_num_threads(threads)
        return Place.choose(device, precision)

    def describe(self, towers: int) -> dict[str, Any]:
        """Return what a run's numbers depend on, beside the environment of a process."""
        return {"processes": self.count, "towers": towers}
