"""What each distortion costs, beside a step of `quick`, in processor time on one thread.

    python benchmarks/run.py distortions

The inputs of a step are 500 images of CIFAR-10, 32 by 32. Distortions take turns, and the median
over the rounds is taken. What one costs is what its inputs take longer than those of `quick`.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import torch

from cases import check
from deepcnn import presets
from deepcnn.data.open import open_dataset
from deepcnn.data.source import Source
from deepcnn.devices import Part
from deepcnn.hardware import float32_products, keep_freed_memory
from deepcnn.inputs.feeds import Feed, Preloaded
from deepcnn.inputs.loader import PLANNED_AHEAD, Loader
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.transform import Transform
from deepcnn.settings import TransformConfig
from tools import report

PLAIN, STEP = "inputs of quick", "step of quick"
EACH: dict[str, dict[str, Any]] = {
    "translation": {"translation": 4},
    "rotation": {"rotation": 15.0},
    "brightness": {"brightness": 63.0},
    "contrast": {"contrast": (0.2, 1.8)},
    "saturation": {"saturation": (0.5, 1.5)},
    "hue": {"hue": 0.1},
    "cutout": {"cutout": 12},
    "erase": {"erase": 0.5},
    "mixup": {"mixup": 1.0},
    "cutmix": {"cutmix": 1.0},
}
STEPS = PLANNED_AHEAD  # whose inputs are made in a round, and their random choices at once
WHOLE = Part(0, 1, torch.device("cpu"))


def main(arguments: list[str]) -> int:
    """Measure, print the milliseconds and store them."""
    parser = report.parser("distortions", __doc__)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args(arguments)
    out = report.new_file("distortions", options.out, options.remark)
    torch.set_num_threads(1)
    keep_freed_memory()
    about = report.circumstances()
    found = measure(open_dataset("cifar10").split("train"), options.rounds)
    for name, milliseconds in found.items():
        print(f"{milliseconds:8.2f} ms  {milliseconds / found[STEP]:6.1%} of a step  {name}")
    what = "processor time of a step's inputs, each distortion without those of quick"
    result = {"what": what, **about, "rounds": options.rounds, "milliseconds": found}
    report.store(result, out, options.remark)
    return 0


def measure(source: Source, rounds: int) -> dict[str, float]:
    """Return the milliseconds of a step, of its inputs, and of each distortion on top."""
    config = presets.quick()
    of_all = {name: value for settings in EACH.values() for name, value in settings.items()}
    every = EACH | {"all of these": of_all}
    arrays = source.load()
    feed = Preloaded(arrays, Shuffle.full(0, len(arrays)), batch_size=config.batch_size)
    loaders = {PLAIN: loader_of(source, feed, config.inputs)}
    for name, settings in every.items():
        loaders[name] = loader_of(source, feed, dataclasses.replace(config.inputs, **settings))
    with float32_products(WHOLE.device):
        step, _ = check.quick_step()
        step()
        taken: dict[str, list[float]] = {name: [] for name in (STEP, *loaders)}
        for n in range(rounds + 1):
            taken[STEP].append(step())
            for name, loader in loaders.items():
                taken[name].append(
                    check.seconds(lambda n=n, loader=loader: load(loader, n)) / STEPS
                )
    # the first round warms up
    found = {name: 1e3 * statistics.median(each[1:]) for name, each in taken.items()}
    plain = found[PLAIN]
    return {
        name: round(value if name in (STEP, PLAIN) else value - plain, 3)
        for name, value in found.items()
    }


def loader_of(source: Source, feed: Feed, inputs: TransformConfig) -> Loader:
    """Return what makes inputs with these settings, at their whole size."""
    settings = dataclasses.asdict(dataclasses.replace(inputs, scales=()))
    return Loader(
        feed,
        Transform.of(source, **settings),
        seed=0,
        training_steps=presets.quick().steps,
        classes=len(source.classes),
    )


def load(loader: Loader, number: int) -> None:
    """Make the inputs of some steps that were not made before."""
    for step in range(number * STEPS, (number + 1) * STEPS):
        loader.load(step, WHOLE)
