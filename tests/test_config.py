from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest

from deepcnn import presets
from deepcnn.config import Config, changed_fields, from_dict, to_dict
from deepcnn.errors import ConfigError


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_survives_json(name: str) -> None:
    config = presets.PRESETS[name]()
    assert config.preset == name
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def broken(path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(to_dict(presets.tutorial()))
    *groups, last = path.split(".")
    place = values
    for group in groups:
        place = place[group]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("stepz", 3, "config: unknown setting 'stepz'"),
        ("optimizer.nesterov", True, "config.optimizer: unknown setting 'nesterov'"),
        ("steps", KeyError, "config: missing setting 'steps'"),
        ("steps", "3", "config.steps: expected .*int.*, found '3'"),
        ("steps", True, "config.steps: expected .*int.*, found True"),
        ("steps", 0, "steps: expected at least 1, found 0"),
        ("model", 3, "config.model: expected a group of settings, found 3"),
        ("model.name", "resnet", "config.model.name: expected .*found 'resnet'"),
        ("model.widths", [1, 2.5], r"config.model.widths\[1\]: expected .*found 2.5"),
        ("inputs.contrast", [1.0], "config.inputs.contrast: expected .*found"),
        ("inputs.scales", [[0.1, 0.5]], "inputs.scales: expected pairs .* rising from 0"),
        ("inputs.scales", [[0, 0.5], [0, 1]], "inputs.scales: expected pairs .* rising from 0"),
        ("inputs.scales", [[0, 0.5], [1, 1]], "inputs.scales: expected pairs .* rising from 0"),
        ("inputs.scales", [[0, 1.5]], "inputs.scales: expected pairs .* above 0 to 1"),
        ("optimizer.freeze", [["stem", 0]], "freeze: stem: expected .* above 0 to 1, found 0"),
        ("average_decay", 1.0, "average_decay: expected 0 to below 1, found 1.0"),
        ("optimizer.learning_rate", float("nan"), "learning_rate: expected above 0, found nan"),
        ("optimizer.learning_rate", 0.0, "learning_rate: expected above 0, found 0.0"),
        ("optimizer.muon_learning_rate", -1.0, "muon_learning_rate: expected above 0, found -1.0"),
    ],
)
def test_what_does_not_fit_is_an_error(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(broken(path, value))


def test_what_runs_of_older_versions_lack_means_the_default() -> None:
    values = to_dict(presets.tutorial())
    assert values.pop("start_from") is None
    assert from_dict(values) == presets.tutorial()


def test_changed_fields_are_named_with_dots() -> None:
    old = presets.tutorial()
    new = dataclasses.replace(
        old, steps=5, optimizer=dataclasses.replace(old.optimizer, momentum=0.5)
    )
    assert changed_fields(old, new) == ["optimizer.momentum", "steps"]
    assert changed_fields(old, old) == []


def test_the_tutorials_settings_are_the_references() -> None:
    config: Config = presets.tutorial()
    assert (config.batch_size, config.steps, config.inputs.crop) == (128, 100_000, 24 / 32)
    assert config.optimizer.learning_rate == 0.1
    assert config.optimizer.momentum == 0
    assert (config.log_every, config.summary_every, config.save_every) == (10, 100, 1000)
