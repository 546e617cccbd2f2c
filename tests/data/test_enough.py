"""Warnings about sets on which training or scoring says nothing, and digests of equal images."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from deepcnn.data.arrays import Arrays
from deepcnn.data.digests import digests, in_both
from deepcnn.data.enough import check_counts, majority, senseless
from deepcnn.data.source import in_memory

NAMES = ("cat", "dog", "newt")


def kinds(**counts: list[int]) -> list[str]:
    return [kind for kind, _ in check_counts(NAMES, counts)]


def test_sensible_sets_get_no_warning() -> None:
    assert kinds(train=[500, 400, 450], test=[100, 100, 100]) == []
    assert senseless(NAMES, {"train": [500, 400, 450], "test": [100, 100, 100]}) == []


@pytest.mark.parametrize(
    ("counts", "kind"),
    [
        ({"train": [500, 0, 0]}, "one class"),
        ({"train": [500, 400, 1]}, "small class"),
        ({"train": [500, 400, 400], "validation": [1, 1, 1]}, "small split"),
        ({"train": [500, 400, 400], "test": [200, 200, 0]}, "class missing"),
        ({"train": [5000, 400, 400]}, "unbalanced"),
    ],
)
def test_senseless_sets_are_told(counts: dict[str, list[int]], kind: str) -> None:
    assert kind in kinds(**counts)


def test_a_training_is_warned_of_the_worst_only() -> None:
    texts = senseless(NAMES, {"train": [500, 400, 1], "validation": [1, 1, 1]})
    assert len(texts) == 2
    assert "3 examples, too few" in texts[0]
    assert "a single example of newt" in texts[1]
    assert "has 1 example, too few" in senseless(NAMES, {"train": [9, 9, 9], "test": [1, 0, 0]})[0]


def test_an_accuracy_of_the_majoritys_share_is_told() -> None:
    assert majority("test", 61, [60, 40]) is None
    assert "always saying the largest class would be right about 60" in str(
        majority("test", 60, [60, 40])
    )
    assert majority("test", 0, []) is None


def test_equal_images_of_two_sets_are_found() -> None:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (9, 4, 5, 3)).astype(np.uint8)
    one = in_memory(Arrays(images[:5], np.zeros(5, np.int64), ("a",)))
    other = in_memory(Arrays(images[[3, 8, 1]], np.zeros(3, np.int64), ("a",)))
    found = in_both(other, one)
    assert found is not None
    assert found.tolist() == [True, False, True]
    expected = hashlib.blake2b(images[2].tobytes(), digest_size=16).digest()
    assert digests(images)[2].tobytes() == expected
