"""The feed that a configuration asks for, and the order in which it goes through a set."""

from __future__ import annotations

import math

from deepcnn.config import Config
from deepcnn.data.open import NAMES
from deepcnn.data.source import Source
from deepcnn.errors import ConfigError
from deepcnn.events import Filling
from deepcnn.inputs.fed import Expected, Fed, PythonFeed, from_arrays
from deepcnn.inputs.feeds import Feed, Preloaded, Queued, Streamed
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import Stream


def needs_memory(config: Config, given: Fed | None) -> bool:
    """Tell whether the training set must be in memory; what Python feeds need not be."""
    return config.feed == "preloaded" or (config.feed == "fed" and given is None)


def make_order(config: Config, files: Source) -> Shuffle:
    """Return the order of a training set, of which `files` are the shards as they lie on disk."""
    n = len(files)
    if _queue(config):
        # so many wait that after a batch has left there are still as many as wanted
        buffer = _waiting(config, n) + config.batch_size
    elif config.feed == "streamed":
        buffer = config.shuffle_buffer
    else:
        return Shuffle.full(config.seed, n)
    return Shuffle.of(files.shards, seed=config.seed, readers=config.readers, buffer=buffer)


def make_feed(
    config: Config,
    source: Source,
    order: Shuffle,
    input_shape: tuple[int, int, int],
    given: Fed | None,
) -> Feed:
    """Make the feed of a training set.

    `input_shape`: of the network's input, [C, H, W]; `given`: where Python takes the batches from
    instead. Raises ConfigError where prepared images would have to be prepared again.
    """
    size, n = config.batch_size, len(source)
    filling = None
    if _queue(config) and given is None:
        is_cifar = config.data in NAMES and config.data.startswith("cifar")
        filling = Filling(_waiting(config, n), "CIFAR" if is_cifar else "")
    if config.feed == "preloaded":
        return Preloaded(source.load(), order, batch_size=size, filling=filling)
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
        return PythonFeed(fed, expected, filling=filling)
    stream = Stream.extract(source.shards, order, threads=config.feed == "queued").shuffle()
    if filling is not None:
        return Queued(stream, filling=filling, batch_size=size)
    return Streamed(stream, batch_size=size)


def _check_prepared(config: Config) -> None:
    """Raise ConfigError for what would be done with images after their preparation."""
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
    """Tell whether examples are drawn from a shuffling queue, or in the order of one."""
    in_memory = config.feed in ("preloaded", "fed")
    return config.feed == "queued" or (in_memory and config.order == "queue")


def _waiting(config: Config, n: int) -> int:
    return math.floor(config.min_fraction_of_examples_in_queue * n)
