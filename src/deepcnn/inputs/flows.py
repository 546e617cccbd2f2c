"""What all steps of a pipeline have in common: flows of blocks, and how to stop inside one.

A step makes a flow: a generator of blocks of examples, for one epoch. With every block comes the
state of the flow after it: a few numbers that JSON can hold. A new flow can start from this state,
with the very blocks that would have followed. Random choices in a step are functions of (seed,
epoch, position), so no state holds examples or a random generator. When a flow is closed, it closes
all that it reads from.

To stop inside a block, a `Taker` keeps the state before the block and the number of its examples
that are done. So a stop is possible at every example, with any steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Any

import numpy as np

from deepcnn.errors import DataError
from deepcnn.inputs.shuffle import Columns

State = Any  # of a flow, fit for JSON; None: before its first block
Flow = Generator[tuple[Columns, State], None, None]


class Step(ABC):
    """A step of a pipeline. Steps are not changed by the flows that they make."""

    @property
    def examples(self) -> int | None:
        """The number of examples in an epoch, if it is known before the epoch is read."""
        return None

    @abstractmethod
    def flow(self, epoch: int, state: State = None) -> Flow:
        """Yield the blocks of an epoch, from a state on, each with the state after it."""


class Taker:
    """Takes any number of examples from the flow of a step, and knows its place.

    State: that of the flow before the present block, and how many examples of this block are taken.
    """

    def __init__(self, step: Step, epoch: int, state: State = None) -> None:
        before, skip = (None, 0) if state is None else state
        self._before: State = before
        self._after: State = before
        self._blocks = step.flow(epoch, self._before)
        self._block: Columns | None = None
        self._taken = 0
        if skip and self.have():
            self._taken = skip

    def have(self) -> int:
        """Return how many examples can be taken now; 0 only at the end."""
        while self._block is None or self._taken == len(self._block[0]):
            self._before, self._taken = self._after, 0
            self._block, self._after = next(self._blocks, (None, self._after))
            if self._block is None:
                return 0
        return len(self._block[0]) - self._taken

    def take(self, count: int) -> Columns:
        """Return the next `count` examples; the block must have this many left."""
        assert self._block is not None
        part = slice(self._taken, self._taken + count)
        self._taken += count
        return tuple(column[part] for column in self._block)

    def state(self) -> State:
        """Return its place, in a form that JSON can hold."""
        if self._block is not None and self._taken == len(self._block[0]):
            return [self._after, 0]
        return [self._before, self._taken]

    def close(self) -> None:
        """Close the flow that is read."""
        self._blocks.close()


def join(step: str, parts: list[Columns]) -> Columns:
    """Join blocks to one; raises DataError if their arrays differ in kind."""
    if len(parts) == 1:
        return parts[0]
    for part in parts:
        for mine, first in zip(part[1:], parts[0][1:], strict=False):
            if mine.shape[1:] != first.shape[1:] or mine.dtype != first.dtype:
                raise DataError(
                    f"{step}: expected examples alike, of {first.dtype} {list(first.shape[1:])} as "
                    f"the first, found {mine.dtype} {list(mine.shape[1:])}. Make them so by map."
                )
        if len(part) != len(parts[0]):
            raise DataError(
                f"{step}: expected {len(parts[0]) - 1} arrays for each example as for the first, "
                f"found {len(part) - 1}"
            )
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))
