"""The speed of training the tutorial network from memory, by the order of the examples."""

from __future__ import annotations

from functools import partial

from tools import trainings
from tools.comparison import Case

CASE = Case(
    what="training the tutorial network from memory, by the order of its examples",
    unit="images/s",
    contenders={
        order: partial(trainings.images_per_second, "fp32", ("--order", order))
        for order in ("epochs", "queue")
    },
    denominator="epochs",
)
