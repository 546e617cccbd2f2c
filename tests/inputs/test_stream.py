"""Pipelines against plain Python lists, stopped and resumed at every position."""

from __future__ import annotations

import json
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepcnn import hashing, inputs
from deepcnn.data.arrays import Arrays
from deepcnn.data.shards import Blocks
from deepcnn.data.source import Memory, in_memory
from deepcnn.errors import ConfigError, DataError
from deepcnn.inputs import steps
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import HostBatch, Remainder, Stream

Example = tuple[int, int, int]  # number, pixel and label
Epoch = Callable[[int], list[Example]]  # all examples of an epoch, in their order


@dataclass(frozen=True)
class Line:
    """A pipeline, and the same in plain Python."""

    stream: Stream
    epoch: Epoch


def arrays(count: int, first: int = 0) -> Arrays:
    """Images of a single pixel, which differ, of five classes."""
    number = np.arange(first, first + count)
    images = (number % 251).astype(np.uint8).reshape(-1, 1, 1, 1)
    return Arrays(images, (number * 7 % 5).astype(np.int64), tuple("abcde"))


def extract(counts: tuple[int, ...], first: int, *, seed: int, buffer: int) -> Line:
    """Three readers over a few shards, in blocks of four."""
    before = [sum(counts[:i]) for i in range(len(counts))]
    shards = [Memory(arrays(n, first + b)) for n, b in zip(counts, before, strict=True)]
    shuffle = Shuffle(seed, counts, (True,) * len(counts), 3, buffer, block=4)

    def epoch(number: int) -> list[Example]:
        readers = []
        for pieces in shuffle.pieces(number):
            blocks = []
            for piece in pieces:
                whole = range(before[piece.shard] + piece.start, before[piece.shard] + piece.stop)
                blocks += [whole[at : at + 4] for at in range(0, len(whole), 4)]
            readers.append(blocks)
        found: list[Example] = []
        for turn in range(max(map(len, readers))):
            for blocks in readers:
                for i in blocks[turn] if turn < len(blocks) else ():
                    found.append((i, (first + i) % 251, (first + i) * 7 % 5))
        return found

    return Line(Stream.extract(shards, shuffle), epoch)


def shuffled(examples: list[Example], seed: int, epoch: int, buffer: int) -> list[Example]:
    """The shuffle buffer by its definition: an example comes, one at random leaves."""
    slots: list[Example] = []
    left: list[Example] = []
    for coming in examples:
        if len(slots) < buffer:
            slots.append(coming)
            continue
        bits = hashing.bits(seed, hashing.SLOT, np.array([epoch]), np.array([len(left)]))
        slot = int(hashing.below(buffer, bits)[0])
        left.append(slots[slot])
        slots[slot] = coming

    def key(example: Example) -> int:
        number = np.array([example[0]])
        return int(hashing.bits(seed, hashing.ORDER, np.array([epoch]), number)[0])

    return left + sorted(slots, key=key)


def wrapped(number: int) -> int:
    """A number modulo 2**64, signed, as int64 has it."""
    return (number + 2**63) % 2**64 - 2**63


# What is done to a line: a function of it and of a number that hypothesis draws.
def mapped(line: Line, n: int) -> Line:
    def epoch(e: int) -> list[Example]:
        return [(i, (pixel + n) % 256, (label + n) % 5) for i, pixel, label in line.epoch(e)]

    stream = line.stream.map(lambda b: (b[0] + np.uint8(n), (b[1] + n) % 5))
    return Line(stream, epoch)


def filtered(line: Line, n: int) -> Line:
    keep = n % 4 + 1
    return Line(
        line.stream.filter(lambda b: b[1] < keep),
        lambda e: [example for example in line.epoch(e) if example[2] < keep],
    )


def multiplied(line: Line, n: int) -> Line:
    """None of some, several of others."""

    def several(image: Any, label: Any) -> tuple[list[Any], list[int]]:
        count = (int(label) + n) % 3
        return [image + np.uint8(i) for i in range(count)], [int(label)] * count

    def arrays_of(image: Any, label: Any) -> tuple[Any, Any]:
        images, labels = several(image, label)
        return np.array(images, np.uint8).reshape(-1, 1, 1, 1), np.array(labels, np.int64)

    def epoch(e: int) -> list[Example]:
        return [
            (wrapped(number * steps.SPREAD + i), (pixel + i) % 256, label)
            for number, pixel, label in line.epoch(e)
            for i in range((label + n) % 3)
        ]

    return Line(line.stream.flat_map(arrays_of), epoch)


def taken(line: Line, n: int) -> Line:
    return Line(line.stream.take(3 * n + 1), lambda e: line.epoch(e)[: 3 * n + 1])


def cached(line: Line, _: int) -> Line:
    return Line(line.stream.cache(), lambda _: line.epoch(0))


def mixed(line: Line, _: int) -> Line:
    order = line.stream.order
    return Line(
        line.stream.shuffle(),
        lambda e: shuffled(line.epoch(e), order.seed, e, order.buffer),
    )


def other(n: int) -> Line:
    return mixed(extract((n + 5, 9), 100, seed=n, buffer=4), 0)


def zipped(line: Line, n: int) -> Line:
    beside = other(n)

    def bring_together(block: Any) -> Any:
        images, labels, their_images, their_labels = block
        return images ^ their_images, (labels + their_labels) % 5

    def epoch(e: int) -> list[Example]:
        pairs = zip(line.epoch(e), beside.epoch(e), strict=False)
        return [
            (i, pixel ^ theirs, (label + of) % 5) for (i, pixel, label), (_, theirs, of) in pairs
        ]

    return Line(line.stream.zip(beside.stream).map(bring_together), epoch)


def interleaved(line: Line, n: int) -> Line:
    beside, length = other(n), n % 3 + 1

    def epoch(e: int) -> list[Example]:
        left = [line.epoch(e), beside.epoch(e)]
        found: list[Example] = []
        while any(left):
            for source in range(2):
                found += [(wrapped(i * 2 + source), x, y) for i, x, y in left[source][:length]]
                left[source] = left[source][length:]
        return found

    return Line(line.stream.interleave(beside.stream, length=length), epoch)


CHANGES = [mapped, filtered, multiplied, taken, cached, mixed, zipped, interleaved]
Plan = list[tuple[Callable[[Line, int], Line], int]]


def build(counts: tuple[int, ...], plan: Plan) -> Line:
    line = extract(counts, 0, seed=3, buffer=6)
    for change, number in plan:
        line = change(line, number)
    return line


def in_batches(epochs: list[list[Example]], size: int, remainder: Remainder) -> list[list[Any]]:
    """The batches of examples with epoch and position, in plain Python."""
    placed = [[(*x, e, at) for at, x in enumerate(found)] for e, found in enumerate(epochs)]
    if remainder == "join":
        placed = [[x for epoch in placed for x in epoch]]
    found = [epoch[at : at + size] for epoch in placed for at in range(0, len(epoch), size)]
    return [batch for batch in found if remainder != "drop" or len(batch) == size]


def plain(batch: HostBatch) -> list[Any]:
    columns = (batch.index, batch.images, batch.labels, batch.epoch, batch.position)
    return list(zip(*(column.reshape(-1).tolist() for column in columns), strict=True))


@settings(deadline=None, max_examples=200)
@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    plan=st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, 5)), max_size=4),
    size=st.integers(1, 9),
    remainder=st.sampled_from(["join", "keep", "drop"]),
    together=st.integers(1, 6),
)
def test_a_pipeline_is_what_plain_python_makes_and_goes_on_from_every_position(
    counts: tuple[int, ...], plan: Plan, size: int, remainder: Remainder, together: int
) -> None:
    line = build(counts, plan)
    epochs = [line.epoch(e) for e in range(2)]
    needed = size if remainder == "drop" else 1
    short = 0 if len(epochs[0]) < needed else None
    with mock.patch.object(steps, "TOGETHER", together):
        batches = line.stream.repeat(2).batch(size, remainder=remainder)
        if short is not None:
            with pytest.raises(DataError, match=f"found {len(epochs[short])} in epoch {short}"):
                list(batches)
            return
        expected = in_batches(epochs, size, remainder)
        states = [json.dumps(batches.state_dict())]
        found = []
        for batch in batches:
            found.append(plain(batch))
            states.append(json.dumps(batches.state_dict()))
        assert found == expected
        assert max(map(len, states)) < 150 * 2 ** len(plan), "a state is a few numbers"
        for at, state in enumerate(states):
            again = build(counts, plan).stream.repeat(2).batch(size, remainder=remainder)
            again.load_state_dict(json.loads(state))
            assert [plain(batch) for batch in again] == expected[at:]
            if line.stream.by_step:
                from_step = line.stream.repeat(2).batch(size, first_step=at, remainder=remainder)
                assert [plain(batch) for batch in from_step] == expected[at:]


IMAGES = arrays(40)


def over(images: Arrays = IMAGES, *, buffer: int = 8) -> Stream:
    return Stream.of(in_memory(images), seed=1, readers=3, buffer=buffer)


def drop_some(block: Any) -> Any:
    return block[0][:3], block[1][:3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda s: s.map(drop_some),
            r"map: drop_some: expected 1[34] examples, as many as it was given, found 3\. To leave "
            "examples out use filter, to make several of one flat_map",
        ),
        (lambda s: s.map(lambda b: (b[0], b[1][:3])), "found 1[34] and 3|found 3 and 1[34]"),
        (lambda s: s.map(lambda b: b[0]), "expected a tuple of arrays such as .* found ndarray"),
        (lambda s: s.map(lambda b: (b[0], 3)), "a row for each example, found a number"),
        (
            lambda s: s.filter(lambda b: b[1]),
            r"filter: <lambda>: expected bool \[1[34]\], whether each example is kept, found int64 "
            r"\[1[34]\]\. To change examples use map",
        ),
        (lambda s: s.filter(drop_some), "filter: drop_some: expected an array, found what makes"),
        (
            lambda s: s.flat_map(lambda image, label: (np.stack([image] * 3), [label])),
            "flat_map: <lambda>: expected as many labels as images, found 1 and 3",
        ),
        (
            lambda s: s.flat_map(lambda _, label: (np.zeros((1, 1 + label)), [label])),
            r"flat_map: expected examples alike, of float64 \[\d\] as the first",
        ),
        (lambda s: s.zip(s), "batch: expected images and labels, found 4 arrays .* by map"),
        (
            lambda s: s.interleave(s.map(lambda b: (b[0].astype(np.float32), b[1]))),
            r"interleave: expected examples alike, of uint8 \[1, 1, 1\] .* found float32",
        ),
        (lambda s: s.interleave(s.zip(s)), "expected 2 arrays for each example .* found 4"),
        (lambda s: s.filter(lambda b: b[1] > 9), "at least 1 examples in each epoch, found 0 in"),
    ],
)
def test_what_does_not_fit_is_said_with_the_step_and_what_to_do(
    make: Callable[[Stream], Stream], message: str
) -> None:
    with closing(make(over()).batch(4)) as batches, pytest.raises(DataError, match=message):
        list(batches)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: s.take(0), "take: expected at least 1, found 0"),
        (lambda s: s.repeat(0), "repeat: expected at least 1, found 0"),
        (lambda s: s.interleave(s, length=0), "length: expected at least 1, found 0"),
        (lambda s: s.batch(0), "batch: size: expected at least 1, found 0"),
    ],
)
def test_a_count_of_none_is_refused(make: Callable[[Stream], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(over())


def test_a_drop_that_leaves_nothing_is_an_error_and_no_endless_loop() -> None:
    with pytest.raises(DataError, match="at least 41 examples in each epoch, found 40 in epoch 0"):
        next(over().batch(41, remainder="drop"))


@dataclass
class Watched:
    """A shard that notes from where it is read, and whether it is closed."""

    shard: Memory
    name: str = "watched"
    seekable: bool = True

    def __post_init__(self) -> None:
        self.read: list[int] = []
        self.open = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.shard.shape

    def __len__(self) -> int:
        return len(self.shard)

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        self.open += 1
        try:
            for at in range(start, stop, size):
                self.read.append(at)
                yield from self.shard.blocks(at, min(at + size, stop), size)
        finally:
            self.open -= 1


def test_going_on_reads_no_block_again_that_was_done_where_nothing_is_shuffled() -> None:
    shard = Watched(Memory(arrays(100)))
    shuffle = Shuffle(0, (100,), (True,), 1, 1, block=10)
    stream = Stream.extract([shard], shuffle).map(lambda b: b).filter(lambda b: b[1] < 4)
    batches = stream.batch(20)
    for _ in range(3):
        next(batches)
    state = batches.state_dict()
    batches.close()
    shard.read.clear()
    again = stream.batch(20)
    again.load_state_dict(state)
    next(again)
    assert shard.read == [70, 80, 90]
    again.close()
    assert shard.open == 0
    with pytest.raises(StopIteration):
        next(again)


def test_a_cache_reads_its_source_once_and_what_it_gives_may_be_changed() -> None:
    shard = Watched(Memory(arrays(20)))
    stream = Stream.extract([shard], Shuffle(0, (20,), (True,), 1, 1, block=10)).cache()
    first = []
    for batch in stream.repeat(3).batch(20):
        first.append(batch.images.copy())
        batch.images[:] = 0
    assert shard.read == [0, 10]
    assert np.array_equal(first[0], first[2])


def test_a_cache_that_does_not_fit_into_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "memory", lambda: 100)
    with pytest.raises(DataError, match="cache: expected examples that fit into this machine's"):
        next(over().cache().batch(4))


def test_going_to_a_step_holds_no_more_than_a_batch() -> None:
    images = np.zeros((3000, 32, 32, 3), np.uint8)
    source = in_memory(Arrays(images, np.zeros(3000, np.int64), ("a",)))
    tracemalloc.start()
    try:
        with closing(Stream.of(source).batch(10, first_step=290)) as batches:
            next(batches)
        assert tracemalloc.get_traced_memory()[1] < images.nbytes / 4
    finally:
        tracemalloc.stop()


def test_reader_threads_change_nothing_and_end_with_their_batches() -> None:
    shards = [Watched(Memory(arrays(n))) for n in (30, 17)]
    shuffle = Shuffle(5, (30, 17), (True, True), 4, 9, block=4)

    def first(threads: bool, state: Any = None) -> tuple[list[Any], Any]:
        stream = Stream.extract(shards, shuffle, threads=threads).filter(lambda b: b[1] < 3)
        with closing(stream.batch(7)) as batches:
            if state is not None:
                batches.load_state_dict(state)
            found = [plain(next(batches)) for _ in range(9)]
            return found, batches.state_dict()

    assert first(True) == first(False)
    state = first(True)[1]
    assert first(True, state) == first(False, state)
    assert [shard.open for shard in shards] == [0, 0]


def stops(batches: Iterator[HostBatch]) -> int:
    return sum(1 for _ in batches)


def test_the_shorter_of_two_numbers_of_epochs_counts() -> None:
    assert stops(over().repeat(3).interleave(over().repeat(2)).batch(80)) == 2
    assert stops(over().repeat(2).batch(8, first_step=10)) == 0
    assert stops(over().repeat(2).batch(8, first_step=99)) == 0


def test_a_buffer_has_room_for_more_examples_than_the_files_have() -> None:
    line = multiplied(extract((9, 4), 0, seed=3, buffer=1000), 1)
    first = [plain(batch) for batch in mixed(line, 0).stream.repeat(1).batch(100)]
    assert len(line.epoch(0)) > 13
    assert [row[:3] for row in first[0]] == shuffled(line.epoch(0), 3, 0, 1000)


class Damaged(Watched):
    """A shard that cannot be read to its end."""

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        for found in super().blocks(start, stop, size):
            if self.read[-1] >= 20:
                raise DataError("damaged: offset 77")
            yield found


def test_an_error_before_the_first_step_closes_what_was_opened() -> None:
    shard = Damaged(Memory(arrays(40)))
    shuffle = Shuffle(0, (40,), (True,), 1, 1, block=10)
    with pytest.raises(DataError, match="offset 77") as caught:
        Stream.extract([shard], shuffle, threads=True).batch(10, first_step=3)
    assert caught.tb is not None, "whose frames keep what they know alive"
    assert shard.open == 0
    assert not any("reader" in thread.name for thread in threading.enumerate())


def test_the_public_names_are_found_and_no_others() -> None:
    assert {"Fed", "Stream", "HostBatch"} == set(inputs.__all__) <= set(dir(inputs))
    assert inputs.Stream is Stream
    with pytest.raises(AttributeError, match="no attribute 'Streams'"):
        inputs.Streams  # noqa: B018
