"""The speed of torch, ONNX Runtime and OpenVINO with trained networks, from pixels to answers."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import deepcnn
from deepcnn.inference import speed
from tools.comparison import Case

PRESETS = {"tutorial": ("--steps", "300"), "quick": ()}  # with options of their training


def train_and_export(folder: Path) -> None:
    """Train the network of each preset, and export it."""
    for preset, options in PRESETS.items():
        run = str(folder / preset)
        for arguments in (
            ("train", preset, *options, "--run-dir", run, "--no-report"),
            ("export", run, "-o", f"{run}.onnx"),
        ):
            command = [sys.executable, "-m", "deepcnn", *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def answering(way: speed.Way, folder: Path) -> dict[str, Any]:
    """Return how fast a runtime answers about test images, by preset."""
    runtime, precision = way
    found = {}
    for preset in PRESETS:
        run = folder / (preset if runtime == "torch" else f"{preset}.onnx")
        classifier = deepcnn.load(run, device="cpu", runtime=runtime, precision=precision)
        images = deepcnn.load_dataset("cifar10", "test").images[: speed.MANY]
        one = speed.speed_of(classifier, images)
        found[f"{preset}: images/s, batch {speed.MANY}"] = round(one.many)
        found[f"{preset}: ms, batch 1"] = round(one.one, 3)
    return found | {"seeds": [0]}


CASE = Case(
    what="answers about images, from pixels to probabilities: 256 together, and one",
    unit="images/s, ms",
    contenders={", ".join(way): partial(answering, way) for way in speed.WAYS},
    denominator="torch, fp32",
    lower_is_better=tuple(f"{preset}: ms, batch 1" for preset in PRESETS),
    prepare=train_and_export,
)
