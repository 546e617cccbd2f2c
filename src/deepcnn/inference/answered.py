"""A network's answers about a labelled split, for reports and comparisons."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepcnn.inference.calibration import Calibration, Floats, probabilities


@dataclass(frozen=True)
class Answered:
    """The answers of a checkpoint's network about all examples of a split, in their order.

    `logits`: float32 [N, classes], as the network gives them. `labels`: int64 [N], from the data.
    `step`, `averaged`: of the checkpoint. `calibration`: the checkpoint's, or None.
    """

    split: str
    step: int
    averaged: bool
    logits: Floats = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    calibration: Calibration | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The likeliest class of each example, int64 [N]."""
        found: NDArray[np.int64] = np.argmax(self.logits, axis=1).astype(np.int64)
        return found

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each prediction is the label, bool [N]; a NaN among the logits is never right."""
        right = (self.predicted == self.labels) & np.isfinite(self.logits).all(axis=1)
        return np.asarray(right, np.bool_)

    @property
    def correct(self) -> int:
        """The number of right predictions."""
        return int(self.right.sum())

    def probabilities(self) -> Floats:
        """Return the probabilities, float32 [N, classes], with the temperature if there is one."""
        return probabilities(self.logits, self.calibration.temperature if self.calibration else 1.0)
