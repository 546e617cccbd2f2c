"""An exercise of TensorFlow's tutorial: how long training waits for its queue to fill."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from pathlib import Path

import torch

from deepcnn import presets
from deepcnn.data.open import open_dataset
from deepcnn.devices import Part
from deepcnn.training.feeding import make_feed, make_order
from tools.comparison import Case

REFERENCE = 0.4


def seconds(fraction: float, folder: Path) -> dict[str, float]:  # noqa: ARG001
    """Return the time from opening the queue to the first batch, and to the hundredth."""
    config = dataclasses.replace(
        presets.tutorial(), feed="queued", min_fraction_of_examples_in_queue=fraction
    )
    source = open_dataset(config).split("train")
    feed = make_feed(config, source, make_order(config, source), (3, 24, 24), None)
    whole = Part(0, 1, torch.device("cpu"))
    began = time.perf_counter()
    feed.batch(0, whole)
    first = time.perf_counter() - began
    for step in range(1, 100):
        feed.batch(step, whole)
    hundredth = time.perf_counter() - began
    feed.close()
    return {"first batch": round(first, 4), "hundredth batch": round(hundredth, 4)}


CASE = Case(
    what="waiting for batches of 128 from the shuffling queue, by the share that waits in it",
    unit="s",
    contenders={str(share): partial(seconds, share) for share in (0.1, REFERENCE, 1.0)},
    denominator=str(REFERENCE),
    higher_is_better=False,
)
