"""The steps of a pipeline, from files to examples in their order: one class for each.

`flows.py` explains what a flow and its state are. Each class says what its state is.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from deepcnn.data.shards import Shard, expect
from deepcnn.errors import DataError
from deepcnn.inputs.flows import Flow, State, Step, Taker, join
from deepcnn.inputs.prefetch import Prefetch
from deepcnn.inputs.shuffle import Columns, Piece, Shuffle, in_turn
from deepcnn.machine import LARGEST_SHARE, memory

READ_AHEAD = 2  # blocks that a reader thread may be ahead of whoever takes them
TOGETHER = 512  # examples of one or few each that are joined to a block
# 2**64 divided by the golden ratio, signed: its multiples lie far apart.
SPREAD = -0x61C8864680B583EB

Arrays = tuple[NDArray[Any], ...]  # what belongs to k examples: [k, …] each; images and labels


@dataclass(frozen=True)
class Extract(Step):
    """Reads shards in the order that the readers of `shuffle` have.

    With `threads` each reader is a thread, which reads a few blocks ahead; the order stays the
    same. State: the number of blocks that were taken.
    """

    shards: Sequence[Shard]
    shuffle: Shuffle
    threads: bool = False

    @property
    @override
    def examples(self) -> int:
        return self.shuffle.examples

    @override
    def flow(self, epoch: int, state: State = None) -> Flow:
        taken = 0 if state is None else int(state)
        every = self.shuffle.pieces(epoch)
        done, turn = self._turns([self._count(pieces) for pieces in every], taken)
        with ExitStack() as stack:
            readers: list[Iterator[Columns]] = []
            left = [self._left(pieces, skip) for pieces, skip in zip(every, done, strict=True)]
            for piece in (pieces[0] for pieces in left[turn:] + left[:turn] if pieces):
                expect(self.shards[piece.shard])
            for i, pieces in enumerate(left):
                reader: Iterator[Columns] = self._read(pieces)
                if self.threads:
                    reader = Prefetch(reader, ahead=READ_AHEAD, name=f"reader {i}")
                readers.append(stack.enter_context(closing(reader)))  # type: ignore[type-var]
            for block in in_turn(readers[turn:] + readers[:turn]):
                taken += 1
                yield block, taken

    def _count(self, pieces: list[Piece]) -> int:
        return sum(-(-(piece.stop - piece.start) // self.shuffle.block) for piece in pieces)

    def _turns(self, blocks: list[int], taken: int) -> tuple[list[int], int]:
        """Return how many of so many blocks each reader has given, and whose turn it is."""
        done, turn = [0] * len(blocks), 0
        for _ in range(min(taken, sum(blocks))):
            while done[turn] == blocks[turn]:
                turn = (turn + 1) % len(blocks)
            done[turn] += 1
            turn = (turn + 1) % len(blocks)
        return done, turn

    def _left(self, pieces: list[Piece], skip: int) -> list[Piece]:
        """Return what a reader has left after its first blocks."""
        left = []
        for piece in pieces:
            passed = min(skip, self._count([piece]))
            skip -= passed
            start = piece.start + passed * self.shuffle.block
            if start < piece.stop:
                left.append(Piece(piece.shard, start, piece.stop))
        return left

    def _read(self, pieces: list[Piece]) -> Generator[Columns, None, None]:
        """Yield a reader's blocks; while a piece is read, the next one's shard may be fetched."""
        size = self.shuffle.block
        for i, piece in enumerate(pieces):
            for following in pieces[i + 1 : i + 2]:
                expect(self.shards[following.shard])
            reading = self.shards[piece.shard].blocks(piece.start, piece.stop, size)
            with closing(reading) as found:
                for index, (images, labels) in zip(self.shuffle.indices(piece), found, strict=True):
                    yield index, images, labels


@dataclass(frozen=True)
class Map(Step):
    """Changes each block by a function, which keeps the number of examples. State: the source's."""

    source: Step
    function: Callable[[Any], Any]

    @property
    @override
    def examples(self) -> int | None:
        return self.source.examples

    @override
    def flow(self, epoch: int, state: State = None) -> Flow:
        with closing(self.source.flow(epoch, state)) as blocks:
            for (index, *arrays), after in blocks:
                yield (index, *self._apply(tuple(arrays))), after

    def _apply(self, arrays: Arrays) -> Arrays:
        name = f"map: {_called(self.function)}"
        found = _arrays(name, self.function(arrays))
        count, counts = len(arrays[0]), {len(array) for array in found}
        if counts != {count}:
            raise DataError(
                f"{name}: expected {count} examples, as many as it was given, found "
                f"{' and '.join(map(str, sorted(counts)))}. To leave examples out use filter, to "
                "make several of one flat_map."
            )
        return found


@dataclass(frozen=True)
class Filter(Step):
    """Keeps the examples for which a function of a block is true. State: the source's."""

    source: Step
    function: Callable[[Any], Any]

    @override
    def flow(self, epoch: int, state: State = None) -> Flow:
        with closing(self.source.flow(epoch, state)) as blocks:
            for (index, *arrays), after in blocks:
                name = f"filter: {_called(self.function)}"
                keep = _array(name, self.function(tuple(arrays)))
                if keep.dtype != np.bool_ or keep.shape != index.shape:
                    raise DataError(
                        f"{name}: expected bool [{len(index)}], whether each example is kept, "
                        f"found {keep.dtype} {list(keep.shape)}. To change examples use map."
                    )
                if keep.any():
                    yield tuple(column[keep] for column in (index, *arrays)), after


@dataclass(frozen=True)
class FlatMap(Step):
    """Makes any number of examples from each one, by a function of one example.

    New examples have the numbers `SPREAD · index + i`, modulo 2**64. State: the source's before the
    present block, and how many examples of this block are done.
    """

    source: Step
    function: Callable[..., Any]

    @override
    def flow(self, epoch: int, state: State = None) -> Flow:
        with closing(Taker(self.source, epoch, state)) as taker:
            made: list[Columns] = []
            count = 0
            while taker.have():
                index, *arrays = taker.take(1)
                made.append(self._make(index, tuple(array[0] for array in arrays)))
                count += len(made[-1][0])
                if count >= TOGETHER:
                    yield join("flat_map", made), taker.state()
                    made, count = [], 0
            if count:
                yield join("flat_map", made), taker.state()

    def _make(self, index: NDArray[np.int64], example: Arrays) -> Columns:
        name = f"flat_map: {_called(self.function)}"
        found = _arrays(name, self.function(*example))
        counts = sorted({len(array) for array in found})
        if len(counts) != 1:
            raise DataError(
                f"{name}: expected as many labels as images, found {' and '.join(map(str, counts))}"
            )
        return index * SPREAD + np.arange(counts[0], dtype=np.int64), *found


@dataclass(frozen=True)
class Take(Step):
    """Ends each epoch after this many examples. State: the source's, and how many are left."""

    source: Step
    count: int

    @property
    @override
    def examples(self) -> int | None:
        return None if self.source.examples is None else min(self.count, self.source.examples)

    @override
    def flow(self, epoch: int, state: State = None) -> Flow:
        before, left = (None, self.count) if state is None else state
        if not left:
            return
        with closing(self.source.flow(epoch, before)) as blocks:
            for block, after in blocks:
                kept = tuple(column[:left] for column in block)
                left -= len(kept[0])
                yield kept, [after, left]
                if not left:
                    return


@dataclass(frozen=True)
class Cache(Step):
    """Reads the first epoch of its source once, and gives its examples in every epoch.

    All of them are in memory before the first one leaves. State: how many have left.
    """

    source: Step
    _kept: list[Columns] = field(default_factory=list, init=False, repr=False, compare=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    @property
    @override
    def examples(self) -> int | None:
        return self.source.examples

    @override
    def flow(self, epoch: int, state: State = None) -> Flow:  # all epochs are alike
        columns = self._read()
        start = 0 if state is None else int(state)
        for at in range(start, len(columns[0]) if columns else 0, TOGETHER):
            # copies, since whoever is given them may change them
            block = tuple(column[at : at + TOGETHER].copy() for column in columns)
            yield block, at + TOGETHER

    def _read(self) -> Columns:
        with self._lock:
            if not self._kept:
                found: list[Columns] = []
                room = LARGEST_SHARE * (memory() or math.inf) / 2  # they are joined in the end
                with closing(self.source.flow(0)) as blocks:
                    for block, _ in blocks:
                        found.append(block)
                        room -= sum(column.nbytes for column in block)
                        if room < 0:
                            raise DataError(
                                "cache: expected examples that fit into this machine's memory "
                                "twice, found more. Leave it out, or take fewer before it."
                            )
                self._kept.append(join("cache", found) if found else ())
            return self._kept[0]


@dataclass(frozen=True)
class Zip(Step):
    """Puts the arrays of several sources side by side, and ends with the shortest.

    An example has the number that it has in the first source. State: that of a `Taker` for each
    source.
    """

    sources: tuple[Step, ...]

    @property
    @override
    def examples(self) -> int | None:
        known = [source.examples for source in self.sources]
        return None if None in known else min(count for count in known if count is not None)

    @override
    def flow(self, epoch: int, state: State = None) -> Flow:
        with ExitStack() as stack:
            takers = _takers(self.sources, epoch, state, stack)
            while count := min(taker.have() for taker in takers):
                (index, *arrays), *others = (taker.take(count) for taker in takers)
                for _, *theirs in others:
                    arrays += theirs
                yield (index, *arrays), [taker.state() for taker in takers]


@dataclass(frozen=True)
class Interleave(Step):
    """Takes `length` examples of each source in turn; sources that have ended are skipped.

    Example i of source s, of n sources, gets the number n · i + s, modulo 2**64. State: whose turn
    it is, how many examples it still gives, and the state of a `Taker` for each source.
    """

    sources: tuple[Step, ...]
    length: int

    @property
    @override
    def examples(self) -> int | None:
        known = [source.examples for source in self.sources]
        return None if None in known else sum(count for count in known if count is not None)

    @override
    def flow(self, epoch: int, state: State = None) -> Flow:
        sources = len(self.sources)
        turn, left, states = (0, self.length, None) if state is None else state
        with ExitStack() as stack:
            takers = _takers(self.sources, epoch, states, stack)
            parts: list[Columns] = []
            have = ended = 0  # examples in the parts; sources in a row that have ended
            while ended < sources:
                count = min(takers[turn].have(), left)
                if count:
                    index, *arrays = takers[turn].take(count)
                    parts.append((index * sources + turn, *arrays))
                    have, ended, left = have + count, 0, left - count
                else:
                    ended, left = ended + 1, 0
                if not left:
                    turn, left = (turn + 1) % sources, self.length
                if have >= TOGETHER or (have and ended == sources):
                    after = [turn, left, [taker.state() for taker in takers]]
                    yield join("interleave", parts), after
                    parts, have = [], 0


@dataclass(frozen=True)
class Mix(Step):
    """Sends each epoch through the shuffle buffer of `shuffle`.

    State: the number of blocks that have left. Resuming fills the buffer again from the beginning
    of the epoch, and skips the blocks that have left.
    """

    source: Step
    shuffle: Shuffle

    @property
    @override
    def examples(self) -> int | None:
        return self.source.examples

    @override
    def flow(self, epoch: int, state: State = None) -> Flow:
        left = 0 if state is None else int(state)
        # a buffer larger than the epoch would only take memory
        most = self.shuffle.buffer if self.examples is None else self.examples
        with closing(self.source.flow(epoch)) as blocks:
            mixed = self.shuffle.mix(epoch, (block for block, _ in blocks), most)
            for number, block in enumerate(mixed, start=1):
                if number > left:
                    yield block, number


def _takers(
    sources: Sequence[Step], epoch: int, states: Sequence[State] | None, stack: ExitStack
) -> list[Taker]:
    """Return a `Taker` for each source, from its state on; the stack closes them."""
    before = [None] * len(sources) if states is None else states
    return [
        stack.enter_context(closing(Taker(source, epoch, state)))
        for source, state in zip(sources, before, strict=True)
    ]


def _arrays(name: str, found: Any) -> Arrays:
    """Return the arrays that a user's function gave; raises DataError if it gave no tuple."""
    if not isinstance(found, (tuple, list)) or not found:
        raise DataError(
            f"{name}: expected a tuple of arrays such as (images, labels), found "
            f"{type(found).__name__}"
        )
    arrays = tuple(_array(name, array) for array in found)
    for array in arrays:
        if not array.ndim:
            raise DataError(f"{name}: expected arrays with a row for each example, found a number")
    return arrays


def _array(name: str, found: Any) -> NDArray[Any]:
    try:
        return np.asarray(found)
    except ValueError as error:  # of rows that differ in length
        raise DataError(f"{name}: expected an array, found what makes none ({error})") from error


def _called(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__)).rpartition(".")[2]
