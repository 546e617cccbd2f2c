from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest

from deepcnn import presets
from deepcnn.cli.train import parse_options
from deepcnn.config import Config
from deepcnn.reports import commands
from deepcnn.settings import ModelConfig

QUICK = presets.quick()
CHANGED = dataclasses.replace(
    QUICK,
    data="my photos/it's",
    average_decay=0.99,
    seed=4,
    compile=True,
    evaluate_on=("train", "test"),
    image_size=(24, 20),
    inputs=dataclasses.replace(QUICK.inputs, scales=(), contrast=(0.2, 1.8)),
    optimizer=dataclasses.replace(
        QUICK.optimizer, freeze=(("stem", 0.2), ("group1", 0.5)), muon_learning_rate=None
    ),
)


@pytest.mark.parametrize("config", [*(make() for make in presets.PRESETS.values()), CHANGED])
def test_the_command_trains_the_very_configuration(config: Config) -> None:
    (what, command), *_ = commands.repeating(config, Path("runs/a b"), fed=False)
    assert what == "Train it again"
    program, verb, *arguments = shlex.split(command)
    assert (program, verb) == ("deepcnn", "train")
    assert parse_options(arguments).config == config


def test_paths_are_quoted_for_a_shell() -> None:
    found = dict(commands.repeating(QUICK, Path("runs/it's mine"), fed=False))
    for command in found.values():
        assert "\n" not in command
    assert shlex.split(found["Score it again"]) == ["deepcnn", "evaluate", "runs/it's mine"]
    words = shlex.split(found["Ask it about a picture"])
    assert words == ["deepcnn", "predict", "runs/it's mine", "PICTURE"]


def test_a_network_of_ones_own_is_named_in_every_command() -> None:
    own = dataclasses.replace(QUICK, model=ModelConfig("mine.nets:make"))
    for _, command in commands.repeating(own, Path("r"), fed=False):
        assert "--model.name mine.nets:make" in command


def test_what_came_from_python_is_repeated_there() -> None:
    nameless = dataclasses.replace(QUICK, model=ModelConfig("(Net)"))
    (_, command), *_ = commands.repeating(nameless, Path("r"), fed=False)
    assert command.startswith("deepcnn.train(config, model=…)")
    (_, command), *_ = commands.repeating(QUICK, Path("r"), fed=True)
    assert command.startswith("deepcnn.train(config, feed=…)")
    unknown = dataclasses.replace(QUICK, preset="mine")
    (_, command), *_ = commands.repeating(unknown, Path("r"), fed=False)
    assert command.startswith("deepcnn.train(config)")


def test_settings_say_what_differs_from_the_preset() -> None:
    found = {name: (value, changed) for name, value, changed in commands.settings(CHANGED)}
    assert found["optimizer.muon_learning_rate"] == ("None", True)
    assert found["batch_size"] == ("500", False)
    assert found["inputs.contrast"] == ("(0.2, 1.8)", True)
