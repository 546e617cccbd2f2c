"""The documents' commands as a test can run them: with few steps, on few real images."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deepcnn import presets
from deepcnn.config import Config
from deepcnn.data.arrays import Arrays
from deepcnn.data.open import NAMES
from deepcnn.doctor.labels import recipe as labels_recipe
from tests.helpers.own_data import write_pictures

STEPS, BATCH, HELD_OUT = 3, 32, 20
WIDTHS: dict[str, tuple[int, ...]] = {"tutorial": (8, 8, 16, 16), "cuda_convnet": (8, 8, 4, 4)}
WIDTHS |= dict.fromkeys(("speednet", "residual_speednet"), (8, 8, 16))
MINE = """
from torch import nn

def make(shape, classes):
    channels, height, width = shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, classes))
"""  # a network of somebody's own, as mynet.py
RUN = re.compile(r"\bruns/[\w.-]+|\bRUN(?:_[A-Z])?\b")


@dataclasses.dataclass(frozen=True)
class StandIns:
    """What stands for what a page takes for granted, in the folder where its blocks are run.

    `data`: CIFAR-10 with few images, in its own format; `runs`: runs on them, by preset.
    """

    folder: Path
    data: Path
    runs: dict[str, Path]

    def provide(self, text: str) -> None:
        """Put a run wherever a text names one that is not there and is not made by it."""
        for name in RUN.findall(text):
            made = re.search(rf"run.dir[ =\"']*{re.escape(name)}", text)
            if not made and not (self.folder / name).exists():
                preset = next((each for each in self.runs if each in name), presets.DEFAULT)
                shutil.copytree(self.runs[preset], self.folder / name)

    def make_newest(self) -> None:
        """Let the newest run be one of the default preset, which commands take without a name."""
        target = self.folder / "runs" / f"newest-{presets.DEFAULT}"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.runs[presets.DEFAULT], target, copy_function=shutil.copyfile)


def small_cifar10(folder: Path, train: Arrays, test: Arrays) -> Path:
    """Write the first images of CIFAR-10 as it lies on disk."""
    folder.mkdir()
    (folder / "batches.meta.txt").write_text("\n".join(train.classes) + "\n")
    for name, data in (("data_batch_1", train), ("test_batch", test)):
        planes = data.images.transpose(0, 3, 1, 2).reshape(len(data), -1)
        records = np.concatenate([data.labels.astype(np.uint8)[:, None], planes], 1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


def furnish(folder: Path, test: Arrays) -> None:
    """Put pictures and a module where a page has them."""
    from PIL import Image

    for name in ("photos", "photos-2"):
        write_pictures(folder / name, test.images[:80], test.labels[:80])
        for label, known in enumerate(test.classes):
            (folder / name / f"class {label}").rename(folder / name / known)
    for name in ("cat.jpg", "a.png", "b.jpg", "dog.png", "photos/cat/1.jpg"):
        Image.fromarray(test.images[0]).resize((60, 40)).save(folder / name)
    (folder / "mynet.py").write_text(MINE)


def shortened(words: tuple[str, ...], here: StandIns) -> list[str]:
    """Return what deepcnn is given, so that it takes little time and needs no network."""
    arguments = [word for word in words if word != "…"]
    if arguments[0] == "train":
        return ["train", *short_training(arguments[1:], here)]
    if arguments[0] == "lr-find":
        return ["lr-find", "--tries", "20", *short_training(arguments[1:], here)]
    rest = changed(arguments, "--step", lambda _: str(STEPS))
    rest = changed(rest, "--validation-size", lambda _: str(HELD_OUT))
    rest = changed(rest, "--examples", lambda _: str(HELD_OUT))
    rest = changed(rest, "--data", lambda name: small(name, here))
    rest = ["photos/*/*.png" if word == "photos/*.png" else word for word in rest]
    if arguments[0] == "data":
        rest = [small(word, here) if i > 1 else word for i, word in enumerate(rest)]
    return rest


def short_training(arguments: list[str], here: StandIns) -> list[str]:
    """Return the arguments of `train` for few steps on few images."""
    rest = without(arguments, "--data-dir")
    resumed = value(rest, "--resume")
    if resumed is not None:
        config = json.loads((here.folder / resumed / "config.json").read_text())
        steps = config["steps"] + 2
        free = config["optimizer"]["schedule"] != "linear"
        return [*rest, "--steps", str(steps)] if free else rest
    named = bool(rest) and not rest[0].startswith("-")
    config_of = presets.PRESETS[rest[0] if named else presets.DEFAULT]()
    rest = changed(rest, "--evaluate-every", lambda _: "2")
    rest = changed(rest, "--validation-size", lambda _: str(HELD_OUT))
    rest = without(without(without(rest, "--steps"), "--budget"), "--data")
    rest += [
        "--steps",
        str(STEPS),
        "--device",
        "cpu",
        "--data",
        small(value(arguments, "--data") or config_of.data, here),
    ]
    if not re.search(r"--batch.size|--num.gpus", " ".join(rest)):
        rest += ["--batch-size", str(BATCH)]
    if config_of.validation_size and value(rest, "--validation-size") is None:
        rest += ["--validation-size", str(HELD_OUT)]
    widths = WIDTHS.get(value(rest, "--model.name") or config_of.model.name, ())
    if widths and value(rest, "--model.widths") is None:
        rest += ["--model.widths", *map(str, widths)]
    return rest


def small(name: str, here: StandIns) -> str:
    """Return the small data set for one that is known by name."""
    return str(here.data) if name in NAMES and name != "synthetic" else name


def short_config(config: Config | str, settings: dict[str, Any], here: StandIns) -> Config:
    """Return a configuration with few steps and few filters, on few images."""
    if isinstance(config, str):
        config = presets.PRESETS[config]()
    config = dataclasses.replace(config, **settings)
    widths = WIDTHS.get(config.model.name, config.model.widths)
    return dataclasses.replace(
        config,
        steps=min(config.steps, STEPS),
        data=small(config.data, here),
        validation_size=min(config.validation_size, HELD_OUT),
        model=dataclasses.replace(config.model, widths=widths),
        device="cpu",
    )


def short_recipe(data: str, examples: int) -> Config:
    """Return how networks are trained that judge labels, with few steps and few filters."""
    config = labels_recipe(data, examples)
    model = dataclasses.replace(config.model, widths=WIDTHS[config.model.name])
    return dataclasses.replace(config, steps=STEPS, model=model)


def value(arguments: list[str], flag: str) -> str | None:
    """Return the value that is given for a flag."""
    for i, argument in enumerate(arguments):
        if argument == flag:
            return arguments[i + 1]
        if argument.startswith(flag + "="):
            return argument.partition("=")[2]
    return None


def changed(arguments: list[str], flag: str, change: Callable[[str], str]) -> list[str]:
    """Return arguments with another value for a flag, where it is given."""
    found = value(arguments, flag)
    if found is None:
        return arguments
    at = next(i for i, a in enumerate(arguments) if a == flag or a.startswith(flag + "="))
    return [*without(arguments, flag)[:at], flag, change(found), *without(arguments, flag)[at:]]


def without(arguments: list[str], flag: str) -> list[str]:
    """Return arguments without a flag and its value."""
    found: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == flag:
            skip = True
        elif not argument.startswith(flag + "="):
            found.append(argument)
    return found
