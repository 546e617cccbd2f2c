from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from deepcnn import presets
from deepcnn.reports.against import Contender, compared, groups, names_of, pairs
from deepcnn.reports.comparison import Pair, holm, mcnemar, spread, student_t

CORRECT = np.random.default_rng(0).random(400) < 0.8


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 10, 29, 200])
@pytest.mark.parametrize("share", [0.5, 0.95, 0.999])
def test_students_quantiles_are_scipys(freedom: int, share: float) -> None:
    expected = stats.t.ppf((1 + share) / 2, freedom)
    assert student_t(freedom, share) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (0, 1), (3, 0), (5, 5), (61, 34), (900, 1000), (0, 5000)]
)
def test_mcnemars_test_is_the_binomial_one(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_the_interval_of_a_mean_is_students() -> None:
    values = [0.86, 0.87, 0.865, 0.872]
    found = spread(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    assert found.interval == pytest.approx((low, high))
    assert spread([0.5]).interval is None


def test_holm_multiplies_the_smallest_by_all() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_a_comparison_is_said_in_words() -> None:
    p = mcnemar(34, 61)
    assert Pair("A", "B", 34, 61, p, p).words == "B is better: 61 against 34 images, p = 0.0073"
    p = mcnemar(50, 48)
    said = "no evidence of a difference: 50 against 48 images, p = 0.92"
    assert Pair("A", "B", 50, 48, p, p).words == said
    corrected = Pair("A", "B", 34, 61, 0.0074, 0.074).words
    assert corrected.startswith("no evidence of a difference: 34 against 61 images, p = 0.0074 (0.")
    assert "p < 0.0001" in Pair("A", "B", 100, 10, mcnemar(100, 10), 1e-9).words


def contender(name: str, right: np.ndarray = CORRECT, **changes: Any) -> Contender:
    settings = {k: v for k, v in changes.items() if k in {"seed", "steps", "threads", "data"}}
    others = {k: v for k, v in changes.items() if k not in settings}
    each = Contender(
        run=Path("runs") / name,
        config=dataclasses.replace(presets.tiny(), **settings),
        split="test",
        step=200,
        shape=(8, 8, 3),
        sha256="of the images",
        labels=np.zeros(len(right), np.int64),
        right=right,
    )
    return dataclasses.replace(each, **others)


def test_runs_that_differ_in_their_seed_are_one_group() -> None:
    runs = [
        contender("a", seed=1),
        contender("b", seed=2, threads=1, right=~CORRECT),
        contender("c", seed=1),
        contender("d", seed=3, steps=9),
    ]
    (group,) = groups(runs)
    assert (group.members, group.repeated) == ([0, 1, 2], [2])
    assert group.spread.count == 2
    share = CORRECT.mean()
    assert group.spread.mean == pytest.approx(0.5)
    assert group.spread.deviation == pytest.approx(abs(2 * share - 1) / math.sqrt(2))


def test_only_answers_about_the_same_images_are_compared() -> None:
    other_labels = np.ones(len(CORRECT), np.int64)
    runs = [
        contender("a"),
        contender("b", sha256="of others"),
        contender("c", sha256="of the same, smaller", shape=(4, 4, 3)),
        contender("d", labels=other_labels),
    ]
    found = [(pair.first, pair.second) for pair in pairs(runs, names_of(runs))]
    assert found == [("a", "c"), ("b", "c")]


def test_a_page_of_runs_counts_what_only_one_got_right() -> None:
    worse = CORRECT.copy()
    worse[np.flatnonzero(CORRECT)[:30]] = False
    worse[np.flatnonzero(~CORRECT)[:5]] = True
    page, twin = compared([contender("a"), contender("b", worse, seed=1)])
    p = stats.binomtest(30, 35).pvalue
    assert page["pairs"] == [
        {"names": "a and b", "words": "a is better: 30 against 5 images, p < 0.0001"}
    ]
    assert twin["pairs"][0]["p"] == pytest.approx(p)
    assert (twin["pairs"][0]["only_first"], twin["pairs"][0]["only_second"]) == (30, 5)
    assert page["differences"] == [("seed", ["0", "1"])]
    assert twin["groups"][0]["runs"] == ["a", "b"]


def test_names_are_paths_where_folders_are_called_the_same() -> None:
    same = [contender("x"), contender("x", run=Path("other/x")), contender("y")]
    assert names_of(same) == ["runs/x", "other/x", "y"]
