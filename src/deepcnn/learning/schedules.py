"""Learning rates as functions of the step."""

from __future__ import annotations

from collections.abc import Sequence


def staircase(step: int, *, decay_steps: int, factor: float) -> float:
    """Return factor ** floor(step / decay_steps)."""
    return float(factor ** (step // decay_steps))


def drops(step: int, *, starts: Sequence[int], factor: float) -> float:
    """Return `factor` to the power of how many of the `starts`, steps, are reached."""
    return float(factor ** sum(step >= start for start in starts))


def linear(step: int, *, steps: int) -> float:
    """Return 1 at step 0, falling in a straight line that reaches 0 at `steps`."""
    return max(0.0, 1 - step / steps)
