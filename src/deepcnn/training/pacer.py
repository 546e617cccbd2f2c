"""Keeps a training within its budget: if steps take longer than measured, it makes fewer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from deepcnn.events import Noted
from deepcnn.training.forecast import Forecast
from deepcnn.training.plan import Plan
from deepcnn.training.session import Session

# So much too early or too late is no reason to change anything: the more of these, of the budget
# and of the time that is left.
OF_ALL, OF_THE_REST = 0.02, 0.05
BETWEEN = 0.04  # of the budget, at least, from one look to the next


class Pacer:
    """Checks now and then whether a training will end in time; if not, changes its steps.

    Each change is stored before any step depends on it. So a resumed run makes the same changes,
    without looking at a clock. `clock`: the one that measured `plan.began`.
    """

    def __init__(
        self,
        session: Session,
        plan: Plan,
        forecast: Forecast,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session, self._plan, self._forecast = session, plan, forecast
        self._clock, self._looked = clock, clock()

    def look(self) -> None:
        """Check the time between two steps, if it is time to do so."""
        session, plan, now = self._session, self._plan, self._clock()
        step, config = session.state.step, session.config
        if step % session.decided_at_once or not step < config.steps:
            return
        if now - self._looked < BETWEEN * plan.budget:
            return
        self._looked = now
        share, left = config.share_at(step), plan.until - now
        expected = self._forecast.seconds_left(share, config.steps - step)
        if expected is None:
            return
        if abs(expected - left) < max(OF_ALL * plan.budget, OF_THE_REST * left):
            return
        steps = min(step + self._forecast.steps_that_fit(share, left), plan.most)
        # Somebody else's burst of work looks like a slow machine: not all is given up at once.
        steps = max(steps, step + math.ceil((config.steps - step) / 2))
        if steps == config.steps:
            return
        before = config.steps
        if session.change_pace((*config.pace, (step, before)), steps):
            speed = "slower" if steps < before else "faster"
            session.tell(
                Noted(
                    f"Steps are {speed} than measured: to keep the budget there are {steps:,} of "
                    f"them and not {before:,}."
                )
            )
