"""Batches that are made together are those made one by one."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.devices import Part
from deepcnn.inputs.feeds import Preloaded
from deepcnn.inputs.loader import PLANNED_AHEAD, Loader, Plan
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.transform import Transform

STEPS, SIZE = 40, 70
HALF_SIZE_UNTIL = 0.3  # of the steps


@pytest.fixture
def loader(cifar10_test: Arrays) -> Loader:
    """Distorted real images, small at first, with an epoch of 900 that ends within a batch."""
    source = in_memory(
        Arrays(cifar10_test.images[:900], cifar10_test.labels[:900], cifar10_test.classes)
    )
    transform = Transform.of(
        source,
        crop=0.75,
        pad=0,
        flip="random",
        contrast=(0.2, 1.8),
        standardize="image",
        scales=((0.0, 0.5), (HALF_SIZE_UNTIL, 1.0)),
    )
    shuffle = Shuffle.of(source.shards, seed=3, readers=1, buffer=900)
    feed = Preloaded(source.load(), shuffle, batch_size=SIZE)
    return Loader(feed, transform, seed=5, training_steps=STEPS)


def alone(loader: Loader, step: int, part: Part) -> tuple[Tensor, Tensor]:
    plan = loader.plan(step, part)
    return loader.take({name: values[:1] for name, values in plan.items()}, loader.scale(step))


def watch(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list of how many images are made at once, which grows as they are."""
    taken: list[int] = []
    take = loader.take

    def counting(plan: Plan, scale: float) -> tuple[Tensor, Tensor]:
        taken.append(plan["index"].numel())
        return take(plan, scale)

    monkeypatch.setattr(loader, "take", counting)
    return taken


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("first", [0, 11, 30])
def test_batches_made_together_are_those_made_alone(
    loader: Loader, index: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Part(index, 2, torch.device("cpu"))
    expected = [alone(loader, step, part) for step in range(first, STEPS)]
    assert {x.shape[2] for x, _ in expected} == ({24} if first == 30 else {12, 24})
    taken = watch(loader, monkeypatch)
    for step, (images, labels) in zip(range(first, STEPS), expected, strict=True):
        found = loader.load(step, part)
        assert torch.equal(found[0], images)
        assert found[0].stride() == images.stride()
        assert torch.equal(found[1], labels)
    small = round(HALF_SIZE_UNTIL * STEPS)
    stops = sorted(
        s for s in {first, small, PLANNED_AHEAD, 2 * PLANNED_AHEAD, 3 * PLANNED_AHEAD} if s >= first
    )
    together = [b - a for a, b in itertools.pairwise(stops)]
    assert taken == [steps * SIZE // 2 for steps in together]


def test_large_batches_are_made_one_by_one(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepcnn.inputs.loader.TOGETHER", 3 * 24 * 24 * SIZE * 2 - 1)
    part = Part(0, 1, torch.device("cpu"))
    taken = watch(loader, monkeypatch)
    for step in (5, 6, 3):  # a step of before, too
        assert torch.equal(loader.load(step, part)[0], alone(loader, step, part)[0])
    assert taken[::2] == [SIZE] * 3
