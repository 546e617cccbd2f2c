"""The order in which a training visits the examples of its shards.

A number of readers read an epoch, each at its own place, in files whose order changes every epoch.
What they read goes through a shuffle buffer, from which examples leave at random. All of this is a
function of (seed, epoch): it is fixed beforehand what each reader reads, their blocks are taken in
turn, and a hash chooses the slot that an example leaves. So the same order can be computed over
indices alone, without a file. Threads do the work, but never decide the order. A buffer as large as
the set gives a permutation of the whole set, for any files.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deepcnn import hashing
from deepcnn.data.shards import Shard

BLOCK, BLOCK_BYTES = 512, 1 << 21  # what a reader takes at a time: the smaller of the two

Int64s = NDArray[np.int64]
Columns = tuple[NDArray[Any], ...]  # arrays [k, …]; the first: int64 indices
T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """The examples `start` to `stop` of the shard of that number."""

    shard: int
    start: int
    stop: int


@dataclass(frozen=True)
class Shuffle:
    """The order of a training set: `readers` readers, and a buffer of `buffer` examples.

    `counts`: examples in each shard. `seekable`: whether reading a shard can start anywhere, so
    that several readers can share it. `block`: how many examples a reader takes at a time.
    """

    seed: int
    counts: tuple[int, ...]
    seekable: tuple[bool, ...]
    readers: int
    buffer: int
    block: int = BLOCK

    @classmethod
    def of(cls, shards: Sequence[Shard], *, seed: int, readers: int, buffer: int) -> Shuffle:
        """Make the order for these shards."""
        return cls(
            seed,
            tuple(len(shard) for shard in shards),
            tuple(shard.seekable for shard in shards),
            readers,
            buffer,
            max(1, min(BLOCK, BLOCK_BYTES // math.prod(shards[0].shape))),
        )

    @classmethod
    def full(cls, seed: int, n: int) -> Shuffle:
        """Make the order that visits `n` examples in a random permutation each epoch."""
        return cls(seed, (n,), (True,), 1, n)

    @property
    def examples(self) -> int:
        """Return the number of examples in an epoch."""
        return sum(self.counts)

    def pieces(self, epoch: int) -> list[list[Piece]]:
        """Return, for each reader, what it reads in an epoch, in order."""
        parts = -(-self.readers // len(self.counts))
        pieces = []
        for shard, (count, seekable) in enumerate(zip(self.counts, self.seekable, strict=True)):
            edges = np.linspace(0, count, (parts if seekable else 1) + 1).astype(np.int64).tolist()
            pieces += [Piece(shard, a, b) for a, b in itertools.pairwise(edges) if a < b]
        keys = hashing.bits(self.seed, hashing.PIECE, np.array([epoch]), np.arange(len(pieces)))
        shuffled = [pieces[i] for i in np.argsort(keys, kind="stable")]
        return [shuffled[r :: self.readers] for r in range(min(self.readers, len(shuffled)))]

    def indices(self, piece: Piece) -> Iterator[Int64s]:
        """Yield the indices of a piece's examples, a block at a time."""
        before = sum(self.counts[: piece.shard])
        for start in range(piece.start, piece.stop, self.block):
            yield np.arange(before + start, before + min(start + self.block, piece.stop))

    def epoch(self, epoch: int) -> Int64s:
        """Return the indices of all examples in the order of an epoch: int64 [n], read-only."""
        return epoch_order(self, epoch)

    def batch(self, step: int, batch_size: int, *, steps: int = 1) -> tuple[Int64s, Int64s, Int64s]:
        """Return (index, epoch, position) of each example of a step's batch: int64 [batch_size].

        With `steps`: those of this many batches, one after another. As in `places`, every batch is
        full, and each example is seen exactly once in every epoch.
        """
        epoch, position = places(step, batch_size, self.examples, steps=steps)
        index = np.empty(len(epoch), np.int64)
        for e in range(int(epoch[0]), int(epoch[-1]) + 1):
            here = epoch == e
            index[here] = self.epoch(e)[position[here]]
        return index, epoch, position

    def mix(
        self, epoch: int, blocks: Iterable[Columns], most: int | None = None
    ) -> Iterator[Columns]:
        """Send what the readers of an epoch read through the shuffle buffer.

        `blocks`: the examples in the order of reading; the first column holds their indices.
        `most`: the largest number of examples in an epoch; None: that of the shards.
        """
        buffer = _Buffer(
            self.seed, epoch, min(self.buffer, self.examples if most is None else most)
        )
        for block in blocks:
            yield from buffer.exchange(block)
        yield from buffer.drain(self.block)


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """Return the order in which epoch `epoch` visits `n` examples: int64 [n], read-only."""
    keys = hashing.bits(seed, hashing.ORDER, np.array([epoch]), np.arange(n, dtype=np.int64))
    order = np.argsort(keys)  # no two keys are equal: each is made of a position reversibly
    order.flags.writeable = False
    return order


def places(
    step: int, batch_size: int, n: int, *, steps: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (epoch, position) of each example of the batch of a step, int64 [batch_size].

    With `steps`: those of this many batches, one after another, int64 [steps * batch_size].

    Epochs of `n` examples follow one another without a gap. A batch may hold the end of one epoch
    and the start of the next. Every batch is full, and each place comes exactly once.
    """
    place = np.arange(step * batch_size, (step + steps) * batch_size, dtype=np.int64)
    epoch, position = np.divmod(place, n)
    return epoch, position


@functools.lru_cache(maxsize=3)
def epoch_order(shuffle: Shuffle, epoch: int) -> Int64s:
    """Return the indices of all examples in the order of an epoch: int64 [n], read-only."""
    if shuffle.buffer >= shuffle.examples:  # then the order of reading does not matter
        return permutation(shuffle.seed, epoch, shuffle.examples)
    readers = [
        (block for piece in pieces for block in shuffle.indices(piece))
        for pieces in shuffle.pieces(epoch)
    ]
    read = np.concatenate(list(in_turn(readers)))
    # as one block, which takes half the time that block after block does
    found = np.concatenate([index for (index,) in shuffle.mix(epoch, [(read,)])])
    found.flags.writeable = False
    return found


def in_turn(iterators: Iterable[Iterator[T]]) -> Iterator[T]:
    """Yield one item of each iterator in turn; iterators that have ended are skipped."""
    left = list(iterators)
    while left:
        going = []
        for iterator in left:
            for item in iterator:
                yield item
                going.append(iterator)
                break
        left = going


class _Buffer:
    """A shuffle buffer of `size` examples whose choices are functions of (seed, epoch, draw).

    While it fills, nothing leaves. Then each new example takes the slot of one that leaves; this
    slot is chosen at random. At the end, the remaining examples leave in the order of a random key.
    """

    def __init__(self, seed: int, epoch: int, size: int) -> None:
        self._seed = seed
        self._epoch = np.array([epoch], np.int64)
        self._size = size
        self._columns: Columns = ()
        self._filled = 0
        self._draws = 0

    def exchange(self, block: Columns) -> Iterator[Columns]:
        """Take in a block; yield one example for each new one that finds no empty slot."""
        count = len(block[0])
        if not self._columns:
            self._columns = tuple(np.empty((self._size, *c.shape[1:]), c.dtype) for c in block)
        fitting = min(self._size - self._filled, count)
        if fitting:
            for mine, column in zip(self._columns, block, strict=True):
                mine[self._filled : self._filled + fitting] = column[:fitting]
            self._filled += fitting
        if fitting == count:
            return
        coming = tuple(column[fitting:] for column in block)
        draw = np.arange(self._draws, self._draws + count - fitting, dtype=np.int64)
        self._draws += len(draw)
        slot = hashing.below(self._size, hashing.bits(self._seed, hashing.SLOT, self._epoch, draw))
        # All at once gives what one after the other would: where a slot is drawn again within the
        # block, what leaves is what came at the draw before, and only the last to come stays.
        # (NumPy sorts integers of 16 bits by their digits, several times as fast.)
        by_slot = np.argsort(slot.astype(np.uint16) if self._size <= 2**16 else slot, kind="stable")
        again = slot[by_slot[1:]] == slot[by_slot[:-1]]
        later, earlier = by_slot[1:][again], by_slot[:-1][again]
        stays = by_slot[np.append(~again, True)]
        leaving = []
        for mine, column in zip(self._columns, coming, strict=True):
            out = mine[slot]
            out[later] = column[earlier]
            mine[slot[stays]] = column[stays]
            leaving.append(out)
        yield tuple(leaving)

    def drain(self, block: int) -> Iterator[Columns]:
        """Yield all that is left, a block at a time."""
        if not self._filled:
            return
        index = self._columns[0][: self._filled].astype(np.int64)
        keys = hashing.bits(self._seed, hashing.ORDER, self._epoch, index)
        last = np.argsort(keys, kind="stable")  # equal keys are those of equal indices
        for start in range(0, self._filled, block):
            chosen = last[start : start + block]
            yield tuple(column[chosen] for column in self._columns)
