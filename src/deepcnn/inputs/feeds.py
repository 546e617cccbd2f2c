"""Feeds, which give the trainer the batch of a step: four kinds with one interface.

With the same order (`shuffle.Shuffle`), all four give the same bytes: the examples of a step are a
function of (seed, step), whatever came before. A batch may be asked for in parts, each on its own
device. Together the parts are the batch that a single device would have seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from deepcnn.data.arrays import Arrays
from deepcnn.devices import Part, to_device
from deepcnn.errors import DataError
from deepcnn.inputs.prefetch import Prefetch
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import HostBatch, Stream

PREFETCH = 4  # batches ready ahead of the trainer
STATES = 16  # states of a source that are kept: of more steps than anyone reads ahead


@dataclass(frozen=True)
class Batch:
    """The examples of a step, or a part of them, on the device that trains on them.

    `images`: uint8 [B, H, W, C]; from a prepared feed the network's input, float32 [B, C, H, W].
    `labels`: int64 [B]. `index`: int64 [B], which examples these are. `epoch`, `position`: int64
    [B], when they are seen; random choices about them are functions of these.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    epoch: Tensor
    position: Tensor


class Feed(ABC):
    """Gives the batch of a step, and stops the threads that it has started.

    `in_memory`: the whole set is in memory, so `places` and `take` may be called. `prepared`: its
    images are the network's input already. `fed_by`: how Python feeds, see `fed.PythonFeed`, or
    None. `ends`: the number of steps that have batches, once it is known that batches end.
    """

    in_memory: ClassVar[bool] = False
    prepared: bool = False
    fed_by: str | None = None
    ends: int | None = None

    @abstractmethod
    def batch(self, step: int, part: Part) -> Batch:
        """Return a part of the batch of a step.

        The parts of a step are asked for one after another, by one thread at a time. Any step may
        be asked for; the one that comes next is fast.
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

    def look(self, step: int) -> None:  # noqa: B027 (most feeds never end)
        """Find out whether a step has a batch, before one is asked for, and set `ends`."""

    def bring(self, device: torch.device) -> None:  # noqa: B027 (most feeds keep nothing there)
        """Bring to a device the data that will stay there."""

    def state(self, step: int) -> dict[str, Any] | None:  # noqa: ARG002
        """Return what a checkpoint of `step` steps must store beside the step; None for nothing."""
        return None

    def restore(self, kind: str, state: dict[str, Any] | None) -> None:  # noqa: B027
        """Go on from a `state` of a source of this `kind`; raises RunError if it cannot."""


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
        """Return images and labels of the whole set on a device, where they stay."""
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
    """Reads files in a thread through the composable steps of `stream`, in constant memory.

    If the stream's readers are threads, it is the reference's queue. The first error in any thread
    stops the others; `batch` raises it, at the step that it belongs to.
    """

    def __init__(self, stream: Stream, *, batch_size: int) -> None:
        self._stream = stream
        self._batch_size = batch_size
        self._batches: Prefetch[tuple[HostBatch, dict[str, Any]]] | None = None
        self._step = -1  # whose batch was read last
        self._batch: HostBatch | None = None
        self._states: dict[int, dict[str, Any]] = {}  # of the stream, before these steps
        self._start: dict[str, Any] | None = None  # where the reading begins

    @override
    def batch(self, step: int, part: Part) -> Batch:
        found = self.read(step)
        if found is None:
            raise DataError(f"feed: step {step}: expected a batch, found the end of the stream")
        return part_of(found, part)

    def read(self, step: int) -> HostBatch | None:
        """Return the whole batch of a step; None if the stream has ended."""
        # a step that is neither the one of the call before nor the next starts the reading anew
        if step != self._step or self._batch is None:
            if self._batches is None or step != self._step + 1:
                self.close()
                self._batches = Prefetch(self._read(step), ahead=PREFETCH, name="deepcnn batches")
            self._step = step
            self._batch, after = next(self._batches, (None, {}))
            self._states[step + 1] = after
            self._states.pop(step + 1 - STATES, None)
        return self._batch

    def _read(self, step: int) -> Iterator[tuple[HostBatch, dict[str, Any]]]:
        """Yield the batches from a step on, each with the state of the stream after it."""
        begins = step if self._start is None else 0
        with closing(self._stream.batch(self._batch_size, first_step=begins)) as batches:
            if self._start is not None:
                batches.load_state_dict(self._start)
            self._start = None
            for batch in batches:
                yield batch, batches.state_dict()

    def state_before(self, step: int) -> dict[str, Any]:
        """Return the stream's place before the batch of a step, in a form that JSON can hold."""
        if not self._states:  # nothing was read
            with closing(self._stream.batch(self._batch_size, first_step=step)) as batches:
                return batches.state_dict()
        return self._states[step]

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Begin the next reading, for any step, at this place of the stream."""
        self.close()
        self._start = state

    @override
    def close(self) -> None:
        self._batch = None
        if self._batches is not None:
            self._batches.close()
            self._batches = None


def part_of(batch: HostBatch, part: Part) -> Batch:
    """Bring a part of a batch to its device."""
    return Batch(
        *(
            to_device(part.of(values), part.device)
            for values in (batch.images, batch.labels, batch.index, batch.epoch, batch.position)
        )
    )
