from __future__ import annotations

import numpy as np
import pytest

from deepcnn.inference.calibration import FEWEST
from deepcnn.reports import measures


@pytest.fixture(scope="module")
def answers() -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, 6] and labels [N], with ties among the logits."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 6, 700)
    logits = generator.normal(size=(700, 6)).round(1).astype(np.float32)
    logits[np.arange(700), labels] += generator.integers(0, 3, 700)
    return logits, labels


def test_the_confusion_matrix_counts_every_example_once(
    answers: tuple[np.ndarray, np.ndarray],
) -> None:
    logits, labels = answers
    predicted = logits.argmax(1)
    table = measures.confusion(labels, predicted, 6)
    for row in range(6):
        for column in range(6):
            assert table[row, column] == ((labels == row) & (predicted == column)).sum()
    assert table.sum() == len(labels)


def test_precision_recall_and_f1_are_those_of_their_definitions(
    answers: tuple[np.ndarray, np.ndarray],
) -> None:
    logits, labels = answers
    predicted = logits.argmax(1)
    found = measures.by_class(measures.confusion(labels, predicted, 6))
    for label, each in enumerate(found):
        given, answered = labels == label, predicted == label
        precision = np.float64((given & answered).sum()) / answered.sum()
        recall = np.float64((given & answered).sum()) / given.sum()
        assert each.precision == pytest.approx(precision, abs=1e-15)
        assert each.recall == pytest.approx(recall, abs=1e-15)
        assert each.f1 == pytest.approx(2 / (1 / precision + 1 / recall), abs=1e-15)
        assert (each.given, each.answered) == (given.sum(), answered.sum())


def test_a_class_that_is_never_given_or_answered_has_no_ratios() -> None:
    found = measures.by_class(measures.confusion(np.array([0, 0]), np.array([1, 1]), 3))
    assert (found[0].precision, found[0].recall, found[0].f1) == (None, 0.0, 0.0)
    assert (found[1].precision, found[1].recall, found[1].f1) == (0.0, None, 0.0)
    assert (found[2].precision, found[2].recall, found[2].f1) == (None, None, None)


def test_the_first_rank_is_the_argmax_also_among_equals(
    answers: tuple[np.ndarray, np.ndarray],
) -> None:
    logits, labels = answers
    ranks = measures.ranks(logits, labels)
    assert ((ranks == 0) == (logits.argmax(1) == labels)).all()
    order = np.argsort(-logits, axis=1, kind="stable")
    assert (order[np.arange(len(labels)), ranks] == labels).all()


def test_the_calibration_error_is_that_of_its_definition(
    answers: tuple[np.ndarray, np.ndarray],
) -> None:
    logits, labels = answers
    powers = np.exp(logits.astype(np.float64))
    chances = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    largest, right = chances.max(1), chances.argmax(1) == labels
    bins = measures.reliability(largest, right)
    total = 0.0
    for index, each in enumerate(bins):
        inside = (largest >= index / 15) & ((largest < (index + 1) / 15) | (index == 14))
        assert each.examples == inside.sum()
        assert each.right == right[inside].sum()
        if each.examples:
            sure = largest[inside].astype(np.float64).mean()
            assert each.probability == pytest.approx(sure, abs=1e-7)
            total += each.examples / len(labels) * abs(sure - right[inside].mean())
    assert measures.calibration_error(largest, right) == pytest.approx(total, abs=1e-6)


def test_a_higher_threshold_answers_fewer() -> None:
    largest = np.array([0.2, 0.5, 0.5, 0.9], np.float32)
    right = np.array([False, True, False, True])
    found = measures.over_thresholds(largest, right, 11)
    assert [each.answered for each in found] == [4, 4, 4, 3, 3, 3, 1, 1, 1, 1, 0]
    assert [each.right for each in found] == [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 0]


def test_thresholds_and_temperatures_come_from_the_other_half() -> None:
    # In the even half answers are as sure as they are right, in the odd one far too sure.
    generator = np.random.default_rng(0)
    count = 2000
    labels = generator.integers(0, 2, count)
    margin = generator.uniform(-1, 5, count)
    right = generator.random(count) < 1 / (1 + np.exp(-margin))
    logits = np.zeros((count, 2), np.float32)
    logits[np.arange(count), np.where(right, labels, 1 - labels)] = np.where(
        np.arange(count) % 2, 10 * margin, margin
    )
    truly = logits.argmax(1) == labels
    found = measures.cross_fit(logits, labels, truly, 0.05)
    assert found is not None
    even, odd = np.arange(count) % 2 == 0, np.arange(count) % 2 == 1
    assert found.temperatures[0] == pytest.approx(10, rel=0.3)  # found on the odd half
    assert found.temperatures[1] == pytest.approx(1, rel=0.3)
    expected = np.exp(logits[even].astype(np.float64) / found.temperatures[0])
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(found.chances[even], expected, atol=1e-6)
    # By hand: each half refuses by the threshold of the other.
    answered = 0
    for mine, other, temperature in (
        (even, odd, found.temperatures[0]),
        (odd, even, found.temperatures[1]),
    ):
        powers = np.exp(logits.astype(np.float64) / temperature)
        sure = (powers / powers.sum(1, keepdims=True)).max(1).astype(np.float32)
        order = np.sort(sure[other])[::-1]
        fitting = [t for t in order if (~truly[other & (sure >= t)]).mean() <= 0.05]
        answered += int((mine & (sure >= min(fitting))).sum())
    assert found.answered == answered
    assert 0 < found.wrong < answered


def test_too_few_examples_are_not_fitted() -> None:
    count = FEWEST - 1
    logits = np.zeros((count, 3), np.float32)
    assert measures.cross_fit(logits, np.zeros(count, np.int64), np.ones(count, bool), 0.02) is None
