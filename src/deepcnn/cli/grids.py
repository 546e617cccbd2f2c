"""Grids of settings, FIELD=VALUE,VALUE: all their combinations as configurations."""

from __future__ import annotations

import difflib
import itertools
import shlex

from deepcnn.cli.arguments import squares
from deepcnn.cli.train import parse_options as parse_training
from deepcnn.config import Config, flat, to_dict
from deepcnn.data.dataset import Dataset
from deepcnn.errors import ConfigError

GRID = "--grid"
OF_PICTURES = ("image_size", "fit")  # settings that change pictures in files only
MOST = 1000  # combinations
Choice = tuple[dict[str, str], Config]  # what it is in the grid, and what is trained
# What decides which images are scored, or is no setting of a training at all.
NOT_TO_CHOOSE = {
    "preset": "name one preset",
    "seed": "use --seeds",
    **dict.fromkeys(
        (
            *("data", "data_dir", "skip_bad", "exclude", "train_size"),
            *("validation_size", "validation_choice", "validation_seed", "copies_together"),
        ),
        "the settings would be scored on different images",
    ),
    "pace": "it is what a training with a budget has made of its steps",
    "evaluate_on": "settings are chosen on the validation split",
}


def taken_out(flag: str, arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the arguments without a flag, and all its values, from all places where it stands."""
    rest, values, inside = [], [], False
    for argument in arguments:
        if argument == flag or argument.startswith(flag + "="):
            inside = argument == flag
            values += [] if inside else [argument.removeprefix(flag + "=")]
        elif inside and not argument.startswith("-"):
            values.append(argument)
        else:
            inside = False
            rest.append(argument)
    return rest, values


def choices(base: Config, grid: list[str], arguments: list[str]) -> tuple[Choice, ...]:
    """Return all combinations of a grid; none without one.

    `arguments`: those of the training, as typed; the values of the grid come after them. Raises
    ConfigError for text that is no grid, or if a setting is named twice.
    """
    if not grid:
        return ()
    lines = [_line(base, each) for each in grid]
    names = [name for name, _ in lines]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{GRID} {twice[0]}: is given twice; give all its values at once")
    found: list[Choice] = []
    for values in itertools.product(*(values for _, values in lines)):
        changes = dict(zip(names, values, strict=True))
        words = [word for name, value in changes.items() for word in _words(base, name, value)]
        found.append((changes, parse_training([*arguments, *words]).config))
        if len(found) > MOST:
            raise ConfigError(f"{GRID}: expected at most {MOST:,} combinations, found more")
    configs = [config for _, config in found]
    if same := [changes for changes, config in found if configs.count(config) > 1]:
        raise ConfigError(f"{GRID}: {_typed(same[0])} and {_typed(same[1])} are the same setting")
    return tuple(found)


def check_varies(config: Config, dataset: Dataset, found: tuple[Choice, ...]) -> None:
    """Raise ConfigError for a grid of how pictures are read, if the images are arrays.

    All settings would be trained on the same images.
    """
    for field in OF_PICTURES:
        name = field.replace("_", "-")
        varies = any(name in changes for changes, _ in found)
        if varies and not dataset.is_of_pictures:
            raise ConfigError(
                f"{GRID} {name}: cannot be chosen: {config.data} holds images of the size that "
                "they have, and no pictures in files, so all settings would be the same"
            )


def _line(base: Config, text: str) -> tuple[str, list[str]]:
    """Return the name of a field, spelt as a flag, and its values."""
    name, equals, values = text.partition("=")
    if not equals or not values:
        raise ConfigError(
            f"{GRID}: expected FIELD=VALUE,VALUE such as optimizer.learning-rate=0.05,0.1, found "
            f"{text!r}"
        )
    name = name.lstrip("-").replace("_", "-")
    field = name.replace("-", "_")
    if field in NOT_TO_CHOOSE:
        raise ConfigError(f"{GRID} {name}: cannot be chosen from: {NOT_TO_CHOOSE[field]}")
    known = flat(to_dict(base))
    if field not in known:
        near = difflib.get_close_matches(field, known, n=1)
        meant = f" Did you mean {near[0].replace('_', '-')}?" if near else ""
        raise ConfigError(
            f"{GRID} {name}: there is no such setting.{meant} deepcnn train --help lists all."
        )
    return name, [value.strip() for value in values.split(",")]


def _words(base: Config, name: str, value: str) -> list[str]:
    """Return the words that tell `train` a setting."""
    if not isinstance(flat(to_dict(base))[name.replace("-", "_")], bool):
        return squares([f"--{name}", *shlex.split(value)])
    if value not in ("true", "false"):
        raise ConfigError(f"{GRID} {name}: expected true or false, found {value!r}")
    head, dot, last = name.rpartition(".")
    return [f"--{head}{dot}{'' if value == 'true' else 'no-'}{last}"]


def _typed(changes: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in changes.items())
