"""The speed of training the tutorial network, by precision."""

from __future__ import annotations

from functools import partial

from tools import trainings
from tools.comparison import Case

CASE = Case(
    what="training the tutorial network with distorted inputs, batch 128, by precision",
    unit="images/s",
    contenders={
        "deepcnn": partial(trainings.images_per_second, "fp32", ()),
        "deepcnn, bf16": partial(trainings.images_per_second, "bf16", ()),
    },
    denominator="tensorflow",
    peers=("tensorflow",),
)
