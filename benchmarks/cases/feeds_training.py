"""The speed of training the tutorial network through each feed."""

from __future__ import annotations

from functools import partial

from tools import trainings
from tools.comparison import Case

CASE = Case(
    what="training the tutorial network through each feed, batch 128",
    unit="images/s",
    contenders={
        feed: partial(trainings.images_per_second, "fp32", ("--feed", feed))
        for feed in ("preloaded", "fed", "queued", "streamed")
    },
    denominator="preloaded",
)
