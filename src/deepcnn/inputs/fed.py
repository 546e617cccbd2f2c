"""The feed that Python hands its batches to, step by step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from deepcnn.data.arrays import Arrays
from deepcnn.devices import Part
from deepcnn.errors import DataError, RunError
from deepcnn.inputs.feeds import Batch, Feed, Streamed, part_of
from deepcnn.inputs.shuffle import Int64s, Shuffle, places
from deepcnn.inputs.stream import HostBatch, Stream

STATES = 16  # states of a source that are kept: of more steps than anyone reads ahead
FedBatch = tuple[Any, Any] | tuple[Any, Any, Any]
FeedSource = Callable[[int], FedBatch] | Iterable[FedBatch] | Stream


@runtime_checkable
class _Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Fed(Feed):
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
        self.fed_by = self.kind

    @override
    def batch(self, step: int, part: Part) -> Batch:
        if step != self._step or self._batch is None:
            found = self._source(step) if callable(self._source) else self._following(step)
            images, labels, index = self._check(step, found)
            epoch, position = places(step, self._batch_size, self._examples)
            index = position if index is None else index
            self._step, self._batch = step, HostBatch(images, labels, index, epoch, position)
            if isinstance(self._source, _Stateful):
                self._states[step + 1] = self._snapshot(self._source)
                self._states.pop(step + 1 - STATES, None)
        return part_of(self._batch, part)

    @override
    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()

    @override
    def state(self, step: int) -> dict[str, Any] | None:
        # what it was then: batches may have been handed over for a few steps beyond
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

    @override
    def restore(self, kind: str, state: dict[str, Any] | None) -> None:
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
