"""The commands that repeat a run, as one would type them."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from deepcnn import presets
from deepcnn.config import Config, changed_fields


def repeating(config: Config, run: Path, *, fed: bool) -> list[tuple[str, str]]:
    """Return what can be done with a run, each with the command for it.

    `fed`: its batches came from Python.
    """
    own = [] if ":" not in config.model.name else ["--model.name", config.model.name]
    again = [
        ("Score it again", ["evaluate", str(run), *own]),
        ("Ask it about a picture", ["predict", str(run), "PICTURE", *own]),
        ("Write this report again", ["report", str(run), *own]),
    ]
    train = _train(config, fed=fed)
    return [("Train it again", train), *((what, _shell(words)) for what, words in again)]


def _train(config: Config, *, fed: bool) -> str:
    if fed or config.model.name.startswith("(") or config.preset not in presets.PRESETS:
        # What came from Python has no name to be typed.
        given = ", feed=…" * fed + ", model=…" * config.model.name.startswith("(")
        return f"deepcnn.train(config{given})  # in Python; config: see config.json of the run"
    return _shell(["train", config.preset, *flags(config)])


def flags(config: Config) -> list[str]:
    """Return the arguments that give `deepcnn train PRESET` this configuration."""
    preset = presets.PRESETS[config.preset]()
    found: list[str] = []
    for name in changed_fields(preset, config):
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            head, _, last = flag.rpartition(".")
            found.append("--" + (f"{head}." if head else "") + ("" if value else "no-") + last)
        else:
            found += ["--" + flag, *_words(value)]
    return found


def _words(value: Any) -> list[str]:
    if isinstance(value, tuple):
        return [word for each in value for word in _words(each)]
    return [str(value)]


def _shell(words: list[str]) -> str:
    return shlex.join(["deepcnn", *words])


def settings(config: Config) -> list[tuple[str, str, bool]]:
    """Return every setting by dotted name, its value, and whether it differs from the preset's."""
    known = presets.PRESETS.get(config.preset)
    changed = set(changed_fields(known(), config)) if known else set()
    return [(name, str(value), name in changed) for name, value in _flat(config)]


def _flat(group: Any, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for each in dataclasses.fields(group):
        value = getattr(group, each.name)
        if dataclasses.is_dataclass(value):
            found += _flat(value, f"{prefix}{each.name}.")
        else:
            found.append((prefix + each.name, value))
    return found
