from __future__ import annotations

import math

import pytest
from scipy import stats

from deepcnn.intervals import Z, described, interval, wilson

COUNTS = [
    (0, 1),
    (1, 1),
    (0, 10),
    (3, 10),
    (5, 10),
    (10, 10),
    (867, 1000),
    (8670, 10_000),
    (1, 10**6),
]


@pytest.mark.parametrize(("correct", "total"), COUNTS)
def test_the_interval_is_wilsons(correct: int, total: int) -> None:
    expected = stats.binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson(correct, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("correct", "total"), COUNTS)
def test_its_ends_are_the_shares_that_lie_just_so_far_from_what_was_counted(
    correct: int, total: int
) -> None:
    """The definition: |counted - share| is Z standard deviations of a count with that share."""
    for end in wilson(correct, total):
        if 0 < end < 1:
            spread = math.sqrt(end * (1 - end) / total)
            assert abs(correct / total - end) == pytest.approx(Z * spread, rel=1e-6)
    assert pytest.approx(stats.norm.ppf(0.975), rel=1e-15) == Z


def test_it_never_leaves_what_a_share_can_be() -> None:
    for total in (1, 2, 7, 1000):
        for correct in (0, total // 2, total):
            low, high = wilson(correct, total)
            assert 0 <= low <= correct / total <= high <= 1
    assert wilson(0, 0) == (0.0, 1.0)


def test_an_interval_in_short() -> None:
    assert interval(8670, 10_000) == "(86.0 to 87.4)"
    assert interval(0, 50) == "(0.0 to 7.1)"
    assert interval(0, 0) == ""


def test_an_accuracy_in_words() -> None:
    assert described(8670, 10_000, "test images") == (
        "86.70 % (8,670 of 10,000 test images, 95 % interval 86.0 to 87.4)"
    )
    assert described(0, 3, "x") == "0.00 % (0 of 3 x, 95 % interval 0.0 to 56.1)"
