"""Measures how good answers about a labelled split are, without torch and pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepcnn.inference.calibration import (
    FEWEST,
    Floats,
    cross_fitted,
    expected_calibration_error,
    fit_threshold,
    halves,
    probabilities,
)

BINS = 15  # of a reliability diagram, of equal width
THRESHOLDS = 101  # from 0 to 1, of the curve

Labels = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class OfClass:
    """The counts for a class: `given` examples of it, `answered` as it, and `right` in both.

    `precision`: the right share of those answered. `recall`: the right share of those given. `f1`:
    their harmonic mean. Each is None if there is nothing to divide by.
    """

    given: int
    answered: int
    right: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Bin:
    """Answers with about the same probability: how many, how sure on average, how many right."""

    examples: int
    probability: float
    right: int


@dataclass(frozen=True)
class AtThreshold:
    """How many examples are answered, and how many rightly, if less sure answers are refused."""

    threshold: float
    answered: int
    right: int


@dataclass(frozen=True)
class CrossFitted:
    """A temperature and a threshold that were found on one half and tested on the other.

    `chances`: float32 [N, classes], each half with the temperature of the other. `answered`,
    `wrong`: over both halves, each with the threshold of the other.
    """

    chances: Floats
    temperatures: tuple[float, float]
    answered: int
    wrong: int


def confusion(labels: Labels, predicted: Labels, classes: int) -> Labels:
    """Return how many examples of each class (row) were answered as each class (column), [C, C]."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def by_class(table: Labels) -> list[OfClass]:
    """Return the counts for each class, from the confusion matrix [C, C]."""
    given, answered, right = table.sum(1).tolist(), table.sum(0).tolist(), np.diag(table).tolist()
    return [
        OfClass(g, a, r, _ratio(r, a), _ratio(r, g), _ratio(2 * r, a + g))
        for g, a, r in zip(given, answered, right, strict=True)
    ]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def ranks(logits: Floats, labels: Labels) -> Labels:
    """Return how many classes are likelier than the label, int64 [N]; 0 if it is the answer.

    Of equal logits, the first class counts as likelier, as in an argmax.
    """
    own = logits[np.arange(len(labels)), labels][:, None]
    before = np.arange(logits.shape[1])[None, :] < labels[:, None]
    likelier = (logits > own) | ((logits == own) & before)
    return np.asarray(likelier.sum(1), np.int64)


def reliability(largest: Floats, right: Bools, bins: int = BINS) -> list[Bin]:
    """Return the answers by their probability, in `bins` of equal width from 0 to 1."""
    index = np.minimum((largest * bins).astype(np.int64), bins - 1)
    examples = np.bincount(index, minlength=bins)
    sums = np.bincount(index, largest.astype(np.float64), minlength=bins)
    correct = np.bincount(index, right, minlength=bins).astype(np.int64)
    return [
        Bin(n, s / n if n else 0.0, c)
        for n, s, c in zip(examples.tolist(), sums.tolist(), correct.tolist(), strict=True)
    ]


def over_thresholds(largest: Floats, right: Bools, count: int = THRESHOLDS) -> list[AtThreshold]:
    """Return what is answered if a least probability is required, from 0 to 1."""
    found = []
    for threshold in np.linspace(0, 1, count).tolist():
        answered = largest >= np.float32(threshold)
        found.append(AtThreshold(threshold, int(answered.sum()), int(right[answered].sum())))
    return found


def cross_fit(logits: Floats, labels: Labels, right: Bools, error: float) -> CrossFitted | None:
    """Find a temperature and a threshold on each half for the other; None for too few examples.

    `error`: the wanted share of wrong answers.
    """
    if len(labels) < FEWEST or logits.shape[1] < 2:
        return None
    chances, temperatures = cross_fitted(logits, labels)
    answered = wrong = 0
    for mine, other in (one := halves(len(labels)), one[::-1]):
        # The threshold goes with the temperature of the half that both were found on.
        temperature = temperatures[0] if mine is one[0] else temperatures[1]
        found = probabilities(logits[other], temperature).max(1)
        threshold = fit_threshold(found, right[other], error)
        kept = chances[mine].max(1) >= threshold
        answered += int(kept.sum())
        wrong += int((~right[mine][kept]).sum())
    return CrossFitted(chances, temperatures, answered, wrong)


def calibration_error(largest: Floats, right: Bools) -> float:
    """Return the expected calibration error over `BINS` bins, 0 to 1."""
    return expected_calibration_error(largest, right, BINS)
