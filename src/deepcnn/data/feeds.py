"""Feeds: what gives the trainer the batch of a step. Four kinds behind one contract.

Given the same order (`shuffle.Shuffle`) all four give the same bytes: which examples a step sees
is a function of (seed, step), whatever came before it. A batch may be asked for in parts, each on
a device of its own; together they are the batch that one device would have seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from deepcnn.data import order
from deepcnn.data.arrays import Arrays
from deepcnn.data.shuffle import Int64s, Shuffle
from deepcnn.data.stream import HostBatch, Prefetch, Stream
from deepcnn.devices import Part, to_device
from deepcnn.errors import DataError, RunError
from deepcnn.events import Filling, Listener, ignore

PREFETCH = 4  # batches ready ahead of the trainer
STATES = 16  # states of a source that are kept: of more steps than anyone reads ahead


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


class Feed(Protocol):
    """Gives the batch of a step, and stops what it has started."""

    def batch(self, step: int, part: Part) -> Batch:
        """Return a part of the batch of a step.

        The parts of a step are asked for one after another, by one thread at a time. Going on with
        the next step is fast, any other possible.
        """

    def close(self) -> None:
        """Stop all threads and wait for them."""


class Preloaded:
    """Keeps the whole set in each device's memory, as uint8, and gathers batches from it."""

    def __init__(self, arrays: Arrays, shuffle: Shuffle, *, batch_size: int) -> None:
        self._arrays = arrays
        self._shuffle = shuffle
        self._batch_size = batch_size
        self._on: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def batch(self, step: int, part: Part) -> Batch:
        """Return a part of the batch of a step."""
        ((index,), (epoch,), (position,)) = self.places(step, 1, part)
        images, labels = self.take(index)
        return Batch(images, labels, index, epoch, position)

    def places(self, first_step: int, count: int, part: Part) -> tuple[Tensor, Tensor, Tensor]:
        """Return index, epoch and position of the batches of `count` steps: int64 [count, b]."""
        found = np.stack(self._shuffle.batch(first_step, self._batch_size, steps=count))
        mine = found.reshape(3, count, -1)[:, :, part.slice(self._batch_size)]
        index, epoch, position = to_device(np.ascontiguousarray(mine), part.device)
        return index, epoch, position

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return images and labels of these examples: int64 [b], on their device."""
        images, labels = self.bring(index.device)
        return images.index_select(0, index), labels.index_select(0, index)

    def bring(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return images and labels of the whole set on a device, which keeps them."""
        if device not in self._on:
            images = torch.from_numpy(self._arrays.images).to(device)
            labels = torch.from_numpy(self._arrays.labels).to(device)
            # What is asked for as "cuda" lies on "cuda:0".
            self._on[device] = self._on[images.device] = images, labels
        return self._on[device]

    def close(self) -> None:
        """Do nothing: there is no thread."""


class Streamed:
    """Reads files in a thread through the composable steps of `stream`, in constant memory."""

    def __init__(self, stream: Stream, *, batch_size: int) -> None:
        self._stream = stream
        self._batch_size = batch_size
        self._batches: Prefetch[HostBatch] | None = None
        self._step = -1  # whose batch was read last
        self._batch: HostBatch | None = None

    def batch(self, step: int, part: Part) -> Batch:
        """Return a part of the batch of a step.

        A step that is neither the one of the call before nor the next starts the reading anew.
        """
        if step != self._step or self._batch is None:
            self._batch = self._read(step)
            self._step = step
        return _to_device(self._batch, part)

    def _read(self, step: int) -> HostBatch:
        if self._batches is None or step != self._step + 1:
            self.close()
            batches = self._stream.batch(self._batch_size, first_step=step)
            self._batches = Prefetch(batches, ahead=PREFETCH, name="deepcnn batches")
        return next(self._batches)

    def close(self) -> None:
        """Stop all threads and wait for them."""
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


FedBatch = tuple[Any, Any] | tuple[Any, Any, Any]
FeedSource = Callable[[int], FedBatch] | Iterable[FedBatch] | Stream


@runtime_checkable
class _Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Fed:
    """Python hands over each batch: a function of the step, an iterable, or a `Stream`.

    A batch is (images, labels) or (images, labels, index), as NumPy arrays or torch tensors:
    images uint8 [batch_size, *shape], labels any integers [batch_size] from 0 to classes - 1,
    index (which examples these are, for whoever distorts an example the same way each epoch)
    likewise; without it an example is known by its place in the epoch of `examples`.

    An iterable is asked again for an iterator when it has ended; an iterator that ends is an
    error. A stream's batches are read ahead in a thread, which `close` ends. `kind` tells how far
    it can be resumed: "function", as a stream is one too, from any step; "stateful", which has
    `state_dict()` fit for JSON and `load_state_dict()`, from a checkpoint; "iterator" not at all.
    """

    def __init__(
        self,
        source: FeedSource,
        *,
        batch_size: int,
        shape: tuple[int, int, int],
        classes: int,
        examples: int,
    ) -> None:
        self._stream: Streamed | None = None
        if isinstance(source, Stream):
            stream = Streamed(source, batch_size=batch_size)
            whole = Part(0, 1, torch.device("cpu"))
            self._stream, source = stream, lambda step: _columns(stream.batch(step, whole))
        self._source = source
        self._batch_size = batch_size
        self._shape = shape
        self._classes = classes
        self._examples = examples
        self._iterator: Iterator[FedBatch] | None = None
        self._step = -1  # whose batch was handed over last
        self._batch: HostBatch | None = None
        self._states: dict[int, str] = {}  # of a stateful source, before these steps; JSON
        self.kind: Literal["function", "stateful", "iterator"]
        if isinstance(source, _Stateful):
            self.kind = "stateful"
        elif callable(source):
            self.kind = "function"
        elif isinstance(source, Iterable):
            self.kind = "iterator"
        else:
            raise DataError(
                "feed: expected a function of the step, an iterator or an iterable of batches, "
                f"found {type(source).__name__}"
            )

    def batch(self, step: int, part: Part) -> Batch:
        """Return a part of the batch of a step; of an iterable, of the next one."""
        if step != self._step or self._batch is None:
            found = self._source(step) if callable(self._source) else self._following(step)
            images, labels, index = self._check(step, found)
            epoch, position = order.places(step, self._batch_size, self._examples)
            index = position if index is None else index
            self._step, self._batch = step, HostBatch(images, labels, index, epoch, position)
            if isinstance(self._source, _Stateful):
                self._states[step + 1] = self._snapshot(self._source)
                self._states.pop(step + 1 - STATES, None)
        return _to_device(self._batch, part)

    def close(self) -> None:
        """Close the iterator, where it can be closed, or the stream."""
        if self._stream is not None:
            self._stream.close()
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()

    def state(self, step: int) -> dict[str, Any] | None:
        """Return what a checkpoint of `step` steps must hold of the source; None for nothing.

        That is what it was then: batches may have been handed over for a few steps beyond.
        """
        if not isinstance(self._source, _Stateful):
            return None
        state: dict[str, Any] = json.loads(self._states[step])
        return state

    def _snapshot(self, source: _Stateful) -> str:
        try:
            return json.dumps(source.state_dict())
        except (TypeError, ValueError) as error:
            raise DataError(
                f"feed: expected {type(source).__name__}.state_dict() to give what JSON can "
                f"hold ({error})"
            ) from error

    def restore(self, kind: str, state: dict[str, Any] | None) -> None:
        """Go on from a `state` of a source of this `kind`; raises RunError where that cannot be."""
        if kind == "iterator":
            raise RunError(
                "feed: this run was fed by an iterator that is no function of the step and has no "
                "state_dict, so nobody knows where it stood; it cannot be resumed. Start a new run."
            )
        if kind != self.kind:
            raise RunError(
                f"feed: expected a {kind} source, which this run was fed by, found {self.kind}"
            )
        if isinstance(self._source, _Stateful) and state is not None:
            self._source.load_state_dict(state)

    def _following(self, step: int) -> Any:
        assert not callable(self._source)
        if self._iterator is None:
            self._iterator = iter(self._source)
        for found in self._iterator:
            return found
        if self._iterator is not self._source:
            self._iterator = iter(self._source)
            for found in self._iterator:
                return found
        raise DataError(
            f"feed: step {step}: expected {self._expected()}, found the end of the iterator. Give "
            "one that does not end, or fewer --steps."
        )

    def _check(self, step: int, found: Any) -> tuple[np.ndarray[Any, Any], Int64s, Int64s | None]:
        def fail(what: str) -> DataError:
            return DataError(f"feed: step {step}: expected {self._expected()}, found {what}")

        if not isinstance(found, (tuple, list)) or len(found) not in (2, 3):
            raise fail(
                "nothing"
                if found is None
                else f"{type(found).__name__}"
                + (f" of {len(found)}" if isinstance(found, (tuple, list)) else "")
            )
        arrays = [np.asarray(part.cpu() if isinstance(part, Tensor) else part) for part in found]
        images = arrays[0]
        if images.dtype != np.uint8 or images.shape != (self._batch_size, *self._shape):
            raise fail(f"images {images.dtype} {list(images.shape)}")
        for name, numbers in zip(("labels", "index"), arrays[1:], strict=False):
            if numbers.dtype.kind not in "iu" or numbers.shape != (self._batch_size,):
                raise fail(f"{name} {numbers.dtype} {list(numbers.shape)}")
        labels, *index = (numbers.astype(np.int64) for numbers in arrays[1:])
        outside = labels[(labels < 0) | (labels >= self._classes)]
        if outside.size:
            raise fail(f"the label {outside[0]}")
        return images, labels, index[0] if index else None

    def _expected(self) -> str:
        images = [self._batch_size, *self._shape]
        return f"(images uint8 {images}, labels [{self._batch_size}] of 0 to {self._classes - 1})"


def _columns(batch: Batch) -> FedBatch:
    return batch.images, batch.labels, batch.index


def from_arrays(arrays: Arrays, shuffle: Shuffle, batch_size: int) -> Callable[[int], FedBatch]:
    """Return a function of the step that feeds a set in memory, as the reference's MNIST does."""

    def feed(step: int) -> FedBatch:
        index, _, _ = shuffle.batch(step, batch_size)
        return arrays.images[index], arrays.labels[index], index

    return feed


def _to_device(batch: HostBatch, part: Part) -> Batch:
    mine = part.slice(len(batch.labels))
    return Batch(
        *(
            to_device(values[mine], part.device)
            for values in (batch.images, batch.labels, batch.index, batch.epoch, batch.position)
        )
    )
