"""A plan: what a training will do in its time, and how long its parts take."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from deepcnn.config import Config
from deepcnn.durations import shown
from deepcnn.errors import ConfigError
from deepcnn.events import Planned
from deepcnn.training.forecast import Costs

AIM = 0.97  # of the budget: what is aimed at, so that little goes beyond it
MORE = 1.03  # times what steps alone take: what is saved and told between them
BEGIN = 0.7  # seconds from the plan to the first step: the run's directory and the network's graph
LEAST = 10  # steps without which there is nothing to train


@dataclass(frozen=True)
class Plan:
    """What a training will do.

    `config`: with the number of its steps. `costs`: as measured. `budget`: seconds that the whole
    process may take. `began`: when it began, by a clock. `now`: when the plan was made. `most`: the
    number of steps beyond which more would not help. `told`: the event about the plan.
    """

    config: Config
    costs: Costs
    budget: float
    began: float
    now: float
    most: int
    told: Planned | None = None

    @property
    def until(self) -> float:
        """When everything must be done, by the same clock."""
        return self.began + AIM * self.budget

    @property
    def before(self) -> float:
        """Seconds that had passed when the plan was made."""
        return self.now - self.began

    @property
    def training(self) -> float:
        """Seconds that the steps will take."""
        return BEGIN + MORE * self.config.steps * self.costs.mean()

    @property
    def total(self) -> float:
        """Seconds that the whole process will take."""
        return self.before + self.training + self.costs.scoring + self.costs.report

    @property
    def enough(self) -> bool:
        """Whether the plan has all steps that are useful, with time left for more."""
        return self.config.steps >= self.most


def fitted(plan: Plan) -> Plan:
    """Return the plan with as many steps as fit; raise ConfigError if the budget is too small.

    The number of steps in the plan's configuration is not used.
    """
    costs = plan.costs
    rest = plan.before + BEGIN + costs.scoring + costs.report
    each = MORE * costs.mean()
    steps = math.floor((AIM * plan.budget - rest) / each)
    if steps < min(LEAST, plan.most):
        needed = math.ceil((rest + LEAST * each) / AIM / 5) * 5
        raise ConfigError(
            f"budget: {shown(plan.budget)} are too little: all but the training takes "
            f"{shown(rest)} here, and {LEAST} steps take {shown(LEAST * each)}. Give it at least "
            f"{needed} seconds, as in --budget {needed}s"
        )
    return replace(plan, config=replace(plan.config, steps=min(steps, plan.most)))
