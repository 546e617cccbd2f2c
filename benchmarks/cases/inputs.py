"""The speed of distorted inputs, through each feed."""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from deepcnn.data.open import open_dataset
from deepcnn.data.source import Source
from deepcnn.inputs.feeds import Feed, Preloaded, Streamed
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import Stream
from tools.comparison import Case
from tools.distorting import BATCH, SEED, STEPS, WAITING, WARM_UP, WHOLE, distorted


def images_per_second(
    name: str, _: Path, *, warm_up: int = WARM_UP, steps: int = STEPS
) -> dict[str, Any]:
    """Return the speed of a feed of CIFAR-10, under the name of where it reads from."""
    torch.set_num_threads(1)  # one core distorts; the other one reads, where there is reading
    source = open_dataset("cifar10").split("train")
    feed = feed_of(name, source)
    batches = distorted(feed, source)
    with closing(feed):
        for step in range(warm_up):
            batches.load(step, WHOLE)
        began = time.perf_counter()
        for step in range(warm_up, warm_up + steps):
            batches.load(step, WHOLE)
        seconds = time.perf_counter() - began
    where = "memory" if name == "preloaded" else "files"
    return {where: round(steps * BATCH / seconds), "seeds": [SEED]}


def feed_of(name: str, source: Source) -> Feed:
    """Return the feed of this name."""
    if name == "preloaded":
        return Preloaded(source.load(), Shuffle.full(SEED, len(source)), batch_size=BATCH)
    shuffle = Shuffle.of(source.shards, seed=SEED, readers=16, buffer=WAITING + BATCH)
    stream = Stream.extract(source.shards, shuffle, threads=name == "queued").shuffle()
    return Streamed(stream, batch_size=BATCH)


CASE = Case(
    what="distorted inputs from files or memory, batch 128, float32",
    unit="images/s",
    contenders={
        feed: partial(images_per_second, feed) for feed in ("preloaded", "queued", "streamed")
    },
    denominator="tensorflow",
    peers=("tensorflow", "dataloader", "grain"),
)
