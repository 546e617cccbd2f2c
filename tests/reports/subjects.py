"""Things to report about, made without a training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from deepcnn import presets
from deepcnn.config import Config, to_dict
from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.inference.answered import Answered
from deepcnn.inference.calibration import Calibration, calibrate
from deepcnn.inference.kinds import statistics_of
from deepcnn.inference.trained import Trained
from deepcnn.inputs.transform import Transform
from deepcnn.reports.findings import Subject
from deepcnn.runs.run import CONFIG, ENVIRONMENT, INPUTS, Run
from deepcnn.runs.trained_on import TrainedOn

ANIMALS = ("cat", "dog", "cow", "hen")


def network(channels: int, height: int, width: int, classes: int) -> nn.Module:
    torch.manual_seed(0)
    flat = 4 * (height - 2) * (width - 2)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(flat, classes)
    )


def arrays(
    classes: tuple[str, ...], examples: int, shape: tuple[int, int, int], seed: int = 0
) -> Arrays:
    """Return noise with labels, of which every class has some."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (examples, *shape), dtype=np.uint8)
    return Arrays(images, generator.permutation(examples) % len(classes), classes)


def subject(
    folder: Path,
    *,
    classes: tuple[str, ...] = ANIMALS,
    examples: int = 300,
    shape: tuple[int, int, int] = (12, 10, 3),
    accuracy: float = 0.7,
    model: nn.Module | None = None,
    log: list[dict[str, Any]] | None = None,
    **settings: Any,
) -> Subject:
    """Return a run in `folder` whose answers are right by chance, and more or less sure."""
    data = arrays(classes, examples, shape)
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(examples, len(classes))).astype(np.float32)
    right = generator.random(examples) < accuracy
    logits[right, data.labels[right]] += generator.uniform(2, 8, right.sum()).astype(np.float32)
    answered = Answered("test", 7, True, logits, data.labels)
    calibration = calibrate(
        logits,
        data.labels,
        step=7,
        averaged=True,
        split="test",
        margin=None,
        statistics=statistics_of(data.images),
    )
    answered = dataclasses.replace(answered, calibration=calibration)
    counts = np.bincount(data.labels, minlength=len(classes)).tolist()
    made = trained(data, model, calibration, counts={"train": counts, "test": counts}, **settings)
    return Subject(
        written(folder, made.config, made.trained_on, log), made, answered, in_memory(data)
    )


def trained(
    data: Arrays,
    model: nn.Module | None = None,
    calibration: Calibration | None = None,
    *,
    counts: dict[str, list[int]] | None = None,
    inputs: dict[str, Any] | None = None,
    **settings: Any,
) -> Trained:
    """Return a network for images like `data`; `inputs`: of its transform."""
    config = dataclasses.replace(presets.tiny(), data="photos", **settings)
    usual: dict[str, Any] = {
        "crop": 1.0,
        "pad": 1,
        "flip": "random",
        "contrast": None,
        "standardize": "image",
    }
    transform = Transform.of(in_memory(data), **(usual | (inputs or {})))
    channels, height, width = transform.shape
    net = model or network(channels, height, width, len(data.classes))
    return Trained(
        config, TrainedOn(transform, data.classes, counts or {}), net, 7, True, calibration
    )


def written(
    folder: Path, config: Config, trained_on: TrainedOn, log: list[dict[str, Any]] | None
) -> Run:
    """Write what a training leaves beside its checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder)
    run.write(CONFIG, to_dict(config))
    run.write(INPUTS, trained_on.to_dict())
    run.write(ENVIRONMENT, {"torch": "2.0", "device": "cpu", "threads": 2})
    lines = [json.dumps(event) + "\n" for event in (events() if log is None else log)]
    run.log.write_text("".join(lines))
    return run


def events() -> list[dict[str, Any]]:
    """Return the events of a training of seven steps, of which 4 was made again."""
    found: list[dict[str, Any]] = []
    for step in (0, 1, 2, 3, 4, 4, 5, 6):
        losses = {"cross_entropy": 2.0 - step / 10, "total_loss": 2.5 - step / 10}
        found.append(
            {
                "event": "Stepped",
                "step": step,
                "losses": losses,
                "averages": {name: loss + 0.05 for name, loss in losses.items()},
                "learning_rate": 0.1 * 0.5**step,
            }
        )
    for step, correct in ((3, 100), (7, 210)):
        found.append(
            {"event": "Evaluated", "step": step, "split": "test", "correct": correct, "total": 300}
        )
    found.append({"event": "Finished", "step": 7, "seconds": 12.5})
    return found
