"""The speed of distorted inputs, through each feed."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from deepcnn.data.open import open_dataset
from deepcnn.data.source import Source, in_memory
from deepcnn.devices import Part
from deepcnn.inputs.feeds import Feed, Preloaded, Queued, Streamed
from deepcnn.inputs.loader import Batches
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import Stream
from deepcnn.inputs.transform import Inputs

BATCH = 128
SEED = 0
WAITING = 20_000  # as the reference, and tf.data's shuffle buffer
WHOLE = Part(0, 1, torch.device("cpu"))
WARM_UP, STEPS = 450, 1200  # as many to warm up as the peers; three epochs to measure


def images_per_second(
    name: str, _: Path, *, warm_up: int = WARM_UP, steps: int = STEPS
) -> dict[str, Any]:
    """Return the speed of a feed of CIFAR-10, under the name of where it reads from."""
    torch.set_num_threads(1)  # one core distorts; the other one reads, where there is reading
    source = open_dataset("cifar10", "train")
    feed: Feed
    if name == "preloaded":
        arrays = source.load()
        source = in_memory(arrays)
        feed = Preloaded(arrays, Shuffle.full(SEED, len(arrays)), batch_size=BATCH)
    else:
        shuffle = Shuffle.of(source.shards, seed=SEED, readers=16, buffer=WAITING + BATCH)
        stream = Stream.extract(source.shards, shuffle, threads=name == "queued").shuffle()
        if name == "queued":
            feed = Queued(stream, examples_in_queue=WAITING, batch_size=BATCH)
        else:
            feed = Streamed(stream, batch_size=BATCH)
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


def distorted(feed: Feed, source: Source) -> Batches:
    """Return what makes the distorted batch of a step, as TensorFlow's tutorial does."""
    inputs = Inputs.of(
        source, crop=0.75, pad=0, flip="random", contrast=(0.2, 1.8), standardize="image"
    )
    return Batches(feed, inputs, seed=SEED, training_steps=WARM_UP + STEPS)
