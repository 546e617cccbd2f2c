"""What a network gains by beginning with the layers of one that learned CIFAR-10.

    python benchmarks/run.py start_from RUN fashion_mnist
    python benchmarks/run.py start_from RUN digits
    python benchmarks/run.py start_from RUN flowers=FOLDER

RUN is a run of `quick`. A few of each class are trained on, others with each seed; the score is on
examples of the training split that no seed trains on, so the test set stays for the end. From
scratch and from RUN the steps are the same. FOLDER holds pictures in class folders, which are
brought to 32×32, as scikit-learn's digits are. `flowers` are the photographs of the repository
martinwestin/flower_classification at GitHub, `hands` those of signs for digits of
ardamavi/Sign-Language-Digits-Dataset.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepcnn import load_dataset, open_dataset, presets, train
from deepcnn.config import Config
from deepcnn.data.arrays import Arrays
from deepcnn.inputs.standardize import Statistics
from deepcnn.runs.run import Run
from deepcnn.runs.trained_on import TrainedOn
from deepcnn.settings import DataSpec
from tools import report

SEEDS = (0, 1, 2)
HELD_OUT = 1000  # examples to score on, at most
RATES = (0.1, 0.3, 1.0)
RATE_WITH_STATISTICS = 0.3
SIDE = 32


def main(arguments: list[str]) -> int:
    """Train on a set, print the figures and store them."""
    parser = report.parser("start_from", __doc__)
    parser.add_argument("run", type=Path, help="directory of a run, which is not changed")
    parser.add_argument("set", help="fashion_mnist, digits of scikit-learn, or NAME=FOLDER")
    parser.add_argument("--each", type=int, default=100, help="examples of each class")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=100)
    options = parser.parse_args(arguments)
    name = options.set.partition("=")[0]
    remark = options.remark or name
    out = report.new_file("start_from", options.out, remark)
    about = report.circumstances()
    every = examples(options.set)
    with tempfile.TemporaryDirectory() as scratch:
        tried = measure(every, options, Path(scratch))
    result = {
        "what": "begin with what another run learned",
        "set": name,
        **about,
        "each": options.each,
        "classes": len(every.classes),
        "shape": list(every.shape),
        "steps": options.steps,
        "batch": options.batch,
        "tried": tried,
    }
    report.store(result, out, remark)
    return 0


def measure(every: Arrays, options: Any, scratch: Path) -> list[dict[str, Any]]:
    """Return for each way to begin how many examples each seed has right."""
    tried = []
    for start, rate, statistics in ways(options.run, every.shape[2]):
        right, total = [], 0
        for seed in SEEDS:
            data = scratch / f"data-{seed}"
            if not data.exists():
                write(every, options.each, seed, data)
            config = settings(str(data), options.steps, options.batch, seed, rate)
            path = scratch / f"{start}-{seed}"
            start_from = None if rate is None else options.run
            with with_statistics(statistics):
                evaluated = train(config, run_dir=path, start_from=start_from).evaluated
            assert evaluated is not None
            right, total = [*right, evaluated.correct], evaluated.total
        tried.append({"start": start, "right": right, "of": total})
        print(json.dumps(tried[-1]), flush=True)
    return tried


def ways(run: Path, channels: int) -> list[tuple[str, float | None, Statistics | None]]:
    """Return the names of the ways to begin, the rate of old layers, and whose statistics."""
    transform = TrainedOn.read(Run.open(run)).transform
    theirs = tuple(
        tuple(values) if len(values) == channels else (float(np.mean(values)),) * channels
        for values in (transform.mean, transform.std)
    )
    old: list[tuple[str, float | None, Statistics | None]] = [
        (f"rate {rate}", rate, None) for rate in RATES
    ]
    own = f"rate {RATE_WITH_STATISTICS}, its statistics"
    return [("scratch", None, None), *old, (own, RATE_WITH_STATISTICS, (theirs[0], theirs[1]))]


def settings(data: str, steps: int, batch: int, seed: int, rate: float | None) -> Config:
    """Return `quick` for a small set."""
    preset = presets.quick()
    optimizer = dataclasses.replace(preset.optimizer, old_layers_rate=rate or 1.0)
    return dataclasses.replace(
        preset,
        data=data,
        optimizer=optimizer,
        steps=steps,
        batch_size=batch,
        save_every=steps,
        summary_every=0,
        seed=seed,
    )


def with_statistics(statistics: Statistics | None) -> Any:
    """Let trainings standardize by these instead of the statistics of their own data."""
    home = "deepcnn.inputs.transform.statistics_of"
    return mock.patch(home, return_value=statistics) if statistics else mock.MagicMock()


def examples(name: str) -> Arrays:
    """Return all examples of a set."""
    if name == "fashion_mnist":
        return load_dataset(name, "train")
    if name == "digits":
        return digits()
    spec = DataSpec(data=name.partition("=")[2], image_size=(SIDE, SIDE), skip_bad=True)
    return open_dataset(spec).split("train").load()


def digits() -> Arrays:
    """Return scikit-learn's handwritten digits: 1,797 of 8×8 pixels and 17 levels of gray."""
    from sklearn.datasets import load_digits

    found = load_digits()
    gray = np.round(found.images * (255 / 16)).astype(np.uint8)
    scaled = [Image.fromarray(g).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for g in gray]
    images: NDArray[np.uint8] = np.stack([np.asarray(image) for image in scaled])[..., None]
    classes = tuple(f"digit {n}" for n in range(10))
    return Arrays(images, found.target.astype(np.int64), classes)


def write(every: Arrays, each: int, seed: int, folder: Path) -> None:
    """Write `each` examples of each class, drawn by `seed`, and the held-out ones."""
    order = np.random.default_rng(0).permutation(len(every))
    held, others = order[:HELD_OUT], order[HELD_OUT:]
    others = np.random.default_rng(1 + seed).permutation(others)
    labels = every.labels[others]
    chosen = np.concatenate([others[labels == k][:each] for k in range(len(every.classes))])
    folder.mkdir()
    for split, index in (("train", chosen), ("validation", held)):
        np.savez(folder / f"{split}.npz", images=every.images[index], labels=every.labels[index])
    (folder / "classes.json").write_text(json.dumps(every.classes))
