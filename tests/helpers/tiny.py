"""Small trainings that many tests make, and how their ends are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepcnn import presets
from deepcnn.config import Config
from deepcnn.data.open import open_dataset
from deepcnn.engines.engine import Engine
from deepcnn.inputs.feeds import Feed
from deepcnn.inputs.transform import Transform
from deepcnn.learning.assembly import make_state
from deepcnn.learning.state import TrainState
from deepcnn.models.build import network
from deepcnn.models.network import INITIAL_IMAGES, initialize
from deepcnn.runs import checkpoint
from deepcnn.runs.log import events, read_log
from deepcnn.settings import OptimizerConfig
from deepcnn.training.feeding import make_feed, make_order

CPU = torch.device("cpu")
TINY = dataclasses.replace(
    presets.tiny(), summary_every=0, device="cpu", precision="fp32", threads=1
)
# Without momentum, so that other roundings do not multiply.
PLAIN = dataclasses.replace(
    TINY, steps=100, optimizer=dataclasses.replace(TINY.optimizer, momentum=0.0)
)
# Ten steps of `quick` in small: its stem's bias learns in the first three of them.
QUICK = dataclasses.replace(
    presets.quick(),
    data="synthetic",
    model=dataclasses.replace(presets.quick().model, widths=(8, 8, 16)),
    steps=10,
    batch_size=64,
    summary_every=0,
    save_every=1,
    keep=10,
    device="cpu",
    precision="fp32",
    threads=1,
)
# Counted updates, groups with rates of their own, and a rate of 0 in the first step.
ADAMW = dataclasses.replace(
    TINY,
    steps=23,
    class_weights="balanced",
    optimizer=OptimizerConfig(
        learning_rate=2e-3,
        method="adamw",
        schedule="cosine",
        warm_up=0.2,
        weight_decay=1e-4,
        decayed=("local",),
        bias_learning_rate=4e-3,
    ),
)
# Another order of summation moves a gradient by some roundings of 6e-8 of its largest value, and a
# hundred steps to 1e-6. Where that turns the choice of a maximum or of a ReLU, an example's share
# goes elsewhere: of twelve seeds three came to 1e-4 to 8e-4. (With momentum such choices multiply,
# so there is none.) A part that counts 3 % too much, as 16 of 33 in two, leads to 4e-2.
SUMMATION = 5e-3


def tiny(**changes: Any) -> Config:
    """Return the configuration of most tests with some changes."""
    return dataclasses.replace(TINY, **changes)


def with_optimizer(config: Config, **changes: Any) -> Config:
    """Return a configuration with changes to its optimizer."""
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, **changes))


def with_inputs(config: Config, **changes: Any) -> Config:
    """Return a configuration with changes to its inputs."""
    return dataclasses.replace(config, inputs=dataclasses.replace(config.inputs, **changes))


def saved(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return checkpoint.paths(run / "checkpoints")


def tensors(run: Path) -> dict[str, Tensor]:
    """Return what a run's newest checkpoint holds."""
    return checkpoint.load(saved(run)[-1])[1]


def last(run: Path) -> bytes:
    """Return the bytes of a run's newest checkpoint."""
    return saved(run)[-1].read_bytes()


def last_values(run: Path) -> bytes:
    """Return the bytes of the tensors in a run's newest checkpoint, whoever it belongs to."""
    content = last(run)
    return content[8 + int.from_bytes(content[:8], "little") :]


def logged(run: Path, name: str) -> list[dict[str, Any]]:
    """Return the events of a kind in a run's log."""
    return events(read_log(run / "log.jsonl"), name)


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference, in units of the largest value of its tensor."""
    assert found.keys() == expected.keys()
    return max(
        float((found[n] - e).abs().max() / e.abs().max().clamp(min=1e-30))
        for n, e in expected.items()
    )


def state_of(config: Config) -> TrainState:
    """Return the state of a training before its first step."""
    source = open_dataset(config).split("train")
    transform = transform_of(config)
    model = network(
        config.model, None, shape=transform.shape, classes=len(source.classes), seed=config.seed
    )
    first = torch.from_numpy(source.first_images(INITIAL_IMAGES))
    initialize(model, lambda: [transform.evaluate(first)])
    return make_state(config, model)


def transform_of(config: Config) -> Transform:
    """Return the transform of a training."""
    source = open_dataset(config).split("train")
    return Transform.of(source, **dataclasses.asdict(config.inputs))


def feed_of(config: Config) -> Feed:
    """Return the feed of a training."""
    source = open_dataset(config).split("train")
    return make_feed(config, source, make_order(config, source), transform_of(config).shape, None)


def make_steps(engine: Engine, state: TrainState, count: int) -> list[Tensor]:
    """Make so many steps, as the loop of a training does; return their losses."""
    found = []
    for _ in range(count):
        found.append(engine.step().clone())
        state.forget_gradients()
    return found


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Return the steps and the values that TensorBoard shows of a tag."""
    return [(event.step, event.value) for event in read_back(folder).Scalars(tag)]


def read_back(folder: Path) -> Any:
    """Return all that TensorBoard shows of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    every: dict[str, int] = {"histograms": 0, "images": 0, "scalars": 0}
    accumulator = EventAccumulator(str(folder), size_guidance=every)
    accumulator.Reload()
    return accumulator


def kinds(heard: Iterable[object]) -> list[str]:
    """Return the names of the classes of events."""
    return [type(event).__name__ for event in heard]


class Stateful:
    """An endless iterator that can tell where it is."""

    def __init__(self, items: list[Any]) -> None:
        self._items, self._at = items, 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._at += 1
        return self._items[(self._at - 1) % len(self._items)]

    def state_dict(self) -> dict[str, int]:
        """Return where it is."""
        return {"at": self._at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self._at = state["at"]
