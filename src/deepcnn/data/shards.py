"""Shards: files of examples that can be read in order, a block at a time.

The reader of every format is a class with the interface `Shard`. Everything reads through this
interface: loading a set into memory, streaming a set that is larger than memory, and converting a
set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from deepcnn.errors import DataError

Block = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images [k, H, W, C] and labels [k]
Blocks = Generator[Block, None, None]  # closing it closes the file
MOST_UNPACKED = 2**27  # bytes that a file may unpack to however short it is
MOST_PACKED = 100  # beyond that: how many times as long as itself
Shape = tuple[int, int, int]  # height, width and channels of an image
Progress = Callable[[int, int], None]  # (examples so far, examples in all)


class Shard(Protocol):
    """Examples in a fixed order: a file, or a few that belong together.

    Making a shard reads headers and checks them; it does not read the images. All methods raise
    DataError, which names the file, the offset if there is one, and what to do.
    """

    @property
    def name(self) -> str:
        """What errors call it: a path."""

    @property
    def shape(self) -> Shape:
        """Height, width and channels of every image."""

    @property
    def seekable(self) -> bool:
        """Whether reading can start anywhere, or must read and skip all that comes before."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield the examples `start` to `stop` in order, `size` at a time, fewer at the end.

        The arrays belong to the caller. 0 <= start <= stop <= len(self), size >= 1. Memory is
        bounded by the size of a block and of a file's own unit of compression. Closing the
        iterator closes the file.
        """


@runtime_checkable
class Awaited(Protocol):
    """A shard that is fetched from elsewhere before it is read, or that holds such a shard."""

    def expect(self) -> None:
        """Begin to fetch it, since it will be read soon; return at once."""


def expect(shard: Shard) -> None:
    """Tell a shard that it will be read soon; for files on this machine nothing happens."""
    if isinstance(shard, Awaited):
        shard.expect()


@dataclass(frozen=True)
class ToWrite:
    """The content of a file to write: `count` examples in `blocks`, with images of `shape`."""

    count: int
    shape: Shape
    classes: tuple[str, ...]
    blocks: Iterable[Block]


def check_unpacked(name: str, count: int, shape: Shape, packed: int) -> None:
    """Raise DataError for a compressed file that would take far more memory than its length.

    `count`: number of images; each takes 8 more bytes of memory for its label. `packed`: bytes of
    the file. Honest images are never compressed to a hundredth.
    """
    unpacked = count * (math.prod(shape) + 8)
    if unpacked > MOST_UNPACKED and unpacked > MOST_PACKED * packed:
        raise DataError(
            f"{name}: expected at most {MOST_PACKED} times the file's {packed:,} bytes, found "
            f"{count:,} images of {by(shape)}, which take {unpacked:,} bytes of memory. The file "
            "may be hostile; do not use it unread."
        )


def by(shape: Shape) -> str:
    """Return a shape as errors show it: 32×32×3."""
    return "×".join(map(str, shape))


def numbered_files(split: str, shards: int, suffix: str) -> list[str]:
    """Return the names of a split's files, numbered if there are several."""
    if shards == 1:
        return [f"{split}.{suffix}"]
    return [f"{split}-{i:05}-of-{shards:05}.{suffix}" for i in range(shards)]
