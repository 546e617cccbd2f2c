"""The events that the library tells its listeners; the library itself prints nothing.

A listener is a function of one event. The command line's lines and progress bars, the JSON-lines
log and TensorBoard are listeners.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # so that the command line answers without waiting for it
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Event:
    """Base of all events."""


Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listen to nothing."""


@dataclass(frozen=True)
class Fetching(Event):
    """Bytes of a data set have arrived; `total` is None if it is not known."""

    dataset: str
    source: str
    done: int
    total: int | None


@dataclass(frozen=True)
class SourceFailed(Event):
    """A place to fetch a data set from did not work; the next one is tried."""

    dataset: str
    source: str
    reason: str


@dataclass(frozen=True)
class Fetched(Event):
    """A data set has been verified and lies in `folder`."""

    dataset: str
    folder: str


@dataclass(frozen=True)
class Reading(Event):
    """A pass over many examples has come this far; `total` is None if it is not known."""

    what: str
    done: int
    total: int | None


@dataclass(frozen=True)
class Noted(Event):
    """Something that a user should know, but need not act on."""

    text: str


@dataclass(frozen=True)
class LeftOut(Noted):
    """A picture file that cannot be read and is left out; `reason`: what is wrong with it."""

    path: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Filling(Event):
    """A queue is about to be filled with this many examples, before the first step.

    `data`: the name of the images in the message, such as CIFAR, or nothing.
    """

    examples: int
    data: str = ""


@dataclass(frozen=True)
class Planned(Event):
    """What a training will do in the time that it is given.

    `shape`: height, width and channels of the images as they are read; `original`: as they are
    stored. `growing`: the shares of each side to which they are scaled, one after another; none if
    they have their full size from the beginning. `examples`: the number to train on; `left_out`:
    the number left out for lack of time; `scored`: the number in the split that counts.

    In seconds: `before` have passed; `training`, `scoring` and `report` are expected; `budget` is
    for the whole process; `reading` went into reading `data`, if those are pictures. `enough`: more
    steps than these would not help.
    """

    shape: tuple[int, int, int]
    original: tuple[int, int, int]
    growing: tuple[float, ...]
    classes: int
    examples: int
    left_out: int
    batch_size: int
    steps: int
    views: str
    split: str
    scored: int
    before: float
    training: float
    scoring: float
    report: float
    budget: float
    enough: bool
    data: str = ""
    reading: float = 0.0


@dataclass(frozen=True)
class Started(Event):
    """Training is about to make its first step, or the first after resuming."""

    run: str
    preset: str
    model: str
    step: int
    steps: int
    batch_size: int
    parameters: int
    examples: int
    device: str
    precision: str
    threads: int
    towers: int
    processes: int


@dataclass(frozen=True)
class BeganWith(Event):
    """A new training has taken layers from another one; `runs.beginning` explains the fields.

    `text`: the same in one line.
    """

    path: str
    file: str
    step: int
    averaged: bool
    data: str | None
    sha256: str
    taken: tuple[str, ...]
    refitted: tuple[str, ...]
    left: dict[str, str]
    text: str


@dataclass(frozen=True)
class Placed(Event):
    """A table that shows what is on which device."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class EnvironmentChanged(Event):
    """A resumed run has another environment. It goes on, but not bit for bit."""

    differences: tuple[str, ...]


@dataclass(frozen=True)
class Stepped(Event):
    """A step to log. `losses`: those of this step; `averages`: their moving averages.

    `seconds` are for one step, `examples_per_second` for all devices together; both are averages
    since the last such event. `learning_rate`: the one that this step used.

    `correct` of the `total` images of the step's batch were answered correctly, as they are
    distorted in training and by the network before the update; None if nobody counted.
    `seconds_left`: until everything is done, including scoring and the report, as far as this is
    known.
    """

    step: int
    losses: dict[str, float]
    averages: dict[str, float]
    learning_rate: float
    examples_per_second: float
    seconds: float
    correct: int | None = None
    total: int | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class Advanced(Event):
    """A step has been handed to the device; for progress bars. Its result may not be there yet.

    `work`: the share of the training's work that is done, if steps differ. `seconds_left`: until
    everything is done, including scoring and the report, as far as this is known.
    """

    step: int
    steps: int
    work: float
    seconds_left: float | None = None


@dataclass(frozen=True)
class Histogram:
    """How often values fall into buckets of equal width: `counts` [n] between `edges` [n + 1].

    `total` is the sum of all values, `squares` the sum of their squares. Values that are not finite
    are left out.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.float64]
    total: float
    squares: float


@dataclass(frozen=True)
class Node:
    """An operation or a variable: `module/…/name`, fed by the nodes `inputs`, on a `device`."""

    name: str
    operation: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    device: str = ""


@dataclass(frozen=True)
class Traced(Event):
    """The graph of a training step, in the order of computation; -1: the size of a batch."""

    nodes: tuple[Node, ...] = field(repr=False)


@dataclass(frozen=True)
class Summarized(Event):
    """What a visualizer shows about a step, by tag; images are uint8 [H, W, C]."""

    step: int
    scalars: dict[str, float] = field(repr=False)
    histograms: dict[str, Histogram] = field(repr=False)
    images: dict[str, NDArray[np.uint8]] = field(repr=False)


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint was written; `step` counts the updates that it holds."""

    step: int
    path: str


@dataclass(frozen=True)
class RolledBack(Event):
    """Something was not finite at a step: the training goes on from a checkpoint at half the rate.

    `what`: what was not finite, in words. `back_to`: the checkpoint's step. `rollbacks`: how many
    there were, including this one. `learning_rate`: of the optimizer from now on, before any
    schedule.
    """

    step: int
    what: str
    back_to: int
    rollbacks: int
    learning_rate: float

    @property
    def text(self) -> str:
        """The event in one line."""
        return (
            f"{self.what[0].upper()}{self.what[1:]} was not finite at step {self.step:,}. Back to "
            f"the checkpoint of step {self.back_to:,}, at half the learning rate: "
            f"{self.learning_rate:g} (rollback {self.rollbacks})."
        )


@dataclass(frozen=True)
class Evaluated(Event):
    """A model was scored: `correct` of `total` examples, mean cross-entropy `loss`."""

    step: int
    split: str
    averaged: bool
    correct: int
    total: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Return the share of correct answers, 0 to 1 ("precision @ 1")."""
        return self.correct / self.total


@dataclass(frozen=True)
class Waiting(Event):
    """An evaluation that follows a training waits for the next checkpoint."""

    run: str


@dataclass(frozen=True)
class Interrupted(Event):
    """Training was asked to stop. It has saved, unless saving failed.

    `reason`: what asked it to stop, such as SIGTERM.
    """

    step: int
    run: str
    reason: str = ""
    saved: bool = True


@dataclass(frozen=True)
class Finished(Event):
    """Training has made its last step."""

    step: int
    run: str
    seconds: float


@dataclass(frozen=True)
class Reported(Event):
    """A report about the run was written: a page, the same as JSON, and all answers."""

    path: str
