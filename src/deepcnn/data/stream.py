"""Composable steps from files to batches: extract, map, shuffle, batch, prefetch.

A `Stream` is a function of the epoch that yields blocks of examples; each step makes a new one
of it. Nothing is read before the batches are asked for, and memory is bounded by the shuffle
buffer and the blocks on their way, whatever the size of the files.

    batches = Stream.extract(shards, shuffle).map(f).shuffle().batch(128, first_step=0)
    ahead = Prefetch(batches, ahead=4, name="batches")  # in a thread; close it in the end
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from deepcnn.data import order
from deepcnn.data.shards import Block, Shard
from deepcnn.data.shuffle import Columns, Int64s, Piece, Shuffle, in_turn

AHEAD = 2  # blocks that a reader thread may be ahead of whoever takes them

T = TypeVar("T")
Flow = Generator[Columns, None, None]


@dataclass(frozen=True)
class HostBatch:
    """The batch of a step in the host's memory: see `feeds.Batch` for the fields."""

    images: NDArray[np.uint8]
    labels: Int64s
    index: Int64s
    epoch: Int64s
    position: Int64s


class Stream:
    """A training set as a flow of blocks (index, images, labels), a function of the epoch."""

    def __init__(self, shuffle: Shuffle, epoch: Callable[[int], Flow]) -> None:
        self._shuffle = shuffle
        self._epoch = epoch

    @classmethod
    def extract(cls, shards: Sequence[Shard], shuffle: Shuffle, *, threads: bool = False) -> Stream:
        """Read the shards, in the order of the readers of `shuffle`, which was made for them.

        With `threads` each reader is a thread, ahead of the others' turns by a few blocks; the
        order is the same.
        """

        def read(pieces: list[Piece]) -> Flow:
            for piece in pieces:
                reading = shards[piece.shard].blocks(piece.start, piece.stop, shuffle.block)
                with closing(reading) as blocks:
                    for index, (images, labels) in zip(shuffle.indices(piece), blocks, strict=True):
                        yield index, images, labels

        def epoch(number: int) -> Flow:
            with ExitStack() as stack:
                readers: list[Iterator[Columns]] = []
                for i, pieces in enumerate(shuffle.pieces(number)):
                    reader: Flow | Prefetch[Columns] = read(pieces)
                    if threads:
                        reader = Prefetch(reader, ahead=AHEAD, name=f"reader {i}")
                    readers.append(stack.enter_context(closing(reader)))
                yield from in_turn(readers)

        return cls(shuffle, epoch)

    def map(self, function: Callable[[Block], Block]) -> Stream:
        """Apply a function to each block of images and labels."""

        def epoch(number: int) -> Flow:
            with closing(self._epoch(number)) as blocks:
                for index, images, labels in blocks:
                    yield index, *function((images, labels))

        return Stream(self._shuffle, epoch)

    def shuffle(self) -> Stream:
        """Send each epoch through the shuffle buffer."""

        def epoch(number: int) -> Flow:
            with closing(self._epoch(number)) as blocks:
                yield from self._shuffle.mix(number, blocks)

        return Stream(self._shuffle, epoch)

    def batch(self, size: int, *, first_step: int) -> Generator[HostBatch, None, None]:
        """Yield the batches of `first_step` and of every step after it, without an end.

        Batches are full, and the next epoch follows without a seam. What comes before the first
        step in its epoch is read and passed over.
        """
        first_epoch, skip = divmod(first_step * size, self._shuffle.examples)
        waiting: deque[Columns] = deque()
        have, step, epoch = 0, first_step, first_epoch
        while True:
            with closing(self._epoch(epoch)) as blocks:
                for block in blocks:
                    if skip >= len(block[0]):
                        skip -= len(block[0])
                        continue
                    waiting.append(tuple(column[skip:] for column in block))
                    have += len(waiting[-1][0])
                    skip = 0
                    while have >= size:
                        index, images, labels = _take(waiting, size)
                        have -= size
                        yield HostBatch(
                            images,
                            labels,
                            index,
                            *order.places(step, size, self._shuffle.examples),
                        )
                        step += 1
            epoch += 1


def _take(waiting: deque[Columns], size: int) -> Columns:
    """Remove the first `size` examples from `waiting`, which has as many, and join them."""
    parts: list[Columns] = []
    while size:
        block = waiting.popleft()
        count = len(block[0])
        if count > size:
            waiting.appendleft(tuple(column[size:] for column in block))
            block = tuple(column[:size] for column in block)
            count = size
        parts.append(block)
        size -= count
    if len(parts) == 1:
        return parts[0]
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


class Prefetch(Iterator[T]):
    """Runs an iterator in a thread, at most `ahead` items before whoever takes them.

    An error of the iterator is raised where its next item would have come. `close` stops the
    thread, closes the iterator and waits until both have happened.
    """

    def __init__(self, iterator: Iterator[T], *, ahead: int, name: str) -> None:
        self._iterator = iterator
        self._ahead = ahead
        self._items: deque[T] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __next__(self) -> T:
        with self._changed:
            while not (self._items or self._ended):
                self._changed.wait()
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            raise StopIteration

    def close(self) -> None:
        """Stop; what was read ahead is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._items.clear()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._iterator:
                with self._changed:
                    while len(self._items) >= self._ahead and not self._closed:
                        self._changed.wait()
                    if self._closed:
                        break
                    self._items.append(item)
                    self._changed.notify_all()
        except BaseException as caught:  # it is raised in the thread that takes the items
            error = caught
        finally:
            close = getattr(self._iterator, "close", None)
            if close is not None:
                close()
            with self._changed:
                self._error, self._ended = error, True
                self._changed.notify_all()
