"""A split of a data set, as shards. It is read block by block, loaded into memory, or surveyed."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from deepcnn import hashing
from deepcnn.data.arrays import Arrays
from deepcnn.data.shards import Block, Blocks, Progress, Shape, Shard, by, expect
from deepcnn.errors import DataError
from deepcnn.machine import LARGEST_SHARE, memory

BLOCK, BLOCK_BYTES = 1024, 1 << 22  # what is read at a time: the smaller of the two


@dataclass(frozen=True)
class Source:
    """The examples of a split: those of `shards`, one after another, with these `classes`.

    An example's index is its place in this sequence. Raises DataError if there is no shard, or if
    the shards' images differ in shape.
    """

    shards: tuple[Shard, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.shards:
            raise DataError("data: expected at least one file, found none")
        first = self.shards[0]
        for shard in self.shards[1:]:
            if shard.shape != first.shape:
                raise DataError(
                    f"{shard.name}: expected images of {by(first.shape)} as in {first.name}, "
                    f"found {by(shard.shape)}"
                )

    def __len__(self) -> int:
        return sum(len(shard) for shard in self.shards)

    @property
    def shape(self) -> Shape:
        """Height, width and channels of every image."""
        return self.shards[0].shape

    @property
    def _block(self) -> int:
        return max(1, min(BLOCK, BLOCK_BYTES // math.prod(self.shape)))

    def blocks(self, size: int | None = None, *, index: int = 0, count: int = 1) -> Blocks:
        """Yield all examples in order, at most `size` at a time, with their labels checked.

        If `count` is above 1, only part `index` of `count` parts is read. The parts consist of
        whole blocks, the same blocks that a single reader sees. So what is computed from a block
        does not depend on how many readers share the work. Raises DataError for a label that is not
        the index of a class, naming the file and the example.
        """
        size = size or self._block
        of_shards = [-(-len(shard) // size) for shard in self.shards]
        begin, end = (sum(of_shards) * (index + i) // count for i in (0, 1))
        first = 0
        for place, (shard, blocks) in enumerate(zip(self.shards, of_shards, strict=True), 1):
            start, stop = (min(max(0, edge - first) * size, len(shard)) for edge in (begin, end))
            first += blocks
            if start < stop:
                if first < end:
                    expect(self.shards[place])
                with closing(_checked(shard, len(self.classes), size, start, stop)) as reading:
                    yield from reading

    def load(self, progress: Progress | None = None) -> Arrays:
        """Read everything into memory; raises DataError as `blocks` does, or if it does not fit.

        A set that is in memory already is not copied.
        """
        if len(self.shards) == 1 and isinstance(only := self.shards[0], Memory):
            return Arrays(only.arrays.images, only.arrays.labels, self.classes)
        needed = len(self) * math.prod(self.shape)
        there = memory()
        # A system that is asked for too much would rather end the process than say no.
        if there is not None and needed > LARGEST_SHARE * there:
            raise DataError(
                f"{self.shards[0].name}: expected a set that fits into this machine's memory of "
                f"{there / 1e9:.1f} GB, found {needed / 1e9:.1f} GB of images. Read it from its "
                "files: --feed streamed"
            )
        ends = list(itertools.accumulate(len(shard) for shard in self.shards))
        images = np.empty((len(self), *self.shape), np.uint8)
        labels = np.empty(len(self), np.int64)
        done, stopped = 0, False
        telling = threading.Lock()  # listeners are called by one thread at a time

        def read(shard: Shard, end: int) -> None:
            nonlocal done
            place = end - len(shard)
            with closing(_checked(shard, len(self.classes), self._block, 0, len(shard))) as some:
                for some_images, some_labels in some:
                    images[place : place + len(some_labels)] = some_images
                    labels[place : place + len(some_labels)] = some_labels
                    place += len(some_labels)
                    if progress is not None:
                        with telling:
                            done += len(some_labels)
                            progress(done, len(self))
                    if stopped:
                        return

        with ThreadPoolExecutor(2) as pool:  # reading and copying release the interpreter
            try:
                list(pool.map(read, self.shards, ends))
            except BaseException:  # Ctrl-C too, for which all that is left would be read first
                stopped = True
                raise
        return Arrays(images, labels, self.classes)

    def labels(self, progress: Progress | None = None) -> NDArray[np.int64]:
        """Return the labels of all examples, int64 [N], read once from all files and checked."""
        return self.labels_and_content(progress)[0]

    def labels_and_content(
        self,
        progress: Progress | None = None,
        look: Callable[[NDArray[np.uint8]], None] | None = None,
    ) -> tuple[NDArray[np.int64], str]:
        """Return the labels, int64 [N], and a digest of all pixels and labels, in one pass.

        The digest is CRC-32C. It detects accidental changes, and takes hardly any time compared
        with the reading. It does not depend on the sizes of blocks and files. `look` is called
        with all images, a block at a time.
        """
        found = np.empty(len(self), np.int64)
        place, digest = 0, 0
        for images, some in self.blocks():
            found[place : place + len(some)] = some
            digest = google_crc32c.extend(digest, images.tobytes())
            if look is not None:
                look(images)
            place += len(some)
            if progress is not None:
                progress(place, len(found))
        return found, f"crc32c {google_crc32c.extend(digest, found.astype('<i8').tobytes()):08x}"

    def known_labels(self) -> NDArray[np.int64] | None:
        """Return the labels, int64 [N], if no file must be read for them; else None."""
        parts = [shard.labels for shard in self.shards if isinstance(shard, Listed)]
        return np.concatenate(parts) if len(parts) == len(self.shards) else None

    def first_images(self, count: int) -> NDArray[np.uint8]:
        """Return the first `count` images, or all if there are fewer: uint8 [k, H, W, C]."""
        return next(self.first_blocks(count, count))

    def first_blocks(self, count: int, size: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the first `count` images, or all if there are fewer, `size` at a time."""
        parts: list[NDArray[np.uint8]] = []
        have = 0
        with closing(self.blocks()) as blocks:
            for images, _ in blocks:
                while len(images) and count:
                    some = images[: min(count, size - have)]
                    images, count, have = images[len(some) :], count - len(some), have + len(some)
                    parts.append(some)
                    if have == size or not count:
                        yield np.concatenate(parts)
                        parts, have = [], 0
                if not count:
                    return
        if parts:
            yield np.concatenate(parts)

    def select(self, keep: NDArray[np.bool_]) -> Source:
        """Return the examples where `keep` [N] is true, with new indices, in the same order."""
        ends = list(itertools.accumulate(len(shard) for shard in self.shards))
        parts = [
            (shard, np.flatnonzero(keep[end - len(shard) : end]))
            for shard, end in zip(self.shards, ends, strict=True)
        ]
        return Source(
            tuple(_some(shard, chosen) for shard, chosen in parts if len(chosen)), self.classes
        )

    def resized(self, height: int, width: int) -> Source | None:
        """Return the same pictures in another size; None if not all of them can be resized."""
        parts = [s.resized(height, width) for s in self.shards if isinstance(s, Resizable)]
        return Source(tuple(parts), self.classes) if len(parts) == len(self.shards) else None


def relabeled(source: Source, classes: tuple[str, ...]) -> Source:
    """Return a source with the labels of other `classes`, which must contain its own by name.

    Raises DataError for a class that they lack.
    """
    if source.classes == classes:
        return source
    label_of = {name: label for label, name in enumerate(classes)}
    if unknown := [name for name in source.classes if name not in label_of]:
        raise DataError(
            f"{source.shards[0].name}: expected classes among {len(classes):,}, such as "
            f"{classes[0]!r}, found {unknown[0]!r} ({len(unknown):,} unknown ones)"
        )
    table = np.array([label_of[name] for name in source.classes], np.int64)
    return Source(tuple(Relabeled(shard, table) for shard in source.shards), classes)


def in_memory(arrays: Arrays) -> Source:
    """Make a source of a set in memory."""
    return Source((Memory(arrays),), arrays.classes)


@dataclass(frozen=True)
class Memory:
    """A shard in memory. Its blocks share memory with `arrays`."""

    arrays: Arrays
    name: str = "in memory"
    seekable: bool = True

    @property
    def shape(self) -> Shape:
        """Height, width and channels of every image."""
        return self.arrays.shape

    def __len__(self) -> int:
        return len(self.arrays)

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield the examples `start` to `stop`; see `Shard`."""
        for at in range(start, stop, size):
            part = slice(at, min(at + size, stop))
            yield self.arrays.images[part], self.arrays.labels[part]


@dataclass(frozen=True)
class Relabeled:
    """A shard with other labels: `table` int64 [classes] has the new label for each class."""

    shard: Shard
    table: NDArray[np.int64]

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.shard.name

    @property
    def shape(self) -> Shape:
        """Height, width and channels of every image."""
        return self.shard.shape

    @property
    def seekable(self) -> bool:
        """Whether reading may start anywhere."""
        return self.shard.seekable

    def __len__(self) -> int:
        return len(self.shard)

    def expect(self) -> None:
        """Begin to bring what it holds; see `shards.Awaited`."""
        expect(self.shard)

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield the examples `start` to `stop`, `size` at a time; see `Shard`."""
        with closing(_checked(self.shard, len(self.table), size, start, stop)) as blocks:
            for images, labels in blocks:
                yield images, self.table[labels]


@dataclass(frozen=True)
class Subset:
    """Some examples of another shard: those at the places `chosen`, int64 [k], ascending."""

    shard: Shard
    chosen: NDArray[np.int64]

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.shard.name

    @property
    def shape(self) -> Shape:
        """Height, width and channels of every image."""
        return self.shard.shape

    @property
    def seekable(self) -> bool:
        """Whether reading may start anywhere."""
        return self.shard.seekable

    def __len__(self) -> int:
        return len(self.chosen)

    def expect(self) -> None:
        """Begin to bring what it holds; see `shards.Awaited`."""
        expect(self.shard)

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield the examples `start` to `stop`, `size` at a time; see `Shard`.

        Examples between the chosen ones are read and skipped.
        """
        wanted = self.chosen[start:stop]
        if not len(wanted):
            return
        first = int(wanted[0])
        waiting: list[Block] = []
        have = 0
        with closing(self.shard.blocks(first, int(wanted[-1]) + 1, size)) as blocks:
            for images, labels in blocks:
                a, b = np.searchsorted(wanted, (first, first + len(labels)))
                inside = wanted[a:b] - first
                first += len(labels)
                waiting.append((images[inside], labels[inside]))
                have += len(inside)
                if have >= size:
                    images, labels = _join(waiting)
                    yield images[:size], labels[:size]
                    waiting, have = [(images[size:], labels[size:])], have - size
        if have:
            yield _join(waiting)


@runtime_checkable
class Resizable(Shard, Protocol):
    """A shard of encoded pictures, which can be brought to any size."""

    def resized(self, height: int, width: int) -> Shard:
        """Return the same pictures brought to another size."""


@runtime_checkable
class Listed(Resizable, Protocol):
    """A shard in which each example is a file, with labels that are known beforehand."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The labels of all examples, int64 [N]."""

    def some(self, chosen: NDArray[np.int64]) -> Shard:
        """Return those at the places `chosen`, int64 [k], ascending; no other file is read."""


def _some(shard: Shard, chosen: NDArray[np.int64]) -> Shard:
    return shard.some(chosen) if isinstance(shard, Listed) else Subset(shard, chosen)


def _join(blocks: list[Block]) -> Block:
    images, labels = zip(*blocks, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _checked(shard: Shard, classes: int, size: int, start: int, stop: int) -> Blocks:
    place = start
    for images, labels in shard.blocks(start, stop, size):
        outside = np.flatnonzero((labels < 0) | (labels >= classes))
        if outside.size:
            raise DataError(
                f"{shard.name}: expected labels 0 to {classes - 1}, the index of a class, found "
                f"{labels[outside[0]]} for example {place + int(outside[0])}"
            )
        yield images, labels
        place += len(labels)


def held_out(
    labels: NDArray[np.int64],
    size: int,
    *,
    choice: Literal["stratified", "first"],
    seed: int,
    first: NDArray[np.int64] | None = None,
) -> NDArray[np.bool_]:
    """Choose `size` of the examples for validation: bool [N], the same ones for the same seed.

    "stratified": at random, with each class in its proportion, exact to the example. "first": the
    first ones, as the old MNIST programs do. `first`: the place of the first copy of each example,
    int64 [N]. With it, all copies of an image are held out, or none of them. So fewer examples are
    held out if the next copies do not fit, and more if every image has more copies than `size`. If
    all examples are copies of one image, they are divided like other examples. Raises DataError if
    no example would be left for training.
    """
    n = len(labels)
    if not 0 <= size < n:
        raise DataError(f"validation_size: expected 0 to {n - 1}, found {size}")
    if first is None or not first.any():  # all are copies of the first one
        first = np.arange(n, dtype=np.int64)
    leaders, group = np.unique(first, return_inverse=True)
    copies = np.bincount(group)
    # Order the images of each class at random; the one whose copies are at places p to q - 1 of a
    # class of m stands at (p + q) / 2m. Taking the smallest takes the same share of every class.
    place = leaders.astype(np.float64)
    if choice == "stratified":
        keys = hashing.bits(seed, hashing.SPLIT, np.zeros(1, np.int64), leaders)
        for label in np.unique(labels[leaders]):
            members = np.flatnonzero(labels[leaders] == label)
            ranked = members[np.argsort(keys[members], kind="stable")]
            ends = np.cumsum(copies[ranked])
            place[ranked] = (ends - copies[ranked] / 2) / ends[-1]
    order = np.argsort(place, kind="stable")
    chosen = np.zeros(len(leaders), np.bool_)
    chosen[order[_fitting(copies[order], size)]] = True
    return chosen[group]


def _fitting(counts: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Choose the first groups whose `counts` of examples add up to `size`, bool [groups].

    A group that is too large is skipped; if all are, the smallest one is chosen.
    """
    fit = np.cumsum(counts) <= size
    left = size - int(counts[fit].sum())
    for place in np.flatnonzero(~fit):
        if left and counts[place] <= left:
            fit[place] = True
            left -= int(counts[place])
    if size and not fit.any():
        fit[counts.argmin()] = True
    return fit
