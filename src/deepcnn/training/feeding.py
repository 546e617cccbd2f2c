"""The feed that a configuration asks for, and the order in which it visits the examples."""

from __future__ import annotations

import math

from deepcnn.config import Config
from deepcnn.data.source import Source
from deepcnn.errors import ConfigError
from deepcnn.events import Filling
from deepcnn.inputs.fed import Expected, Fed, PythonFeed, from_arrays
from deepcnn.inputs.feeds import Feed, Preloaded, Streamed
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import Stream


def needs_memory(config: Config, given: Fed | None) -> bool:
    """Tell whether the training set must be in memory; examples that Python feeds need not be."""
    return config.feed == "preloaded" or (config.feed == "fed" and given is None)


def make_order(config: Config, files: Source) -> Shuffle:
    """Return the order of a training set; `files` are its shards as they lie on disk."""
    n = len(files)
    if _queue(config):
        # so many wait that after a batch has left there are still as many as wanted
        buffer = _waiting(config, n) + config.batch_size
    elif config.feed == "streamed":
        buffer = config.shuffle_buffer
    else:
        return Shuffle.full(config.seed, n)
    return Shuffle.of(files.shards, seed=config.seed, readers=config.readers, buffer=buffer)


def filling_of(config: Config, given: Fed | None, form: str, n: int) -> Filling | None:
    """Return the event about a queue before the first step; None if there is no queue.

    `form`: the name or the format of the data set, which has `n` examples.
    """
    if given is not None or not _queue(config):
        return None
    return Filling(_waiting(config, n), "CIFAR" if form.upper().startswith("CIFAR") else "")


def make_feed(
    config: Config,
    source: Source,
    order: Shuffle,
    input_shape: tuple[int, int, int],
    given: Fed | None,
) -> Feed:
    """Make the feed of a training set.

    `input_shape`: of the network's input, [C, H, W]. `given`: the source of batches from Python, if
    any. Raises ConfigError if prepared images would have to be prepared again.
    """
    size, n = config.batch_size, len(source)
    if config.feed == "preloaded":
        return Preloaded(source.load(), order, batch_size=size)
    if config.feed == "fed":
        fed = given or Fed(from_arrays(source.load(), order, size))
        if fed.prepared:
            _check_prepared(config)
        expected = Expected(
            batch_size=size,
            shape=source.shape,
            input_shape=input_shape,
            classes=len(source.classes),
            examples=n,
            flat=config.model.name == "mlp",
        )
        return PythonFeed(fed, expected)
    stream = Stream.extract(source.shards, order, threads=config.feed == "queued").shuffle()
    return Streamed(stream, batch_size=size)


def _check_prepared(config: Config) -> None:
    """Raise ConfigError for settings that would change images after their preparation."""
    for name, wanted in (
        ("scales", config.inputs.scales),
        ("mixup", config.inputs.mixup),
        ("cutmix", config.inputs.cutmix),
    ):
        if wanted:
            raise ConfigError(
                f"inputs.{name}: images of a prepared feed are trained on as they are; leave it "
                "out, or feed them as the set has them"
            )


def _queue(config: Config) -> bool:
    """Tell whether examples come from a shuffling queue, or in the order of one."""
    in_memory = config.feed in ("preloaded", "fed")
    return config.feed == "queued" or (in_memory and config.order == "queue")


def _waiting(config: Config, n: int) -> int:
    return math.floor(config.min_fraction_of_examples_in_queue * n)
