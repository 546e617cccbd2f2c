"""Pipelines: composable steps from files to batches.

A `Stream` is a training set on its way from files to batches. Its methods extract, map, filter,
flat_map, interleave, zip, cache, take, shuffle and repeat each return a new stream. Nothing is read
before batches are asked for. Memory holds only the shuffle buffer and the blocks on their way, for
any size of the files (except with `cache`).

    stream = Stream.of(source, seed=0).filter(lambda block: block[1] < 5).shuffle()
    for batch in stream.repeat(3).batch(128):
        batch.images, batch.labels

Functions are given a block (images, labels), arrays [k, …]. They should treat each example by
itself, since blocks may have any size. They must give the same output for the same input, since
resuming calls them again. `steps.py` says what each step does with an epoch, and what it keeps for
resuming.
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
    """A training set as a flow of examples, which is a function of the epoch.

    `step`: the last step of the pipeline. `order`: seed, readers and buffer of `shuffle`.
    `by_step`: whether its batches are functions of the step alone; this is so for extract, map and
    shuffle. `epochs`: after how many epochs it ends, None for never.
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

        `readers`: how many places in the files are read in turn. `buffer`: how many examples
        `shuffle` chooses the next one from.
        """
        order = Shuffle.of(source.shards, seed=seed, readers=readers, buffer=buffer)
        return cls.extract(source.shards, order)

    @classmethod
    def extract(cls, shards: Sequence[Shard], shuffle: Shuffle, *, threads: bool = False) -> Stream:
        """Read the shards, in the order that the readers of `shuffle` have.

        With `threads` each reader is a thread, which reads a few blocks ahead. The order stays the
        same.
        """
        return cls(Extract(shards, shuffle, threads), shuffle)

    def map(self, function: Callable[[Any], Any]) -> Stream:
        """Change each block: (images, labels) to as many examples.

        The result may be of any type and shape. A training takes uint8 images of the set's shape
        or, with `Fed(…, prepared=True)`, the network's input.
        """
        return Stream(Map(self.step, function), self.order, self.by_step, self.epochs)

    def filter(self, function: Callable[[Any], Any]) -> Stream:
        """Keep the examples for which the function gives True: bool [k] for a block."""
        return self._then(Filter(self.step, function))

    def flat_map(self, function: Callable[..., Any]) -> Stream:
        """Make any number of examples of one: (image, label) to arrays of equal length."""
        return self._then(FlatMap(self.step, function))

    def interleave(self, *others: Stream, length: int = 1) -> Stream:
        """Take `length` examples of each stream in turn, this one first, until all have ended."""
        _at_least_one("interleave: length", length)
        steps = (self.step, *(other.step for other in others))
        return self._then(Interleave(steps, length), *others)

    def zip(self, *others: Stream) -> Stream:
        """Put the blocks of others beside its own: (images, labels, their images, their labels …).

        A `map` then makes (images, labels) of them. An epoch ends when the shortest stream ends.
        """
        return self._then(Zip((self.step, *(other.step for other in others))), *others)

    def cache(self) -> Stream:
        """Read and compute the first epoch once, keep it in memory, and repeat it every epoch."""
        return self._then(Cache(self.step))

    def take(self, count: int) -> Stream:
        """End each epoch after this many examples."""
        _at_least_one("take", count)
        return self._then(Take(self.step, count))

    def shuffle(self) -> Stream:
        """Send each epoch through the shuffle buffer."""
        return Stream(Mix(self.step, self.order), self.order, self.by_step, self.epochs)

    def repeat(self, epochs: int) -> Stream:
        """End after this many epochs; without `repeat` a stream never ends."""
        _at_least_one("repeat", epochs)
        return Stream(self.step, self.order, self.by_step, epochs)

    def batch(self, size: int, *, first_step: int = 0, remainder: Remainder = "join") -> Batches:
        """Return the batches of `size` examples, from `first_step` on.

        `remainder`: what happens at the end of an epoch to examples that are too few for a batch.
        join: the next epoch's examples fill the batch; only the very last batch is smaller. keep:
        they are a smaller batch. drop: they are left out.

        The examples before `first_step` are read and skipped at once: those of its epoch, or, if
        `by_step` is false, those of all epochs before it, too.
        """
        _at_least_one("batch: size", size)
        return Batches(self, size, first_step, remainder)

    def _then(self, step: Step, *others: Stream) -> Stream:
        limits = [each.epochs for each in (self, *others) if each.epochs is not None]
        return Stream(step, self.order, False, min(limits, default=None))


class Batches(Iterator[HostBatch]):
    """The batches of a stream. They can stop before any batch and go on there later.

    `state_dict` gives a few numbers that JSON can hold. After `load_state_dict` of these numbers,
    with the same stream and batch size, the very same batches follow. If you do not read it to its
    end, close it.
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
        """Return the present place: epoch, position, and the state of the steps."""
        state = None if self._taker is None else self._taker.state()
        return {"epoch": self._epoch, "position": self._position, "steps": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a place that `state_dict` gave."""
        self.close()
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._taker, self._closed = None, False
        if state["steps"] is not None:
            self._taker = Taker(self._stream.step, self._epoch, state["steps"])

    def close(self) -> None:
        """Close the files, and stop the threads that read them. No batch follows."""
        if self._taker is not None:
            self._taker.close()
        self._closed = True

    def _pass_over(self, steps: int) -> None:
        """Go to a step. If its place is not known, make all batches before it."""
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
        """Take this many examples, or fewer if an epoch or the stream ends; None at its end."""
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
