"""Confident learning: what cleanlab says of the same labels and probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deepcnn.doctor import confident

STORED = np.load(Path(__file__).with_name("cleanlab.npz"))
CASES = sorted({name.split(".")[0] for name in STORED})


def given(case: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    labels = STORED[f"{case}.labels"].astype(np.int64)
    return labels, STORED[f"{case}.probabilities"].astype(np.float64)


@pytest.mark.parametrize("case", CASES)
def test_the_same_examples_are_suspects_as_for_cleanlab_in_the_same_order(case: str) -> None:
    labels, probabilities = given(case)
    found, expected = confident.suspects(labels, probabilities), STORED[f"{case}.indices"]
    if case == "ties":  # cleanlab takes equal ones in any order
        suspicion = confident.suspicion(labels, probabilities)
        assert suspicion[found].tolist() == suspicion[expected].tolist()
        assert len(set(found.tolist())) == len(found)
    else:
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("case", CASES)
def test_the_confident_joint_and_its_thresholds_are_those_of_cleanlab(case: str) -> None:
    labels, probabilities = given(case)
    thresholds = confident.thresholds(labels, probabilities)
    np.testing.assert_allclose(thresholds, STORED[f"{case}.thresholds"], rtol=1e-12)
    joint = np.zeros((probabilities.shape[1],) * 2, np.int64)
    for label, found in zip(labels, confident.confident(labels, probabilities), strict=True):
        if found >= 0:
            joint[label, found] += 1
    np.fill_diagonal(joint, joint.diagonal().clip(min=1))  # so cleanlab does
    assert joint.tolist() == STORED[f"{case}.joint"].tolist()


def test_equal_ones_are_in_the_order_of_the_set() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1])
    row, other = [0.9, 0.1], [0.1, 0.9]
    probabilities = np.array([row, other, row, other, row, row, other, other, row])
    assert confident.suspects(labels, probabilities).tolist() == [1, 3, 8]
