"""Plans a training for a time: examines the data, reads it, and measures the cost of steps."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepcnn.config import Config, from_dict, to_dict
from deepcnn.data.dataset import Dataset
from deepcnn.data.formats.processes import gain
from deepcnn.data.splits import Split
from deepcnn.durations import seconds_of
from deepcnn.errors import ConfigError
from deepcnn.events import Listener, Planned
from deepcnn.inference.scoring import splits_to_score
from deepcnn.team.team import Team
from deepcnn.training.looks import some_of
from deepcnn.training.material import Material, open_for_new, read_material
from deepcnn.training.plan import Plan, fitted
from deepcnn.training.recipes import Facts, fitting, image_size, recipe, useful_epochs
from deepcnn.training.rehearsal import rehearse
from deepcnn.training.session import FromPython

DEFAULT = "5m"  # where nobody says how long
READING = 0.35  # of the time that is left, at most, may go into reading pictures
TRIED = 200  # pictures that are read to see how long all take
REHEARSAL = 0.02  # of the budget goes into timing steps


@dataclass(frozen=True)
class Allowance:
    """The time that a training is given.

    `seconds`: for the whole process. `began`: when they began, by `time.monotonic`. `chosen`: the
    dotted names of the settings that the user has chosen; a recipe gives all others. None: all
    settings are taken as they are.
    """

    seconds: float
    began: float
    chosen: frozenset[str] | None = None


def allowance(
    config: Config | str | None,
    budget: str | float | Allowance | None,
    settings: dict[str, Any],
) -> Allowance | None:
    """Return the time, from now on, for a training from Python; None if there is no budget.

    `settings`: those that are given by name. Raises ConfigError for a budget together with a number
    of steps.
    """
    if isinstance(budget, Allowance):
        return budget
    says_steps = bool({"steps", "epochs"} & settings.keys())
    if budget is not None and says_steps:
        raise ConfigError("budget: steps and epochs say how long to train, too; leave out one")
    by_recipe = config is None and "data" in settings and not says_steps
    by_recipe = by_recipe and not {"start_from", "feed", "towers"} & settings.keys()
    if budget is None and not by_recipe:
        return None
    chosen = frozenset(settings) if by_recipe else None
    return Allowance(seconds_of(DEFAULT if budget is None else budget), time.monotonic(), chosen)


def check(config: Config, team: Team, given: FromPython) -> None:
    """Raise ConfigError if the costs of steps cannot be measured beforehand."""
    said = {
        "processes": team.count > 1,
        "a feed from Python": given.feed is not None,
        f"--feed {config.feed}": config.feed in ("queued", "streamed"),
        "towers": config.towers > 0,
    }
    for what, there in said.items():
        if there:
            raise ConfigError(
                f"budget: steps are measured in one process, with the set in memory; found {what}. "
                "Say how many there are to be: --steps, or name a preset"
            )


def plan(
    allowed: Allowance, config: Config, given: FromPython, emit: Listener, *, report: bool
) -> tuple[Plan, Material]:
    """Choose the settings of a training that ends in time, and read its data.

    `config`: with the chosen settings. `given`: with a network from Python, if any. Raises
    ConfigError if the time is too short, and DataError for data that cannot be used.
    """
    opened = time.monotonic()
    says_size = config.image_size is not None
    if allowed.chosen is not None and config.validation_size:
        together = config.copies_together or "copies_together" not in allowed.chosen
        config = dataclasses.replace(config, copies_together=together)
    config, dataset = open_for_new(config, emit)
    settled = config.image_size
    shape = dataset.split("train").shape
    facts = _facts(dataset, config, allowed)
    least = 0
    if allowed.chosen is not None:
        own = {"model"} if given.model is not None or "model.name" in allowed.chosen else set()
        config = _by_recipe(facts, config, allowed.chosen | own)
    else:
        least = config.steps  # which whoever made the preset found useful
        if not says_size and facts.resizable:
            config = dataclasses.replace(config, image_size=image_size(shape))
    if config.image_size is None:  # no smaller one is wanted
        config = dataclasses.replace(config, image_size=settled)
    if config.image_size is not None:
        dataset = dataset.resized(config.image_size) or dataset
    config, dataset = _readable(config, dataset, allowed)
    material = read_material(config, dataset, given.feed, emit)
    reading = time.monotonic() - opened if facts.resizable else 0.0
    if allowed.chosen is not None:
        inputs = fitting(config.inputs, some_of(material.train), allowed.chosen)
        config = dataclasses.replace(config, inputs=inputs)
        material = dataclasses.replace(
            material, config=dataclasses.replace(material.config, inputs=inputs)
        )
    given = dataclasses.replace(given, material=material)
    epochs = useful_epochs(len(material.train))
    most = max(least, math.ceil(epochs * len(material.train) / config.batch_size))
    costs = rehearse(config, given, seconds=REHEARSAL * allowed.seconds, report=report)
    made = fitted(
        Plan(material.config, costs, allowed.seconds, allowed.began, time.monotonic(), most)
    )
    told = _planned(made, material, shape, facts.examples)
    told = dataclasses.replace(told, data=str(config.data), reading=reading)
    return dataclasses.replace(made, told=told), dataclasses.replace(material, config=made.config)


def _facts(dataset: Dataset, config: Config, allowed: Allowance) -> Facts:
    train = dataset.split("train")
    known = train.known_labels()
    if known is None:
        counts = dataset.counts("train")
    else:
        counts = np.bincount(known, minlength=len(train.classes))
    return Facts(
        data=config.data,
        counts=tuple(counts.tolist()),
        shape=train.shape,
        resizable=known is not None,
        scored=sum(len(dataset.split(s)) for s in splits_to_score(config, dataset)),
        seconds=allowed.seconds - (time.monotonic() - allowed.began),
    )


def _by_recipe(facts: Facts, config: Config, chosen: frozenset[str]) -> Config:
    """Return the recipe's settings, with the chosen ones taken from a configuration."""
    values, wanted = to_dict(recipe(facts)), to_dict(config)
    for name in chosen | {"data", "data_dir", "validation_size", "copies_together"}:
        *groups, last = name.split(".")
        into, of = (functools.reduce(lambda g, k: g[k], groups, v) for v in (values, wanted))
        into[last] = of[last]
    return from_dict(values)


def _readable(config: Config, dataset: Dataset, allowed: Allowance) -> tuple[Config, Dataset]:
    """Leave out training pictures if reading all of them would take too much of the time."""
    train = dataset.split("train")
    if train.known_labels() is None or config.train_size or len(train) <= TRIED:
        return config, dataset
    began = time.monotonic()
    few = np.arange(len(train)) % math.ceil(len(train) / TRIED) == 0
    train.select(few).load()
    now = time.monotonic()
    each = (now - began) / few.sum()
    each /= gain(each * len(train))
    scored: dict[Split, int] = {s: len(dataset.split(s)) for s in splits_to_score(config, dataset)}
    scored.pop("train", None)
    time_to_read = READING * (allowed.began + allowed.seconds - now)
    fit = int(time_to_read / each) - sum(scored.values())
    if fit >= len(train):
        return config, dataset
    size = max(min(TRIED, len(train)), fit)
    return dataclasses.replace(config, train_size=size), dataset.fewer(size)


def _planned(made: Plan, material: Material, shape: tuple[int, int, int], there: int) -> Planned:
    """Return the event about a plan; `shape`, `there`: of the images as they are stored."""
    config = made.config
    split = [*material.to_score][-1]
    return Planned(
        shape=material.train.shape,
        original=shape,
        growing=tuple(scale for _, scale in config.inputs.scales),
        classes=len(material.train.classes),
        examples=len(material.train),
        left_out=there - len(material.train),
        batch_size=config.batch_size,
        steps=config.steps,
        views=config.inputs.views,
        split=split,
        scored=len(material.to_score[split]),
        before=made.before,
        training=made.training,
        scoring=made.costs.scoring,
        report=made.costs.report,
        budget=made.budget,
        enough=made.enough,
    )
