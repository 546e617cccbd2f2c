"""Pipelines: composable steps from files to batches.

A `Stream` is a training set on its way: extract, map, filter, flat_map, interleave, zip, cache,
take, shuffle, repeat; each makes a new stream of it. Nothing is read before batches are asked for,
and memory is bounded by the shuffle buffer and the blocks on their way, whatever the size of the
files (but for `cache`).

    stream = Stream.of(source, seed=0).filter(lambda block: block[1] < 5).shuffle()
    for batch in stream.repeat(3).batch(128):
        batch.images, batch.labels

Functions are given a block (images, labels), arrays [k, …], and should treat each example alone:
how large blocks are is not told. They must give the same for the same, since going on calls them
again. What each step does with an epoch, and what it keeps to go on, is in `steps.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.shards import Shard
from deepcnn.data.source import Source
from deepcnn.errors import ConfigError, DataError
from deepcnn.inputs.flows import Step, Taker, join
from deepcnn.inputs.shuffle import Columns, Int64s, Shuffle
from deepcnn.inputs.steps import Cache, Extract, Filter, FlatMap, Interleave, Map, Mix, Take, Zip

Remainder = Literal["join", "keep", "drop"]


@dataclass(frozen=True)
class HostBatch:
    """The batch of a step in the host's memory: see `feeds.Batch` for the fields."""

    images: NDArray[Any]
    labels: Int64s
    index: Int64s
    epoch: Int64s
    position: Int64s

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Stream:
    """A training set as a flow of examples, a function of the epoch.

    `step`: the last step of the pipeline; `order`: seed, readers and buffer of `shuffle`;
    `by_step`: whether its batches are functions of the step alone, as those of extract, map and
    shuffle are; `epochs`: after how many it ends, None for never.
    """

    step: Step
    order: Shuffle
    by_step: bool = True
    epochs: int | None = None

    @classmethod
    def of(
        cls, source: Source, *, seed: int = 0, readers: int = 16, buffer: int = 20_000
    ) -> Stream:
        """Read a split of a data set, as `open_dataset(…).split("train")` is one.

        `readers`: places in the files that are read from in turn; `buffer`: examples among which
        `shuffle` chooses the next one.
        """
        order = Shuffle.of(source.shards, seed=seed, readers=readers, buffer=buffer)
        return cls.extract(source.shards, order)

    @classmethod
    def extract(cls, shards: Sequence[Shard], shuffle: Shuffle, *, threads: bool = False) -> Stream:
        """Read the shards, in the order of the readers of `shuffle`, which was made for them.

        With `threads` each reader is a thread, ahead of the others' turns by a few blocks; the
        order is the same.
        """
        return cls(Extract(shards, shuffle, threads), shuffle)

    def map(self, function: Callable[[Any], Any]) -> Stream:
        """Change each block: from (images, labels) to as many of them.

        What it gives may be of any type and shape; a training takes uint8 images of the set's shape
        or, `Fed(…, prepared=True)`, the network's input.
        """
        return Stream(Map(self.step, function), self.order, self.by_step, self.epochs)

    def filter(self, function: Callable[[Any], Any]) -> Stream:
        """Keep the examples of a block for which the function gives True: bool [k]."""
        return self._then(Filter(self.step, function))

    def flat_map(self, function: Callable[..., Any]) -> Stream:
        """Make several examples of one, or none: (image, label) to arrays of any equal length."""
        return self._then(FlatMap(self.step, function))

    def interleave(self, *others: Stream, length: int = 1) -> Stream:
        """Take `length` examples of this one and of the others in turn, until all have ended."""
        _at_least_one("interleave: length", length)
        steps = (self.step, *(other.step for other in others))
        return self._then(Interleave(steps, length), *others)

    def zip(self, *others: Stream) -> Stream:
        """Put what others give beside it: blocks (images, labels, their images, their labels …).

        A `map` then makes (images, labels) of them. An epoch ends with the shortest one.
        """
        return self._then(Zip((self.step, *(other.step for other in others))), *others)

    def cache(self) -> Stream:
        """Read and compute the first epoch once, keep it in memory, and give it every epoch."""
        return self._then(Cache(self.step))

    def take(self, count: int) -> Stream:
        """End each epoch after so many examples."""
        _at_least_one("take", count)
        return self._then(Take(self.step, count))

    def shuffle(self) -> Stream:
        """Send each epoch through the shuffle buffer."""
        return Stream(Mix(self.step, self.order), self.order, self.by_step, self.epochs)

    def repeat(self, epochs: int) -> Stream:
        """End after so many epochs; without it a stream never ends."""
        _at_least_one("repeat", epochs)
        return Stream(self.step, self.order, self.by_step, epochs)

    def batch(self, size: int, *, first_step: int = 0, remainder: Remainder = "join") -> Batches:
        """Return the batches of `size` examples of `first_step` and of every step after it.

        `remainder`: what becomes of the examples at the end of an epoch that are too few for a
        batch: the next epoch follows without a seam, and only the last batch of all is smaller
        (join); they are a smaller batch (keep); or they are left out (drop). What comes before
        `first_step` is read and passed over at once: of its epoch, or where `by_step` is not true
        of all before.
        """
        _at_least_one("batch: size", size)
        return Batches(self, size, first_step, remainder)

    def _then(self, step: Step, *others: Stream) -> Stream:
        limits = [each.epochs for each in (self, *others) if each.epochs is not None]
        return Stream(step, self.order, False, min(limits, default=None))


class Batches(Iterator[HostBatch]):
    """The batches of a stream, which can stop before any of them and go on there.

    `state_dict` gives a few numbers, fit for JSON; after `load_state_dict` of these, of the same
    stream and the same size, the very same batches follow. Close it when it is not read to its end.
    """

    def __init__(self, stream: Stream, size: int, first_step: int, remainder: Remainder) -> None:
        self._stream, self._size, self._remainder = stream, size, remainder
        self._epoch = self._position = 0  # of the next example
        self._taker: Taker | None = None
        self._closed = False
        try:
            self._pass_over(first_step)
        except BaseException:
            self.close()
            raise

    def __next__(self) -> HostBatch:
        if self._closed:
            raise StopIteration
        found = self._take(self._size)
        while found is not None and len(found) < self._size and self._remainder == "drop":
            found = self._take(self._size)
        if found is None:
            raise StopIteration
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return where it stands: epoch, position, and the state of the steps."""
        state = None if self._taker is None else self._taker.state()
        return {"epoch": self._epoch, "position": self._position, "steps": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.close()
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._taker, self._closed = None, False
        if state["steps"] is not None:
            self._taker = Taker(self._stream.step, self._epoch, state["steps"])

    def close(self) -> None:
        """Close the files, and stop the threads that read them; no batch follows."""
        if self._taker is not None:
            self._taker.close()
        self._closed = True

    def _pass_over(self, steps: int) -> None:
        """Go to a step. Where its place is not known, all before it is made."""
        examples = self._stream.step.examples
        if not (self._stream.by_step and self._remainder == "join" and examples):
            for _ in range(steps):
                next(self, None)
            return
        self._epoch, self._position = divmod(steps * self._size, examples)
        left = self._position
        if left and not self._is_over():
            self._taker = Taker(self._stream.step, self._epoch)
            while left and (have := min(self._taker.have(), left)):
                self._taker.take(have)
                left -= have

    def _is_over(self) -> bool:
        return self._stream.epochs is not None and self._epoch >= self._stream.epochs

    def _take(self, count: int) -> HostBatch | None:
        """Take so many examples, or fewer where an epoch or the stream ends; None at its end."""
        parts: list[Columns] = []
        places: list[tuple[int, int, int]] = []  # epoch, first and last position
        left = count
        while left and not self._is_over():
            if self._taker is None:
                self._taker = Taker(self._stream.step, self._epoch)
            have = min(self._taker.have(), left)
            if have:
                parts.append(self._taker.take(have))
                places.append((self._epoch, self._position, self._position + have))
                self._position, left = self._position + have, left - have
                continue
            self._end_epoch()
            if parts and self._remainder != "join":
                break
        if not parts:
            return None
        epochs = [np.full(stop - start, epoch, np.int64) for epoch, start, stop in places]
        positions = [np.arange(start, stop, dtype=np.int64) for _, start, stop in places]
        columns = join("batch", parts)
        if len(columns) != 3:
            raise DataError(
                f"batch: expected images and labels, found {len(columns) - 1} arrays for each "
                "example. Bring them together by map."
            )
        index, images, labels = columns
        epoch, position = np.concatenate(epochs), np.concatenate(positions)
        return HostBatch(images, labels, index, epoch, position)

    def _end_epoch(self) -> None:
        if self._taker is not None:
            self._taker.close()
            self._taker = None
        needed = self._size if self._remainder == "drop" else 1
        if self._position < needed and self._epoch + 1 != self._stream.epochs:
            raise DataError(
                f"stream: expected at least {needed} examples in each epoch, found "
                f"{self._position} in epoch {self._epoch}"
            )
        self._epoch, self._position = self._epoch + 1, 0


def _at_least_one(what: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{what}: expected at least 1, found {value}")
