"""Recipes: facts about a data set, and settings with which such a set is learned well."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from deepcnn import presets
from deepcnn.config import Config
from deepcnn.data.arrays import Arrays
from deepcnn.settings import TransformConfig
from deepcnn.training.looks import may_mirror, mostly_blank

ENOUGH_PIXELS = 32  # a side, of pictures that can be brought to any size
FEW_PIXELS = 12  # a side, with less of which the network has too little to pool
LEAST_BATCH = 50
LEAST_TO_GROW = 20  # pixels a side, with less of which images are whole from the start
DRAWN_CONTRAST = (0.6, 1.4)


@dataclass(frozen=True)
class Facts:
    """What is known of a data set before anything is trained on it.

    `data`: its name or path. `counts`: training examples of each class, without held-out ones.
    `shape`: height, width and channels of its images as they are read. `resizable`: whether they
    are picture files, which `image_size` can bring to any size. `scored`: the number of examples
    that the training is scored on. `seconds`: the time that all steps of the training may take.
    """

    data: str
    counts: tuple[int, ...]
    shape: tuple[int, int, int]
    resizable: bool
    scored: int
    seconds: float

    @property
    def examples(self) -> int:
        """How many examples there are to train on."""
        return sum(self.counts)


def recipe(facts: Facts) -> Config:
    """Return the settings for a data set; the plan gives the number of steps."""
    preset = presets.quick()
    batch = min(preset.batch_size, max(LEAST_BATCH, facts.examples // 10))
    share = math.sqrt(batch / preset.batch_size)
    wanted = preset.optimizer
    assert wanted.head_learning_rate is not None
    assert wanted.muon_learning_rate is not None
    optimizer = replace(
        wanted,
        learning_rate=_rounded(wanted.learning_rate * share),
        head_learning_rate=_rounded(wanted.head_learning_rate * share),
        muon_learning_rate=_rounded(wanted.muon_learning_rate * share),
    )
    return replace(
        preset,
        data=facts.data,
        image_size=image_size(facts.shape) if facts.resizable else None,
        optimizer=optimizer,
        batch_size=batch,
    )


def fitting(
    inputs: TransformConfig, few: Arrays, chosen: frozenset[str] = frozenset()
) -> TransformConfig:
    """Return how images become the network's input, as a look at a few images suggests.

    `few`: some training examples, in the size of the training. `chosen`: the dotted names of
    settings that stay as they are.
    """
    changes: dict[str, Any] = {}
    if not may_mirror(few):
        changes |= {"flip": "none", "views": "one"}
    if mostly_blank(few):  # else channels that are the same everywhere have no variance at all
        changes["contrast"] = DRAWN_CONTRAST
    if min(few.shape[:2]) < LEAST_TO_GROW:
        changes["scales"] = ()
    return replace(inputs, **{k: v for k, v in changes.items() if f"inputs.{k}" not in chosen})


def image_size(shape: tuple[int, int, int]) -> tuple[int, int] | None:
    """Return the height and width to which pictures are scaled; None: they keep theirs.

    `shape`: height, width and channels of most of them. The sides keep their proportion.
    """
    height, width, _ = shape
    if min(height, width) < FEW_PIXELS:
        factor = 2 * FEW_PIXELS / (height + width)
        return max(FEW_PIXELS, round(height * factor)), max(FEW_PIXELS, round(width * factor))
    if max(height, width) <= ENOUGH_PIXELS:
        return None
    factor = ENOUGH_PIXELS / max(height, width)
    return max(FEW_PIXELS, round(height * factor)), max(FEW_PIXELS, round(width * factor))


def useful_epochs(examples: int) -> int:
    """Return the largest useful number of passes over this many examples."""
    return max(10, min(500, round(40 * math.pow(50_000 / examples, 0.4))))


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")
