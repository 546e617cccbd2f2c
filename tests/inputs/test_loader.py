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
from deepcnn.inputs.loader import AHEAD, Batches
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.transform import Inputs

STEPS, SIZE = 40, 70
HALF_SIZE_UNTIL = 0.3  # of the steps


@pytest.fixture
def batches(cifar10_test: Arrays) -> Batches:
    """Distorted real images, small at first, with an epoch of 900 that ends within a batch."""
    source = in_memory(
        Arrays(cifar10_test.images[:900], cifar10_test.labels[:900], cifar10_test.classes)
    )
    inputs = Inputs.of(
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
    return Batches(feed, inputs, seed=5, training_steps=STEPS)


def alone(batches: Batches, step: int, part: Part) -> tuple[Tensor, Tensor]:
    plan = batches.plan(step, part)
    return batches.take(tuple(values[0] for values in plan), batches.scale(step))


def watch(batches: Batches, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list of how many images are made at once, which grows as they are."""
    taken: list[int] = []
    take = batches.take

    def counting(planned: tuple[Tensor, ...], scale: float) -> tuple[Tensor, Tensor]:
        taken.append(len(planned[0]))
        return take(planned, scale)

    monkeypatch.setattr(batches, "take", counting)
    return taken


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("first", [0, 11, 30])
def test_batches_made_together_are_those_made_alone(
    batches: Batches, index: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Part(index, 2, torch.device("cpu"))
    expected = [alone(batches, step, part) for step in range(first, STEPS)]
    assert {x.shape[2] for x, _ in expected} == ({24} if first == 30 else {12, 24})
    taken = watch(batches, monkeypatch)
    for step, (images, labels) in zip(range(first, STEPS), expected, strict=True):
        found = batches.load(step, part)
        assert torch.equal(found[0], images)
        assert found[0].stride() == images.stride()
        assert torch.equal(found[1], labels)
    small = round(HALF_SIZE_UNTIL * STEPS)
    stops = sorted(s for s in {first, small, AHEAD, 2 * AHEAD, 3 * AHEAD} if s >= first)
    together = [b - a for a, b in itertools.pairwise(stops)]
    assert taken == [steps * SIZE // 2 for steps in together]


def test_large_batches_are_made_one_by_one(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepcnn.inputs.loader.TOGETHER", 3 * 24 * 24 * SIZE * 2 - 1)
    part = Part(0, 1, torch.device("cpu"))
    taken = watch(batches, monkeypatch)
    for step in (5, 6, 3):  # a step of before, too
        assert torch.equal(batches.load(step, part)[0], alone(batches, step, part)[0])
    assert taken[::2] == [SIZE] * 3
