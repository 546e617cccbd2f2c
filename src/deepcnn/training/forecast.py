"""How long a training still takes: what each part of it costs, and how fast it was so far."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable
from dataclasses import dataclass

from deepcnn.config import Config
from deepcnn.inputs.transform import Transform
from deepcnn.settings import Views

# Seconds that a report takes, and more of them for 10,000 images; nothing can be measured before.
REPORT, OF_MANY = 2.0, 1.0
WINDOW = 1.0  # seconds over which the speed is taken
AT_MOST = 2.0  # times as slow as before it may seem at once: more is somebody else's burst of work
# Looks at an image in scoring, and how much a look costs of a step, which also goes backward and
# updates.
LOOKS: dict[Views, float] = {"one": 1, "mirrored": 2, "shifted": 6, "unsure": 3, "ten": 10}
LOOK = 1 / 3


@dataclass(frozen=True)
class Costs:
    """What the parts of a training cost.

    `phases`: pairs of a share of the training, from 0 on and rising, and the cost of a step from
    there on. `scoring`: the cost of scoring after the last step; it gets faster and slower together
    with the steps. Both are in seconds if they were measured; else their unit is the cost of a step
    with images of full size. `report`: seconds for the report at the end.
    """

    phases: tuple[tuple[float, float], ...]
    scoring: float
    report: float
    measured: bool

    def at(self, share: float) -> float:
        """Return the cost of a step that begins at a share of the training."""
        found = bisect.bisect_right(self.phases, share, key=lambda phase: phase[0])
        return self.phases[max(0, found - 1)][1]

    def mean(self, share: float = 0.0) -> float:
        """Return the mean cost of a step from a share of the training, below 1, to its end."""
        starts = [start for start, _ in self.phases]
        total = sum(
            cost * max(0.0, stop - max(start, share))
            for (start, cost), stop in zip(self.phases, [*starts[1:], 1.0], strict=True)
        )
        return total / (1 - share)


def phases_of(config: Config) -> tuple[float, ...]:
    """Return the shares of a training at which the cost of a step changes, from 0 on."""
    starts = [start for start, _ in config.inputs.scales]
    settled = [share for _, share in config.optimizer.freeze if share < 1]
    return tuple(sorted({0.0, *starts, *settled}))


def reporting(scored: int) -> float:
    """Return the seconds that a report about this many images takes."""
    return REPORT + OF_MANY * min(1.0, scored / 10_000)


def guessed(config: Config, transform: Transform, scored: int, *, report: bool) -> Costs:
    """Return estimated costs, without a measurement: a step's cost is proportional to its pixels.

    `scored`: the number of images that are scored after the last step.
    """
    phases = tuple((share, transform.scale_at(share) ** 2) for share in phases_of(config))
    looks = scored * LOOKS[config.inputs.views]
    return Costs(
        phases, looks * LOOK / config.batch_size, reporting(scored) * report, measured=False
    )


class Forecast:
    """Tells how long a training still takes.

    `settles`: seconds after which earlier measurements count little. `clock`: returns seconds since
    any fixed moment.
    """

    def __init__(
        self,
        costs: Costs,
        *,
        settles: float = 5.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.costs, self._settles, self._clock = costs, settles, clock
        self._pace = 1.0 if costs.measured else None  # seconds that a unit of the costs takes
        self._since, self._done = clock(), 0.0

    def made(self, share: float) -> None:
        """Note that a step was made, which began at a share of the training."""
        self._done += self.costs.at(share)
        seconds = self._clock() - self._since
        if seconds < WINDOW:
            return
        recent = seconds / self._done
        if self._pace is None:
            self._pace = recent
        recent = min(recent, AT_MOST * self._pace)
        self._pace += (recent - self._pace) * min(1.0, seconds / self._settles)
        self._since, self._done = self._clock(), 0.0

    def seconds_left(self, share: float, steps: int) -> float | None:
        """Return the seconds until everything is done; None before anything is known.

        `share`: of the training that is done. `steps`: the number that is still to be made.
        """
        if self._pace is None:
            return None
        units = steps * self.costs.mean(share) if steps else 0.0
        return (units + self.costs.scoring) * self._pace + self.costs.report

    def steps_that_fit(self, share: float, seconds: float) -> int:
        """Return how many steps fit from a share of the training to its end, at least one.

        `seconds`: until everything must be done. Raises ValueError before anything is known.
        """
        if self._pace is None:
            raise ValueError("nothing is known of the speed yet")
        for_steps = (seconds - self.costs.report) / self._pace - self.costs.scoring
        return max(1, int(for_steps / self.costs.mean(share)))
