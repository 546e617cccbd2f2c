"""Composable steps from files to batches: extract, map, shuffle, batch, prefetch.

A `Stream` is a function of the epoch that yields blocks of examples; each step makes a new one
of it. Nothing is read before the batches are asked for, and memory is bounded by the shuffle
buffer and the blocks on their way, whatever the size of the files.

    batches = Stream.extract(shards, shuffle).map(f).shuffle().batch(128, first_step=0)
    ahead = Prefetch(batches, ahead=4, name="batches")  # in a thread; close it in the end
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.shards import Block, Shard
from deepcnn.inputs.prefetch import Prefetch
from deepcnn.inputs.shuffle import Columns, Int64s, Piece, Shuffle, in_turn, places

READ_AHEAD = 2  # blocks that a reader thread may be ahead of whoever takes them

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
                        reader = Prefetch(reader, ahead=READ_AHEAD, name=f"reader {i}")
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
                            *places(step, size, self._shuffle.examples),
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
