"""What is measured of label suspects, where the answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deepcnn.data.arrays import Arrays
from tests.benchmarks.conftest import Import

CLASSES = tuple("0123456789")


def test_a_ranking_is_told_by_its_first_50_and_its_average_precision(benchmark: Import) -> None:
    wrong = np.zeros(100, np.bool_)
    wrong[[10, 30, 99]] = True
    score = np.arange(100.0)[::-1]  # they come eleventh, thirty-first and last
    found = benchmark("cases.doctor_labels").of_ranking("these", score, wrong)
    assert found == {
        "these: judged": 100,
        "these: wrong": 3,
        "these: wrong of the first 50": 2,
        "these: average precision": pytest.approx((1 / 11 + 2 / 31 + 3 / 100) / 3),
    }


def test_so_many_labels_are_planted_and_each_is_wrong(benchmark: Import) -> None:
    labels = np.random.default_rng(1).integers(0, 10, 1000)
    whole = Arrays(np.zeros((1000, 1, 1, 1), np.uint8), labels, CLASSES)
    planted = benchmark("cases.doctor_labels").planted
    found = planted(whole, 0.2, seed=0)
    assert (found != labels).sum() == 200
    assert 0 <= found.min() <= found.max() <= 9
    assert len(np.unique((found - labels) % 10)) == 10
    assert (planted(whole, 0.2, seed=0) == found).all()
    assert (planted(whole, 0.0, seed=0) == labels).all()


def test_what_people_said_is_read(benchmark: Import, tmp_path: Path) -> None:
    case = benchmark("cases.doctor_labels")
    (tmp_path / "mturk").mkdir()
    votes = [{"given": 3, "guessed": 2}, {"given": 2, "guessed": 1}, {"given": 0, "guessed": 5}]
    images = [{"id": 7 * i, "mturk": vote} for i, vote in enumerate(votes)]
    (tmp_path / "mturk" / "cifar10_mturk.json").write_text(json.dumps(images))
    places, wrong = case.refused_by_five(tmp_path)
    assert places.tolist() == [0, 7, 14]
    assert wrong.tolist() == [False, True, True]
    (tmp_path / "data").mkdir()
    counts = np.array([[40, 10], [20, 30], [5, 45]])
    np.save(tmp_path / "data" / "cifar10h-counts.npy", counts)
    assert case.refused_by_most(tmp_path, np.array([0, 0, 1])).tolist() == [False, True, False]


def test_kept_probabilities_of_other_labels_are_refused(benchmark: Import, tmp_path: Path) -> None:
    case, keep = benchmark("cases.doctor_labels"), tmp_path / "kept.npz"
    images = np.zeros((2, 1, 1, 1), np.uint8)
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
    np.savez(keep, probabilities=probabilities, labels=np.array([0, 1]))
    known = Arrays(images, np.array([0, 1]), ("a", "b"))
    assert (case.judged(known, "two", 0, keep)[0] == probabilities).all()
    other = Arrays(images, np.array([1, 1]), ("a", "b"))
    with pytest.raises(SystemExit, match="other labels"):
        case.judged(other, "two", 0, keep)
