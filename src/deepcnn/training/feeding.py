"""The feed that a configuration asks for."""

from __future__ import annotations

import math

from deepcnn.config import Config
from deepcnn.data.source import Source
from deepcnn.events import Listener
from deepcnn.inputs.fed import Fed, FeedSource, from_arrays
from deepcnn.inputs.feeds import Feed, Preloaded, Queued, Streamed
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import Stream


def needs_memory(config: Config, given: FeedSource | None) -> bool:
    """Tell whether the training set must be in memory; what Python feeds need not be."""
    return config.feed == "preloaded" or (config.feed == "fed" and given is None)


def make_feed(config: Config, source: Source, given: FeedSource | None, emit: Listener) -> Feed:
    """Make the feed of a training set; `given`: where Python takes the batches from instead."""
    size, n = config.batch_size, len(source)
    if config.feed == "preloaded":
        return Preloaded(source.load(), Shuffle.full(config.seed, n), batch_size=size)
    if config.feed == "fed":
        return Fed(
            given or from_arrays(source.load(), Shuffle.full(config.seed, n), size),
            batch_size=size,
            shape=source.shape,
            classes=len(source.classes),
            examples=n,
        )
    waiting = math.floor(config.min_fraction_of_examples_in_queue * n)
    queued = config.feed == "queued"
    shuffle = Shuffle.of(
        source.shards,
        seed=config.seed,
        readers=config.readers,
        # so many wait that after a batch has left there are still as many as wanted
        buffer=waiting + size if queued else config.shuffle_buffer,
    )
    stream = Stream.extract(source.shards, shuffle, threads=queued).shuffle()
    if queued:
        return Queued(stream, examples_in_queue=waiting, batch_size=size, emit=emit)
    return Streamed(stream, batch_size=size)
