"""The learning-rate range test: a short training that finds out which rates make a network learn.

The rate grows exponentially from step to step. While it is too low, the loss does not change. Then
the loss falls. At the end it rises, since the rate is too high. (Smith: "Cyclical learning rates
for training neural networks", 2017, section 3.3; with exponential growth: Gugger, "How do you find
a good learning rate", 2018.)
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepcnn.config import Config
from deepcnn.errors import ConfigError, TrainingError
from deepcnn.events import Advanced, Listener, ignore
from deepcnn.inputs.fed import Fed, FeedSource
from deepcnn.learning.assembly import RATES
from deepcnn.models.build import BUILDERS, Given
from deepcnn.team.team import Team
from deepcnn.training.session import FromPython, Session

TRIES = 200
LOWEST, HIGHEST = 1e-4, 1e2  # times the learning rate of the configuration
DIVERGED = 4.0  # times the lowest loss: from then on nothing is to be learned of higher rates
LEAST, AVERAGED = 20, 10  # steps that tell something, and those whose average is still rough


@dataclass(frozen=True)
class RangeTest:
    """What a range test found, with a value for each step that was made.

    `config`: the tested configuration. `rates`: the learning rate of each step; it is
    `optimizer.learning_rate` times a factor, which multiplied all other rates, too. `losses`: the
    total loss before each update. `smoothed`: its debiased moving average. `diverged`: whether the
    test ended because the loss grew.
    """

    config: Config
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    diverged: bool

    @property
    def lowest(self) -> int:
        """The step with the lowest smoothed loss, once a few are averaged."""
        start = min(AVERAGED, len(self.smoothed) - 1)
        return int(np.argmin(self.smoothed[start:])) + start

    @property
    def steepest(self) -> int:
        """Among the steps up to the lowest loss, the one where the smoothed loss falls fastest."""
        way = max(2, len(self.rates) // 20)
        until = np.array(self.smoothed[AVERAGED : self.lowest + 1])
        falls = until[way:] - until[:-way]
        return int(np.argmin(falls)) + AVERAGED + way // 2 if len(falls) else self.lowest

    @property
    def fell(self) -> bool:
        """Whether the average fell by more than it does by chance.

        Single losses deviate 4.4 times as much as their average. A fall by this amount and a
        quarter more happens by chance in fewer than one of a hundred tests.
        """
        if len(self.rates) < LEAST or self.lowest == AVERAGED:
            return False
        begun = max(LEAST, len(self.rates) // 4)
        deviation = np.std(np.diff(self.losses[:begun])) / math.sqrt(2)  # whatever the trend
        first = np.mean(self.smoothed[AVERAGED:begun])
        return bool(first - self.smoothed[self.lowest] > 1.25 * deviation)

    @property
    def suggestion(self) -> float | None:
        """A learning rate to begin with, or None if the loss did not fall.

        It is the geometric mean of two rates. The rate of the steepest descent is often too high
        for a whole training. A tenth of the rate of the lowest loss is often too low.
        """
        if not self.fell:
            return None
        return _rounded(math.sqrt(self.rates[self.steepest] * self.rates[self.lowest] / 10))

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences that say what speaks against the suggestion, or why there is none."""
        if not self.fell and self.diverged:
            return ("The loss grew before it fell: test lower rates (lowest), or more (tries).",)
        if not self.fell:
            return ("The loss did not fall: test higher rates (highest), or more (tries).",)
        found = []
        if self.steepest < len(self.rates) // 4:
            found.append("The loss fell from the beginning: test lower rates, too (lowest).")
        if self.lowest > 0.95 * len(self.rates):
            found.append("The loss fell to the end: test higher rates, too (highest).")
        return tuple(found)

    def at(self, rate: float) -> Config:
        """Return the configuration with this learning rate, and all others in proportion."""
        optimizer = self.config.optimizer
        factor = rate / optimizer.learning_rate
        found = {name: getattr(optimizer, name) for name in RATES}
        changed: dict[str, Any] = {
            name: _rounded(old * factor) for name, old in found.items() if old is not None
        }
        return dataclasses.replace(self.config, optimizer=dataclasses.replace(optimizer, **changed))


def range_test(
    config: Config,
    *,
    lowest: float | None = None,
    highest: float | None = None,
    tries: int = TRIES,
    feed: Fed | FeedSource | None = None,
    model: Given | None = None,
    emit: Listener = ignore,
) -> RangeTest:
    """Train for `tries` steps at growing rates, and tell how the loss changed; no run is kept.

    `lowest`, `highest`: the learning rates of the first and the last step; None: 1/10,000 and 100
    times the configuration's rate. All layers learn, images have their full size, and no schedule
    changes the rate. `feed`, `model`, `emit`: as for `train`. Raises ConfigError for rates that do
    not grow or for fewer than 20 tries, TrainingError if no loss is finite, and whatever `train`
    raises for settings and data.
    """
    optimizer = config.optimizer
    low = optimizer.learning_rate * LOWEST if lowest is None else lowest
    high = optimizer.learning_rate * HIGHEST if highest is None else highest
    if not 0 < low < high < math.inf:
        raise ConfigError(
            f"lowest, highest: expected 0 < lowest < highest, found {low:g} and {high:g}"
        )
    if tries < LEAST:
        raise ConfigError(f"tries: expected at least {LEAST}, found {tries}")
    growth = (high / low) ** (1 / (tries - 1))
    rates = [low * growth**step for step in range(tries)]
    if model is None and config.model.name not in BUILDERS:
        model = config.model.name  # whoever calls names it here
    given = FromPython(None if feed is None else Fed.of(feed), model)
    with Session.open(Team(), _rehearsal(config, tries), given, emit) as session:
        session.rehearse(lambda step: low * growth**step / optimizer.learning_rate)
        losses, smoothed = _train(session, emit)
    if len(losses) < 2:
        raise TrainingError(
            f"The loss was not finite from the beginning, at learning rate {low:g}. Test lower "
            "rates: lowest"
        )
    diverged = len(losses) < tries or smoothed[-1] > DIVERGED * min(smoothed)
    return RangeTest(config, tuple(rates[: len(losses)]), losses, smoothed, diverged)


def _rehearsal(config: Config, steps: int) -> Config:
    """Return a configuration in which steps differ only in their rates."""
    optimizer = dataclasses.replace(
        config.optimizer, schedule="constant", warm_up=0.0, drops=(), freeze=()
    )
    return dataclasses.replace(
        config,
        inputs=dataclasses.replace(config.inputs, scales=()),
        optimizer=optimizer,
        steps=steps,
        epochs=None,
        average_decay=None,
        summary_every=0,
        evaluate_every=0,
        keep_best=False,
    )


def _train(session: Session, emit: Listener) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Make steps until the loss diverges; return their losses and the averages of the losses."""
    state, steps = session.state, session.config.steps
    losses: list[float] = []
    smoothed: list[float] = []
    state.model.train()
    while state.step < steps:
        loss = float(session.engine.step()[-1])  # of a training this would be a wait too much
        state.forget_gradients()
        emit(Advanced(state.step, steps, state.step / steps))
        if not math.isfinite(loss):
            break
        losses.append(loss)
        smoothed.append(float(state.loss_averages.values(state.step)[-1]))
        if smoothed[-1] > DIVERGED * min(smoothed):
            break
    return tuple(losses), tuple(smoothed)


def _rounded(rate: float) -> float:
    return float(f"{rate:.2g}")
