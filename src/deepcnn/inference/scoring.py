"""Scoring: how many answers are right, over blocks of examples, each counted once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from deepcnn.config import Config
from deepcnn.data.dataset import Dataset
from deepcnn.data.source import Source
from deepcnn.data.splits import Split
from deepcnn.devices import Place, to_device
from deepcnn.inference.answers import Answers
from deepcnn.learning import objective
from deepcnn.team.team import Team

# Examples scored at a time. The counts do not depend on it, but where it decides which images just
# pass for unsure. A GPU is not busy with a few hundred small images: there it is how many values of
# input may be held.
BATCH, VALUES_ON_GPU = 500, 2**24

Blocks = Iterable[tuple[Tensor, Tensor]]  # images uint8 [b, H, W, C], labels int64 [b]


@dataclass(frozen=True)
class Score:
    """How many of `total` answers are right, and the sum of their cross-entropies in nats."""

    correct: int
    total: int
    losses: float

    @property
    def loss(self) -> float:
        """The mean cross-entropy in nats."""
        return self.losses / self.total

    def over(self, team: Team) -> Score:
        """Return the sum of all processes' scores."""
        mine = torch.tensor([self.correct, self.total, self.losses], dtype=torch.float64)
        correct, total, losses = team.sum(mine).tolist()
        return Score(int(correct), int(total), losses)


@torch.no_grad()
def score(answers: Answers, blocks: Blocks) -> Score:
    """Compare answers with the labels of blocks that lie where the answers are computed."""
    device = answers.place.device
    correct = torch.zeros((), dtype=torch.int64, device=device)
    losses = [torch.zeros((), device=device)]
    total = 0
    for images, labels in blocks:
        logits = answers.logits(images)
        correct += objective.count_correct(logits, labels)
        losses.append(F.cross_entropy(logits.float(), labels, reduction="sum"))
        total += len(labels)
    return Score(int(correct), total, torch.stack(losses).cpu().double().sum().item())


def splits_to_score(config: Config, dataset: Dataset) -> tuple[Split, ...]:
    """Return the splits that a training is scored on; the last one is the one that counts."""
    if config.evaluate_on:
        return config.evaluate_on
    return ("validation" if "validation" in dataset.splits else "test",)


def blocks_to_score(
    source: Source, values: int, place: Place, team: Team
) -> Iterator[tuple[Tensor, Tensor]]:
    """Bring this process's share of a split to a device: images uint8 [b, H, W, C], labels int64.

    `values`: how many an image has as the network's input, on which it depends how many there are
    in a block.
    """
    size = examples_at_a_time(len(source), values, place)
    for images, labels in source.blocks(size, index=team.index, count=team.count):
        yield to_device(images, place.device), to_device(labels, place.device)


def examples_at_a_time(examples: int, values: int, place: Place) -> int:
    """Return how many examples of so many values to score at a time, in equal blocks on a GPU."""
    if place.device.type == "cpu":
        return BATCH
    blocks = math.ceil(examples / max(1, VALUES_ON_GPU // values))
    return math.ceil(examples / blocks)
