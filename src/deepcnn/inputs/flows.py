"""What all steps of a pipeline have in common: flows of blocks, and how to stop within one.

A step makes a flow: a generator of blocks of examples, for one epoch. With every block comes the
state of the flow behind it: a few numbers, fit for JSON, from which a new flow goes on with the
very blocks that would have followed. What is random in a step is a function of (seed, epoch,
position), so no state holds examples or a generator of random numbers. A flow that is closed closes
all that it reads from.

Whoever stops within a block keeps the state before it and the number of its examples that are done
(`Taker`). So a stop is possible at every example, whatever the steps are.
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
        """How many an epoch has, where that is known before it is read."""
        return None

    @abstractmethod
    def flow(self, epoch: int, state: State = None) -> Flow:
        """Yield the blocks of an epoch, from a state on, each with the state behind it."""


class Taker:
    """Takes examples from the flow of a step, as many as are wanted, and knows where it stands.

    State: that of the flow before the block that is being taken from, and how many examples of the
    block are taken.
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
        """Return how many examples may be taken now; 0 only at the end."""
        while self._block is None or self._taken == len(self._block[0]):
            self._before, self._taken = self._after, 0
            self._block, self._after = next(self._blocks, (None, self._after))
            if self._block is None:
                return 0
        return len(self._block[0]) - self._taken

    def take(self, count: int) -> Columns:
        """Return the next `count` examples, of which there must be as many in the block."""
        assert self._block is not None
        part = slice(self._taken, self._taken + count)
        self._taken += count
        return tuple(column[part] for column in self._block)

    def state(self) -> State:
        """Return where it stands, fit for JSON."""
        if self._block is not None and self._taken == len(self._block[0]):
            return [self._after, 0]
        return [self._before, self._taken]

    def close(self) -> None:
        """Close what is read from."""
        self._blocks.close()


def join(step: str, parts: list[Columns]) -> Columns:
    """Join blocks to one; raises DataError where their arrays are not alike."""
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
