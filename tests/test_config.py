from __future__ import annotations

import copy
import dataclasses
import json
import re
from typing import Any

import pytest

from deepcnn import presets
from deepcnn.cli.train import parse_options
from deepcnn.config import Config, changed_fields, from_dict, to_dict
from deepcnn.errors import ConfigError
from deepcnn.settings import DataSpec


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
        ("optimizer.nestorov", True, "config.optimizer: unknown setting 'nestorov'"),
        ("steps", KeyError, "config: missing setting 'steps'"),
        ("steps", "3", "config.steps: expected .*int.*, found '3'"),
        ("steps", True, "config.steps: expected .*int.*, found True"),
        ("steps", 0, "steps: expected at least 1, found 0"),
        ("model", 3, "config.model: expected a group of settings, found 3"),
        ("model.name", "resnet", "^model.name: expected one of tutorial, .*, found 'resnet'$"),
        ("model.name", 3, "config.model.name: expected .*str.*, found 3"),
        ("validation_size", -1, "validation_size: expected at least 0, found -1"),
        ("image_size", [0, 5], "image_size: expected at least 1, found 0"),
        ("model.widths", [1, 2.5], r"config.model.widths\[1\]: expected .*found 2.5"),
        ("inputs.contrast", [1.0], "config.inputs.contrast: expected .*found"),
        ("inputs.scales", [[0.1, 0.5]], "inputs.scales: expected pairs .* rising from 0"),
        ("inputs.scales", [[0, 0.5], [0, 1]], "inputs.scales: expected pairs .* rising from 0"),
        ("inputs.scales", [[0, 0.5], [1, 1]], "inputs.scales: expected pairs .* rising from 0"),
        ("inputs.scales", [[0, 1.5]], "inputs.scales: expected pairs .* above 0 to 1"),
        ("inputs.translation", -1, "inputs.translation: expected at least 0, found -1"),
        ("inputs.translation", 0.5, "config.inputs.translation: expected .*int.*, found 0.5"),
        ("inputs.rotation", 181, "inputs.rotation: expected 0 to 180, found 181"),
        ("inputs.brightness", float("nan"), "inputs.brightness: expected 0 to 255, found nan"),
        ("inputs.saturation", [1.5, 0.5], "inputs.saturation: expected a least and a largest"),
        ("inputs.saturation", [-1, 0.5], "inputs.saturation: expected a least and a largest"),
        ("inputs.hue", 0.6, "inputs.hue: expected 0 to 0.5, found 0.6"),
        ("inputs.erase", 1.1, "inputs.erase: expected 0 to 1, found 1.1"),
        ("inputs.mixup", -0.2, "inputs.mixup: expected at least 0, found -0.2"),
        ("inputs.cutmix", float("nan"), "inputs.cutmix: expected at least 0, found nan"),
        ("optimizer.freeze", [["stem", 0]], "freeze: stem: expected .* above 0 to 1, found 0"),
        ("average_decay", 1.0, "average_decay: expected 0 to below 1, found 1.0"),
        ("optimizer.learning_rate", float("nan"), "learning_rate: expected above 0, found nan"),
        ("optimizer.learning_rate", 0.0, "learning_rate: expected above 0, found 0.0"),
        ("optimizer.bias_learning_rate", 0.0, "bias_learning_rate: expected above 0, found 0.0"),
        ("optimizer.method", "lion", "optimizer.method: expected .*'adamw'.*, found 'lion'"),
        ("optimizer.beta1", 1.0, "optimizer.beta1: expected 0 to below 1, found 1.0"),
        ("optimizer.beta2", -0.1, "optimizer.beta2: expected 0 to below 1, found -0.1"),
        ("optimizer.epsilon", 0.0, "optimizer.epsilon: expected above 0, found 0.0"),
        ("optimizer.warm_up", 1.0, "optimizer.warm_up: expected 0 to below 1, found 1.0"),
        ("optimizer.drops", [0.5, 0.2], r"drops: expected shares .*rising; found \(0.5, 0.2\)"),
        ("optimizer.drops", [0.0], "optimizer.drops: expected shares of the training above 0"),
        ("optimizer.drops", [1], "optimizer.drops: expected shares of the training above 0"),
        ("optimizer.muon_learning_rate", -1.0, "muon_learning_rate: expected above 0, found -1.0"),
    ],
)
def test_what_does_not_fit_is_an_error(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(broken(path, value))


def test_settings_of_another_schedule_are_refused() -> None:
    values = to_dict(presets.quick())
    values["optimizer"] |= {"drops": [0.5], "schedule": "cosine"}
    with pytest.raises(ConfigError, match=r"only the schedule staircase drops; found .* cosine"):
        from_dict(values)
    values["optimizer"] |= {"drops": [], "schedule": "one_cycle", "warm_up": 0.1}
    with pytest.raises(ConfigError, match=r"one_cycle rises by itself; expected 0, found 0\.1"):
        from_dict(values)


def test_what_runs_of_older_versions_lack_means_what_was_before() -> None:
    values = to_dict(presets.tutorial())
    assert values.pop("start_from") is None
    for name in ("translation", "rotation", "brightness", "hue", "erase", "mixup", "cutmix"):
        assert values["inputs"].pop(name) == 0
    assert values["inputs"].pop("saturation") is None
    assert values["optimizer"].pop("method") == "sgd"
    assert values["optimizer"].pop("nesterov") is True
    assert values["optimizer"].pop("old_layers_rate") == 1
    assert values.pop("epochs") is None
    assert values.pop("order") == "queue"
    assert from_dict(values) == dataclasses.replace(presets.tutorial(), order="epochs")


@pytest.mark.parametrize(
    ("examples", "epochs", "steps"),
    [
        (50_000, 3, 1171),
        (50_000, 0.29, 113),
        (12_800, 0.29, 29),  # which in floating point is a little less
        (10, 1, 1),  # at least one
        (128, 2.5, 2),
    ],
)
def test_epochs_are_whole_batches_rounded_down(examples: int, epochs: float, steps: int) -> None:
    config = dataclasses.replace(presets.tutorial(), epochs=epochs).with_steps_for(examples)
    assert (config.steps, config.epochs) == (steps, None)
    assert presets.tutorial().with_steps_for(examples) == presets.tutorial()


@pytest.mark.parametrize("epochs", [0, -1, float("inf"), float("nan")])
def test_epochs_that_cannot_be_are_refused(epochs: float) -> None:
    with pytest.raises(ConfigError, match="epochs: expected a number above 0, found"):
        dataclasses.replace(presets.tutorial(), epochs=epochs)


# The names that stored runs have, and the command line; a change would orphan both.
STORED = """
average_decay
batch_size
cache_gigabytes
class_weights
compile
copies_together
data
data_dir
deterministic
device
epochs
evaluate_every
evaluate_on
exclude
feed
fit
image_size
inputs.brightness
inputs.contrast
inputs.crop
inputs.cutmix
inputs.cutout
inputs.erase
inputs.flip
inputs.hue
inputs.mixup
inputs.pad
inputs.rotation
inputs.saturation
inputs.scales
inputs.standardize
inputs.translation
inputs.views
keep
keep_best
label_smoothing
log_every
min_fraction_of_examples_in_queue
model.name
model.widths
on_nan
optimizer.beta1
optimizer.beta2
optimizer.bias_learning_rate
optimizer.decay_epochs
optimizer.decay_factor
optimizer.decayed
optimizer.drops
optimizer.epsilon
optimizer.freeze
optimizer.head_learning_rate
optimizer.learning_rate
optimizer.method
optimizer.momentum
optimizer.muon_learning_rate
optimizer.muon_momentum
optimizer.nesterov
optimizer.old_layers_rate
optimizer.schedule
optimizer.warm_up
optimizer.weight_decay
order
pace
precision
preset
readers
save_every
seed
shuffle_buffer
skip_bad
start_from
steps
steps_per_plan
summary_every
sync_batch_norm
threads
towers
train_on_extra
train_size
validation_choice
validation_seed
validation_size
"""


def test_what_says_which_data_is_stored_among_the_other_settings() -> None:
    config = dataclasses.replace(presets.tiny(), data="x", validation_size=3, data_dir="y")
    assert isinstance(config, DataSpec)
    values = to_dict(config)
    assert (values["data"], values["validation_size"], values["data_dir"]) == ("x", 3, "y")
    dotted = [
        f"{name}.{inner}" if isinstance(value, dict) else name
        for name, value in values.items()
        for inner in (value if isinstance(value, dict) else ("",))
    ]
    assert sorted(dotted) == STORED.split()


def test_every_stored_setting_but_the_preset_is_a_flag_of_the_same_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        parse_options(["tiny", "--help"])
    assert end.value.code in (0, None)
    found = set(re.findall(r"--[a-z0-9.-]+", capsys.readouterr().out))
    flags = {"--" + name.replace("_", "-") for name in STORED.split() if name != "preset"}
    assert flags <= found
    assert not any("data." in flag or "spec." in flag for flag in found)
    given = ["--data", "x", "--validation-size", "3", "--image-size", "5", "7", "--skip-bad"]
    config = parse_options(["tiny", *given]).config
    assert (config.data, config.validation_size, config.image_size) == ("x", 3, (5, 7))
    assert config.skip_bad


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
    assert (config.order, config.readers) == ("queue", 16)
    assert config.min_fraction_of_examples_in_queue * 50_000 == 20_000
    assert (config.log_every, config.summary_every, config.save_every) == (10, 100, 1000)
