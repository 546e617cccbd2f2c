from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepcnn import hashing
from deepcnn.inputs.shuffle import Columns, Shuffle, epoch_order, in_turn, permutation


def test_committed_integers_pin_the_order() -> None:
    assert permutation(0, 0, 10).tolist() == [5, 7, 0, 8, 2, 3, 1, 6, 9, 4]


@pytest.mark.parametrize("epoch", [0, 1, 77])
def test_permutation_holds_each_index_once_and_differs_by_epoch_and_seed(epoch: int) -> None:
    found = permutation(3, epoch, 1000)
    assert np.array_equal(np.sort(found), np.arange(1000))
    assert not np.array_equal(found, permutation(3, epoch + 1, 1000))
    assert not np.array_equal(found, permutation(4, epoch, 1000))


@given(n=st.integers(1, 50), batch_size=st.integers(1, 120))
def test_batches_visit_every_example_once_an_epoch(n: int, batch_size: int) -> None:
    steps = -(-3 * n // batch_size)
    parts = [Shuffle.full(5, n).batch(step, batch_size) for step in range(steps)]
    index, epoch, position = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    assert all(len(part[0]) == batch_size for part in parts)
    for e in range(3):
        assert np.array_equal(np.sort(index[epoch == e]), np.arange(n))
        assert np.array_equal(position[epoch == e], np.arange(n))


def test_step_12345_alone_equals_step_12345_of_a_full_run() -> None:
    n, batch_size, wanted = 50_000, 128, 12_345
    for step in range(wanted - 500, wanted + 1):
        in_full_run = Shuffle.full(1, n).batch(step, batch_size)
    permutation.cache_clear()
    epoch_order.cache_clear()
    alone = Shuffle.full(1, n).batch(wanted, batch_size)
    for a, b in zip(alone, in_full_run, strict=True):
        assert np.array_equal(a, b)


def make(
    counts: tuple[int, ...],
    *,
    seed: int = 0,
    readers: int = 4,
    buffer: int = 100,
    seekable: bool = True,
    block: int = 64,
) -> Shuffle:
    return Shuffle(seed, counts, (seekable,) * len(counts), readers, buffer, block)


def one_by_one(shuffle: Shuffle, epoch: int, blocks: Iterator[Columns]) -> list[int]:
    """The shuffle buffer by its definition: an example comes, one at random leaves."""
    size = min(shuffle.buffer, shuffle.examples)
    slots: list[int] = []
    left, draws = [], 0
    for (index,) in blocks:
        for coming in index.tolist():
            if len(slots) < size:
                slots.append(coming)
                continue
            bits = hashing.bits(shuffle.seed, hashing.SLOT, np.array([epoch]), np.array([draws]))
            slot = int(hashing.below(size, bits)[0])
            draws += 1
            left.append(slots[slot])
            slots[slot] = coming
    keys = {
        i: int(hashing.bits(shuffle.seed, hashing.ORDER, np.array([epoch]), np.array([i]))[0])
        for i in slots
    }
    return left + sorted(slots, key=lambda i: keys[i])


@given(
    counts=st.lists(st.integers(1, 400), min_size=1, max_size=4).map(tuple),
    readers=st.integers(1, 9),
    buffer=st.integers(1, 500),
    epoch=st.integers(0, 3),
)
def test_all_at_once_equals_one_by_one(
    counts: tuple[int, ...], readers: int, buffer: int, epoch: int
) -> None:
    shuffle = make(counts, readers=readers, buffer=buffer, seed=7)

    def blocks() -> Iterator[Columns]:
        yield from (
            (block,)
            for block in in_turn(
                (b for piece in pieces for b in shuffle.indices(piece))
                for pieces in map(list, shuffle.pieces(epoch))
            )
        )

    expected = one_by_one(shuffle, epoch, blocks())
    found = np.concatenate([index for (index,) in shuffle.mix(epoch, blocks())])
    assert found.tolist() == expected
    assert sorted(expected) == list(range(sum(counts)))
    assert shuffle.epoch(epoch).tolist() == expected


def test_a_buffer_as_large_as_the_set_gives_the_permutation() -> None:
    whole = permutation(3, 5, 1000)
    for counts, readers in (((1000,), 1), ((300, 700), 16)):
        shuffle = make(counts, readers=readers, buffer=1000, seed=3)
        assert np.array_equal(shuffle.epoch(5), whole)
        blocks = in_turn(
            (b for piece in pieces for b in shuffle.indices(piece)) for pieces in shuffle.pieces(5)
        )
        mixed = np.concatenate([i for (i,) in shuffle.mix(5, ((b,) for b in blocks))])
        assert np.array_equal(mixed, whole)


def test_the_order_of_files_changes_every_epoch_and_readers_read_different_places() -> None:
    shuffle = make((500,) * 5, readers=16)
    seen = set()
    for epoch in range(6):
        readers = shuffle.pieces(epoch)
        assert len(readers) == 16
        flat = [piece for pieces in readers for piece in pieces]
        places = sorted((p.shard, p.start, p.stop) for p in flat)
        for shard in range(5):
            edges = [(a, b) for s, a, b in places if s == shard]
            assert edges[0][0] == 0
            assert edges[-1][1] == 500
            assert all(b == c for (_, b), (c, _) in itertools.pairwise(edges))
        assert len({(p.shard, p.start) for pieces in readers for p in pieces[:1]}) == 16
        seen.add(tuple((p.shard, p.start) for p in flat))
    assert len(seen) == 6


def test_a_shard_that_cannot_seek_is_read_by_one_reader() -> None:
    readers = make((500, 500), readers=16, seekable=False).pieces(0)
    assert [len(pieces) for pieces in readers] == [1, 1]
    assert {(p.start, p.stop) for (p,) in readers} == {(0, 500)}


def test_examples_move_far_and_the_buffer_bounds_how_early() -> None:
    shuffle = make((5000,), readers=1, buffer=1000)
    position = np.empty(5000)
    position[shuffle.epoch(0)] = np.arange(5000)
    early = np.arange(5000) - position
    assert early.max() <= 1000 + 64
    assert np.abs(early).mean() > 500
    assert not np.array_equal(shuffle.epoch(0), shuffle.epoch(1))


@pytest.mark.parametrize("shuffle", [Shuffle.full(5, 37), make((20, 17), buffer=9)])
def test_batches_are_full_and_meet_each_example_once_an_epoch(shuffle: Shuffle) -> None:
    parts = [shuffle.batch(step, 8) for step in range(14)]
    index, epoch, position = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    assert len(index) == 14 * 8
    for e in range(3):
        assert np.array_equal(np.sort(index[epoch == e]), np.arange(37))
        assert np.array_equal(position[epoch == e], np.arange(37))
