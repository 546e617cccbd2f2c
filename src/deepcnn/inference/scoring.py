"""Scoring: how many answers are right, over blocks of examples, each counted once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deepcnn.config import Config
from deepcnn.data.dataset import Dataset
from deepcnn.data.source import Source
from deepcnn.data.splits import Split
from deepcnn.devices import Place, to_device
from deepcnn.inference import calibration
from deepcnn.inference.answers import Answers, margins
from deepcnn.inference.calibration import Floats
from deepcnn.inference.kinds import SMALLEST_SIDE, statistics_of
from deepcnn.learning import objective
from deepcnn.team.team import Team

# Examples scored at a time. A GPU is not busy with a few hundred small images: there it is how many
# values of input may be held.
BATCH, VALUES_ON_GPU = 500, 2**24
MOST_KEPT = 2**26  # logits of a split that are kept to calibrate from

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
def score(answers: Answers, blocks: Callable[[], Blocks], keep: Kept | None = None) -> Score:
    """Compare answers with the labels of blocks that are on the device of the answers.

    `keep` is called with all logits and labels.
    """
    device = answers.place.device
    correct = torch.zeros((), dtype=torch.int64, device=device)
    losses = [torch.zeros((), device=device)]
    total = 0
    for images, labels in blocks():
        logits = answers.logits(images)
        correct += objective.count_correct(logits, labels)
        losses.append(F.cross_entropy(logits, labels, reduction="sum"))
        total += len(labels)
        if keep is not None:
            keep.add(images, logits, labels)
    return Score(int(correct), total, torch.stack(losses).cpu().double().sum().item())


class Kept:
    """What calibration needs from the examples that were scored.

    These are logits, labels and statistics of the pictures, as far as memory has room for them.
    """

    def __init__(self) -> None:
        self._blocks: list[tuple[Floats, NDArray[np.int64], NDArray[np.float64]]] = []
        self._values = 0

    def add(self, images: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a block, unless there are too many."""
        self._values += logits.numel()
        if self._values <= MOST_KEPT:
            has_all = min(images.shape[1:3]) >= SMALLEST_SIDE
            statistics = statistics_of(images.cpu().numpy()) if has_all else np.empty((0, 0))
            self._blocks.append((logits.cpu().numpy(), labels.cpu().numpy(), statistics))

    def over(
        self, team: Team
    ) -> tuple[Floats, NDArray[np.int64], NDArray[np.float64] | None] | None:
        """Return logits, labels and statistics of all processes' examples; None for too many."""
        mine = self._blocks if self._values <= MOST_KEPT else None
        everyone = team.gather(mine)
        blocks = [block for each in everyone for block in each or ()]
        if any(each is None for each in everyone) or not blocks:
            return None
        logits, labels, statistics = map(np.concatenate, zip(*blocks, strict=True))
        return logits, labels, statistics if len(statistics) else None


def find_margin(answers: Answers, blocks: Callable[[], Blocks], team: Team) -> float | None:
    """Return the margin that a quarter of a split's images are below, if views are "unsure"."""
    if answers.transform.views != "unsure":
        return None
    found = [margins(answers.first_look(images)).cpu().numpy() for images, _ in blocks()]
    everyone = team.gather(np.concatenate(found) if found else np.empty(0, np.float32))
    return calibration.between(np.concatenate(everyone), calibration.UNSURE_SHARE)


def splits_to_score(config: Config, dataset: Dataset) -> tuple[Split, ...]:
    """Return the splits on which a training is scored; the last one counts."""
    if config.evaluate_on:
        return config.evaluate_on
    return ("validation" if "validation" in dataset.splits else "test",)


def blocks_to_score(
    source: Source, values: int, place: Place, team: Team
) -> Iterator[tuple[Tensor, Tensor]]:
    """Bring this process's share of a split to a device: images uint8 [b, H, W, C], labels int64.

    `values`: how many values the network's input has for an image. The size of a block depends on
    it.
    """
    size = examples_at_a_time(len(source), values, place)
    for images, labels in source.blocks(size, index=team.index, count=team.count):
        yield to_device(images, place.device), to_device(labels, place.device)


def most_blocks(source: Source, values: int, place: Place, team: Team) -> int:
    """Return the largest number of blocks of a split that any process has."""
    size = examples_at_a_time(len(source), values, place)
    return math.ceil(sum(math.ceil(len(shard) / size) for shard in source.shards) / team.count)


def examples_at_a_time(examples: int, values: int, place: Place) -> int:
    """Return how many examples of so many values to score at once; on a GPU, in equal blocks."""
    if place.device.type == "cpu":
        return BATCH
    blocks = math.ceil(examples / max(1, VALUES_ON_GPU // values))
    return math.ceil(examples / blocks)
