"""Learning rates as functions of the step: factors of the initial rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

RISE = 0.3  # of one cycle
FIRST, LAST = 1 / 25, 1 / 25 / 1e4  # of one cycle, as in torch.optim.lr_scheduler.OneCycleLR


def staircase(step: float, *, decay_steps: int, factor: float) -> float:
    """Return factor ** floor(step / decay_steps)."""
    return float(factor ** (step // decay_steps))


def drops(step: float, *, starts: Sequence[int], factor: float) -> float:
    """Return `factor` to the power of the number of `starts`, which are steps, that are reached."""
    return float(factor ** sum(step >= start for start in starts))


def linear(step: float, *, steps: int, start: float = 0.0) -> float:
    """Return 1 up to the step `start`, then a straight line that reaches 0 at `steps`."""
    return max(0.0, 1 - _share(step, start, steps))


def cosine(step: float, *, steps: int, start: float = 0.0) -> float:
    """Return 1 up to the step `start`, then half a cosine wave that reaches 0 at `steps`.

    (Loshchilov, Hutter: "SGDR: stochastic gradient descent with warm restarts", 2017, without a
    restart.)
    """
    return (1 + math.cos(math.pi * min(1.0, _share(step, start, steps)))) / 2


def one_cycle(step: float, *, steps: int) -> float:
    """Return a rise from `FIRST` to 1 in the share `RISE` of the steps, then a fall to `LAST`.

    Both are half waves of a cosine. The fall ends at the step `steps` - 1. (Smith, Topin:
    "Super-convergence: very fast training of neural networks using large learning rates", 2018, in
    the form of torch.optim.lr_scheduler.OneCycleLR.)
    """
    top, end = RISE * steps - 1, steps - 1
    if step <= top:
        return _wave(FIRST, 1.0, step / top)
    return _wave(1.0, LAST, min(1.0, (step - top) / (end - top)))


def warm_up(step: float, *, steps: float) -> float:
    """Return a straight line from 0 at step 0 to 1 at the step `steps`, and 1 from there on.

    (Goyal et al.: "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017.)
    """
    return min(1.0, step / steps)


def _share(step: float, start: float, end: int) -> float:
    """Return how much of the way from one step to another is done, at least 0."""
    return max(0.0, (step - start) / (end - start))


def _wave(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
