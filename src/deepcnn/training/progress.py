"""What a training tells its listeners while it makes steps."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from deepcnn.engines.engine import Engine
from deepcnn.events import Advanced, Listener, Stepped
from deepcnn.learning import objective
from deepcnn.learning.state import TrainState
from deepcnn.runs import statistics
from deepcnn.training.forecast import Forecast

if TYPE_CHECKING:
    from deepcnn.training.session import Session

SUMMARY_SHARE = 0.03  # of the training time, at most, goes into histograms and pictures


class Progress:
    """Makes the events about a training's steps, and knows how fast steps follow each other."""

    def __init__(self, session: Session, forecast: Forecast) -> None:
        self._session, self._state, self._forecast = session, session.state, forecast
        self._step, self._time = session.state.step, time.perf_counter()

    def advanced(self) -> Advanced:
        """Return the event that a step was handed to the device."""
        session, step = self._session, self._state.step
        self._forecast.made(session.config.share_at(step - 1))
        work = session.transform.work_at(session.config.share_at(step))
        return Advanced(step, session.steps, work, self._seconds_left())

    def _seconds_left(self) -> float | None:
        session, step = self._session, self._state.step
        share = session.config.share_at(step)
        return self._forecast.seconds_left(share, session.steps - step)

    def stepped(self, step: int, losses: Tensor, correct: Tensor) -> Stepped:
        """Return the event to log about a step, with the speed since the last call.

        `losses`: float32 [losses]. `correct`: int64 [], how many of the batch's images were
        answered correctly. Both may be on any device; the method waits for it.
        """
        state, config = self._state, self._session.config
        names = objective.names(state.model)
        values, averages = losses.tolist(), state.loss_averages.values(state.step).tolist()
        now = time.perf_counter()  # after the device has answered
        seconds = (now - self._time) / (state.step - self._step)
        self._step, self._time = state.step, now
        return Stepped(
            step=step,
            losses=dict(zip(names, values, strict=True)),
            averages=dict(zip(names, averages, strict=True)),
            learning_rate=self._session.schedule(step)
            * self._session.slowed.optimizer.learning_rate,
            examples_per_second=config.batch_size / seconds,
            seconds=seconds,
            correct=int(correct),
            total=config.batch_size,
            seconds_left=self._seconds_left(),
        )


class Watcher:
    """Watches a step now and then: makes it, and tells what a visualizer shows of it.

    `every`: steps from one watched step to the next, 0 for never. If there is no time for it, a
    step is not watched.
    """

    def __init__(self, every: int, tell: Listener) -> None:
        self._every = every
        self._tell = tell
        self._budget = Budget(SUMMARY_SHARE)

    def wants(self, step: int) -> bool:
        """Tell whether a step is to be watched."""
        return self._every > 0 and step % self._every == 0 and self._budget.left()

    def step(self, engine: Engine, state: TrainState) -> Tensor:
        """Make a step of training, and tell of it; return its losses."""
        step = state.step
        with statistics.capture(engine.model) as activations:
            losses = engine.watched_step()
        with self._budget:
            self._tell(
                statistics.summarize(
                    step, images=engine.images, activations=activations, variables=state.model
                )
            )
        return losses


@dataclass
class Budget:
    """Keeps the work inside it below a share of the time since the budget was made."""

    share: float
    _spent: float = field(default=0.0, init=False)
    _began: float = field(default_factory=lambda: time.perf_counter(), init=False)
    _entered: float = field(default=0.0, init=False)

    def left(self) -> bool:
        """Tell whether there is time left."""
        return self._spent <= self.share * (time.perf_counter() - self._began)

    def __enter__(self) -> None:
        self._entered = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._spent += time.perf_counter() - self._entered
