"""An exercise of TensorFlow's tutorial: two devices with batch 64 each against one with 128.

One tower and one process show what the machinery costs by itself.
"""

from __future__ import annotations

from functools import partial

from tools import trainings
from tools.comparison import Case

# Without summaries and checkpoints, which only one of several processes writes.
PLAIN = ("--summary-every", "0", "--save-every", "100000")
CASE = Case(
    what="training the tutorial network, batch 128 over all devices",
    unit="images/s",
    contenders={
        name: partial(trainings.images_per_second, "fp32", (*PLAIN, *options), steps=120)
        for name, options in {
            "one device": (),
            "one tower": ("--towers", "1"),
            "two towers": ("--towers", "2"),
            "one process": ("--devices", "1"),
            "two processes": ("--devices", "2"),
        }.items()
    },
    denominator="one device",
)
