"""What the tests of all formats ask of a shard."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from hypothesis import strategies as st

from deepcnn.data.catalog import CATALOG
from deepcnn.data.shards import Block, Shard
from deepcnn.errors import DataError
from tests import packages
from tests.packages import unpacked

# Debian's dataset-fashion-mnist: where it is installed, or else where `packages` has unpacked it.
INSTALLED = CATALOG["fashion_mnist"].installed
FASHION_MNIST = INSTALLED if INSTALLED and INSTALLED.is_dir() else unpacked(packages.FASHION_MNIST)
RANGES = [(0, 7, 3), (0, 7, 7), (0, 7, 100), (2, 6, 3), (6, 7, 1), (3, 3, 2), (7, 7, 5), (1, 7, 2)]


def read(shard: Shard, start: int = 0, stop: int | None = None, size: int = 3) -> Block:
    """Return the blocks of a shard joined, after a look at each."""
    stop = len(shard) if stop is None else stop
    images = [np.empty((0, *shard.shape), np.uint8)]
    labels = [np.empty(0, np.int64)]
    for some, numbers in shard.blocks(start, stop, size):
        assert some.dtype == np.uint8
        assert numbers.dtype == np.int64
        assert some.flags.c_contiguous
        assert some.flags.writeable
        assert numbers.flags.writeable
        assert some.shape == (len(numbers), *shard.shape)
        assert 0 < len(some) <= size
        images.append(some)
        labels.append(numbers)
    assert {len(some) for some in images[1:-1]} <= {size}
    return np.concatenate(images), np.concatenate(labels)


def examples(count: int, *shape: int) -> Block:
    """Return images and labels that differ from each other."""
    random = np.random.default_rng(count)
    return random.integers(0, 256, (count, *shape), np.uint8), np.arange(count) * 3 % 10


@st.composite
def damaged(draw: Callable[..., Any], content: bytes) -> bytes:
    """Draw what is left of a file after something happened to it."""
    position: int = draw(st.integers(0, len(content) - 1))
    kind = draw(st.sampled_from(["cut", "extended", "changed", "changed", "inserted"]))
    some: bytes = draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, bytes(8)]))
    if kind == "cut":
        return content[:position]
    if kind == "extended":
        return content + some
    if kind == "changed":
        return content[:position] + some + content[position + len(some) :]
    return content[:position] + some + content[position:]


def check_early_closing(make: Callable[[], Shard], monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop reading after the first of several blocks, and look whether the file is closed."""
    files: list[IO[Any]] = []
    plain = Path.open

    def spy(self: Path, *args: Any, **kwargs: Any) -> IO[Any]:
        files.append(plain(self, *args, **kwargs))
        return files[-1]

    shard = make()
    monkeypatch.setattr(Path, "open", spy)
    blocks = shard.blocks(0, len(shard), 2)
    next(blocks)
    assert not files[-1].closed
    blocks.close()
    assert all(file.closed for file in files)


def peak_bytes(action: Callable[[], object]) -> int:
    """Return the most memory that Python had at a time while `action` raised DataError."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def message_id(value: object) -> str:
    """Name a case by its message alone: bytes may hold the time at which they were made."""
    return value if isinstance(value, str) else "file"
