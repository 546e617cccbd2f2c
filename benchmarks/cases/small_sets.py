"""How well the recipe for a folder of pictures learns small sets of different kinds.

    python benchmarks/run.py small_sets SOURCES FOLDER [--sets digits cars …] [--seeds 3]

Each set is trained on as `deepcnn train --data SET` does it without any other setting, but for so
many images (--images), so that a busy machine finds the same; and scored on the test split, which
chose nothing. SOURCES has the public repositories that the sets are made of (see tools/sets.py);
FOLDER keeps the sets. What scikit-learn and other programs make of them: benchmarks/peers.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import deepcnn
from deepcnn.config import Config
from deepcnn.data.dataset import Dataset
from deepcnn.settings import DataSpec
from deepcnn.training.looks import some_of
from deepcnn.training.recipes import Facts, fitting, recipe, useful_epochs
from tools import report, sets

IMAGES = 40_000  # that a training sees


def main(arguments: list[str]) -> int:
    """Train on each set with each seed, print what came of it and store it."""
    parser = report.parser("small_sets", __doc__)
    parser.add_argument("sources", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", choices=sets.NAMES, default=sets.NAMES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=IMAGES)
    options = parser.parse_args(arguments)
    for name in options.sets:
        out = report.new_file("small_sets", options.out, name)
        place = sets.make(name, options.sources, options.folder)
        config = settings(place, options.images)
        found = [train(dataclasses.replace(config, seed=k)) for k in range(options.seeds)]
        changed = deepcnn.config.changed_fields(deepcnn.presets.quick(), config)
        result = {
            "what": "right answers about the test split",
            **report.circumstances(precision="auto"),
            "settings": {n: v for n, v in _flat(config).items() if n in changed and n != "data"},
            "figures": found,
        }
        print(name, *(f"{f['right']} of {f['of']}" for f in found), flush=True)
        report.store(result, out, name)
    return 0


def settings(data: Path, images: int) -> Config:
    """Return the recipe's settings for a set, with as many steps as are useful or see `images`."""
    dataset = deepcnn.open_dataset(DataSpec(data=str(data)))
    config = recipe(_facts(dataset, str(data)))
    if config.image_size is not None:
        dataset = dataset.resized(config.image_size) or dataset
    train = dataset.split("train")
    config = dataclasses.replace(config, inputs=fitting(config.inputs, some_of(train)))
    passes = min(useful_epochs(len(train)), images / len(train))
    steps = max(1, round(passes * len(train) / config.batch_size))
    return dataclasses.replace(
        config, steps=steps, evaluate_on=("validation", "test"), summary_every=0, save_every=steps
    )


def train(config: Config) -> dict[str, Any]:
    """Train once, and return what came of it."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        result = deepcnn.train(config, run_dir=Path(folder) / "run")
    seconds = time.process_time() - began
    validation, test = result.scores
    assert result.answered is not None
    right, labels = result.answered.right, result.answered.labels
    each = [right[labels == k].mean() for k in np.unique(labels)]
    return {
        "seed": config.seed,
        "right": test.correct,
        "of": test.total,
        "balanced": round(float(np.mean(each)), 4),
        "right of validation": validation.correct,
        "of validation": validation.total,
        "cpu seconds": round(seconds, 1),
    }


def _facts(dataset: Dataset, data: str) -> Facts:
    train = dataset.split("train")
    return Facts(
        data=data,
        counts=tuple(dataset.counts("train").tolist()),
        shape=train.shape,
        resizable=train.known_labels() is not None,
        scored=len(dataset.split("validation")),
        seconds=60.0,
    )


def _flat(config: Config) -> dict[str, Any]:
    """Return the settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in deepcnn.config.to_dict(config).items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": v for inner, v in value.items()}
        else:
            flat[name] = value
    return flat
