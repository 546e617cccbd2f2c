"""Finds labels that are likely to be wrong, from probabilities: confident learning.

(Northcutt, Jiang, Chuang: "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70,
2021. Where the paper leaves something open, this does the same as cleanlab 2.9.)

Labels are int64 [N]; probabilities are float64 [N, classes], each row from a network that did not
learn from that example.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]

ROUNDING = 1e-6  # probabilities that differ by less are taken for equal
NEVER = 2.0  # no probability reaches the threshold of a class that no example is labeled as


def suspects(labels: Labels, probabilities: Floats) -> Labels:
    """Return the places of the examples whose labels seem wrong, the most suspicious first.

    Their number is that of the examples that are confidently of another class. They are the
    examples with the largest `suspicion` of all; among equal ones, the first. (cleanlab calls this
    low_self_confidence.)
    """
    worst_first = np.argsort(-suspicion(labels, probabilities), kind="stable")
    return worst_first[: _confidently_others(labels, probabilities)]


def suspicion(labels: Labels, probabilities: Floats) -> Floats:
    """Return the probability that an example does not belong to its class, float64 [N], 0 to 1."""
    found: Floats = 1 - probabilities[np.arange(len(labels)), labels]
    return found


def thresholds(labels: Labels, probabilities: Floats) -> Floats:
    """Return the mean probability of each class over examples with its label, float64 [classes].

    (Equation 2 of the paper.) A class without labels gets a threshold that no example reaches.
    """
    found = np.full(probabilities.shape[1], NEVER)
    for label in np.unique(labels):
        found[label] = probabilities[labels == label, label].mean()
    return found.clip(min=2 * ROUNDING)


def confident(labels: Labels, probabilities: Floats) -> Labels:
    """Return the class to which each example confidently belongs, int64 [N]; -1 if there is none.

    This is the class whose threshold its probability reaches; of several, the most probable one.
    (Equation 1 of the paper: the confident joint counts examples by given and confident class.)
    """
    reached = probabilities >= thresholds(labels, probabilities) - ROUNDING
    found = np.where(reached.sum(1) > 1, probabilities.argmax(1), reached.argmax(1))
    return np.where(reached.any(1), found, -1)


def _confidently_others(labels: Labels, probabilities: Floats) -> int:
    """Count the examples that are confidently of another class than the given one.

    An example whose given class is the most probable one does not count.
    """
    found = confident(labels, probabilities)
    favoured = probabilities.copy()
    favoured[np.arange(len(labels)), labels] += ROUNDING
    other = (found >= 0) & (found != labels) & (favoured.argmax(1) != labels)
    return int(other.sum())
