"""Feeds: what gives the trainer the batch of a step. Four kinds behind one contract.

Given the same order (`shuffle.Shuffle`) all four give the same bytes: which examples a step sees
is a function of (seed, step), whatever came before it. A batch may be asked for in parts, each on
a device of its own; together they are the batch that one device would have seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from deepcnn.data.arrays import Arrays
from deepcnn.devices import Part, to_device
from deepcnn.events import Filling, Listener, ignore
from deepcnn.inputs.prefetch import Prefetch
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import HostBatch, Stream

PREFETCH = 4  # batches ready ahead of the trainer


@dataclass(frozen=True)
class Batch:
    """The examples of a step, or a part of them, on the device that trains on them.

    `images`: uint8 [B, H, W, C]; `labels`: int64 [B]; `index`: int64 [B], which examples these
    are; `epoch`, `position`: int64 [B], when they are seen, which is what random choices about
    them are functions of.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    epoch: Tensor
    position: Tensor


class Feed(ABC):
    """Gives the batch of a step, and stops what it has started.

    `in_memory`: the whole set is in memory, so that `places` and `take` may be asked; `fed_by`: the
    kind of source that Python gave, see `Fed.kind`, or None.
    """

    in_memory: ClassVar[bool] = False
    fed_by: str | None = None

    @abstractmethod
    def batch(self, step: int, part: Part) -> Batch:
        """Return a part of the batch of a step.

        The parts of a step are asked for one after another, by one thread at a time. Going on with
        the next step is fast, any other possible.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop all threads and wait for them."""

    def places(self, first_step: int, count: int, part: Part) -> tuple[Tensor, Tensor, Tensor]:
        """Return index, epoch and position of the batches of `count` steps: int64 [count, b]."""
        raise NotImplementedError

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return images and labels of these examples: int64 [b], on their device."""
        raise NotImplementedError

    def bring(self, device: torch.device) -> None:  # noqa: B027 (most feeds keep nothing there)
        """Bring to a device what will stay there."""

    def state(self, step: int) -> dict[str, Any] | None:  # noqa: ARG002
        """Return what a checkpoint of `step` steps must hold beside the step; None for nothing."""
        return None

    def restore(self, kind: str, state: dict[str, Any] | None) -> None:  # noqa: B027
        """Go on from a `state` of a source of this `kind`; raises RunError where that cannot be."""


class Preloaded(Feed):
    """Keeps the whole set in each device's memory, as uint8, and gathers batches from it."""

    in_memory = True

    def __init__(self, arrays: Arrays, shuffle: Shuffle, *, batch_size: int) -> None:
        self._arrays = arrays
        self._shuffle = shuffle
        self._batch_size = batch_size
        self._on: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @override
    def batch(self, step: int, part: Part) -> Batch:
        ((index,), (epoch,), (position,)) = self.places(step, 1, part)
        images, labels = self.take(index)
        return Batch(images, labels, index, epoch, position)

    @override
    def places(self, first_step: int, count: int, part: Part) -> tuple[Tensor, Tensor, Tensor]:
        found = np.stack(self._shuffle.batch(first_step, self._batch_size, steps=count))
        mine = part.of(found.reshape(3, count, -1), axis=2)
        index, epoch, position = to_device(np.ascontiguousarray(mine), part.device)
        return index, epoch, position

    @override
    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = self._there(index.device)
        return images.index_select(0, index), labels.index_select(0, index)

    @override
    def bring(self, device: torch.device) -> None:
        self._there(device)

    def _there(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return images and labels of the whole set on a device, which keeps them."""
        if device not in self._on:
            images = torch.from_numpy(self._arrays.images).to(device)
            labels = torch.from_numpy(self._arrays.labels).to(device)
            # What is asked for as "cuda" lies on "cuda:0".
            self._on[device] = self._on[images.device] = images, labels
        return self._on[device]

    @override
    def close(self) -> None:
        pass


class Streamed(Feed):
    """Reads files in a thread through the composable steps of `stream`, in constant memory."""

    def __init__(self, stream: Stream, *, batch_size: int) -> None:
        self._stream = stream
        self._batch_size = batch_size
        self._batches: Prefetch[HostBatch] | None = None
        self._step = -1  # whose batch was read last
        self._batch: HostBatch | None = None

    @override
    def batch(self, step: int, part: Part) -> Batch:
        # a step that is neither the one of the call before nor the next starts the reading anew
        if step != self._step or self._batch is None:
            self._batch = self._read(step)
            self._step = step
        return part_of(self._batch, part)

    def _read(self, step: int) -> HostBatch:
        if self._batches is None or step != self._step + 1:
            self.close()
            batches = self._stream.batch(self._batch_size, first_step=step)
            self._batches = Prefetch(batches, ahead=PREFETCH, name="deepcnn batches")
        return next(self._batches)

    @override
    def close(self) -> None:
        self._batch = None
        if self._batches is not None:
            self._batches.close()
            self._batches = None


class Queued(Streamed):
    """Reader threads fill a shuffling queue, as in the reference; `emit` hears of the filling.

    The stream must be one whose readers are threads. The first error of any of them is raised by
    `batch`, at the step that it belongs to, and stops the others.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        examples_in_queue: int,
        batch_size: int,
        emit: Listener = ignore,
    ) -> None:
        super().__init__(stream, batch_size=batch_size)
        self._filling = Filling(examples_in_queue)
        self._emit = emit

    def _read(self, step: int) -> HostBatch:
        if self._batches is None or step != self._step + 1:
            self._emit(self._filling)
        return super()._read(step)


def part_of(batch: HostBatch, part: Part) -> Batch:
    """Bring a part of a batch to its device."""
    return Batch(
        *(
            to_device(part.of(values), part.device)
            for values in (batch.images, batch.labels, batch.index, batch.epoch, batch.position)
        )
    )
