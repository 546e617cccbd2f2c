"""Encoded pictures in parts, each of which is worked on by one process.

The processes get parts by pickling them, so they are small and plain.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

MOST_BYTES = 2**22  # of a part: of files that are in memory, or of decoded images


class Part(Protocol):
    """Some pictures in order."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __iter__(self) -> Iterator[tuple[str | bytes, int]]:
        """Yield the path of each picture, or its bytes, and its label; raises DataError."""

    def where(self, place: int) -> Any:
        """Return where a picture lies, for errors: a path or a text."""


InParts = Generator[Part, None, None]
OneByOne = Generator[tuple[str, bytes, int], None, None]  # each with its place and its label


@dataclass(frozen=True, eq=False)
class Files:
    """Pictures that are files of their own."""

    paths: Sequence[str]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return zip(self.paths, self.labels, strict=True)

    def where(self, place: int) -> Path:
        """Return the path of a picture."""
        return Path(self.paths[place])


@dataclass(frozen=True, eq=False)
class Contents:
    """Pictures whose bytes are in memory; `wheres`: where each lay."""

    wheres: Sequence[str]
    contents: Sequence[bytes]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.contents)

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        return zip(self.contents, self.labels, strict=True)

    def where(self, place: int) -> str:
        """Return where a picture lay."""
        return self.wheres[place]


@dataclass(frozen=True, eq=False)
class Some:
    """Those pictures of another part that stand at the places `at`, ascending."""

    part: Part
    at: Sequence[int]

    def __len__(self) -> int:
        return len(self.at)

    def __iter__(self) -> Iterator[tuple[str | bytes, int]]:
        chosen = frozenset(self.at)
        return (each for place, each in enumerate(self.part) if place in chosen)

    def where(self, place: int) -> Any:
        """Return where a picture lies."""
        return self.part.where(self.at[place])


def gathered(reading: OneByOne, size: int) -> InParts:
    """Yield pictures that are read one by one in parts of at most `size`."""
    with closing(reading):
        some: list[tuple[str, bytes, int]] = []
        held = 0
        for each in reading:
            some.append(each)
            held += len(each[1])
            if len(some) == size or held >= MOST_BYTES:
                yield Contents(*zip(*some, strict=True))
                some, held = [], 0
        if some:
            yield Contents(*zip(*some, strict=True))
