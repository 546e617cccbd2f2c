from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax

from deepcnn.errors import RunError
from deepcnn.inference.calibration import (
    FEWEST,
    Calibration,
    calibrate,
    cross_fitted,
    energy,
    expected_calibration_error,
    fit_temperature,
    fit_threshold,
    halves,
    margin_of,
    margins,
    probabilities,
)
from deepcnn.inference.kinds import NAMES, Kind, statistics_of
from tests.helpers.own_data import images_of

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


def answers(count: int = 2000, scale: float = 1.0, seed: int = 0) -> tuple[Floats, Labels]:
    """Logits of ten classes, and labels drawn from their softmax: `scale` is the temperature."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, 10))
    labels = np.array([random.choice(10, p=softmax(row)) for row in logits])
    return (logits * scale).astype(np.float32), labels.astype(np.int64)


def found(**changes: Any) -> Calibration:
    logits, labels = answers(FEWEST)
    images = images_of(FEWEST, 8, 8, 3)[0]
    about: dict[str, Any] = {"step": 7, "averaged": True, "split": "test", "margin": 0.25}
    return calibrate(logits, labels, statistics=statistics_of(images), **(about | changes))


# By their definitions


@pytest.mark.parametrize("temperature", [0.05, 0.56, 1.0, 20.0])
def test_probabilities_are_a_softmax_at_a_temperature(temperature: float) -> None:
    logits = np.random.default_rng(0).normal(0, 30, (50, 7)).astype(np.float32)
    expected = softmax(logits.astype(np.float64) / temperature, axis=1)
    given_back = probabilities(logits, temperature)
    assert given_back.dtype == np.float32
    np.testing.assert_allclose(given_back, expected, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(given_back.sum(1, dtype=np.float64), 1, atol=1e-6)


def test_huge_logits_give_probabilities_and_an_energy() -> None:
    logits = np.array([[3e38, -3e38, 0.0], [1e5, 1e5, 1e5]], np.float32)
    assert np.array_equal(probabilities(logits)[0], [1, 0, 0])
    np.testing.assert_allclose(probabilities(logits)[1], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(energy(logits), logsumexp(logits.astype(np.float64), axis=1))


def test_the_energy_is_the_logarithm_of_the_sum_of_powers() -> None:
    logits, _ = answers(100)
    np.testing.assert_allclose(
        energy(logits), logsumexp(logits.astype(np.float64), axis=1), rtol=1e-12
    )


def test_margins_are_between_the_two_largest() -> None:
    logits, _ = answers(1001)
    ordered = np.sort(logits, axis=1)
    assert np.array_equal(margins(logits), ordered[:, -1] - ordered[:, -2])
    assert np.array_equal(margins(logits[:, :1]), np.zeros(1001))
    below = margins(logits) < margin_of(logits)
    assert below.sum() == 250  # a quarter


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_temperature_makes_the_labels_likeliest(scale: float) -> None:
    logits, labels = answers(scale=scale)

    def loss(temperature: float) -> float:
        chances = log_softmax(logits.astype(np.float64) / temperature, axis=1)
        return float(-chances[np.arange(len(labels)), labels].mean())

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9})
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(best.x, rel=1e-4)
    assert temperature == pytest.approx(scale, rel=0.1)
    assert loss(temperature) <= loss(1.0)


@pytest.mark.parametrize(("right", "limit"), [(True, 0.05), (False, 20.0)])
def test_the_temperature_stays_within_its_limits(right: bool, limit: float) -> None:
    logits = np.tile(np.array([[5, 0, 0]], np.float32), (300, 1))
    labels = np.full(300, 0 if right else 1)
    assert fit_temperature(logits, labels) == pytest.approx(limit, rel=1e-4)


def test_the_threshold_is_the_least_with_few_enough_errors() -> None:
    random = np.random.default_rng(1)
    levels = np.arange(1, 60, dtype=np.float32) / np.float32(60)
    largest = random.choice(levels, 500)  # many of equal probability
    right = random.random(500) < largest
    for error in (0.0, 0.02, 0.1, 0.3, 1.0):
        fitting = [
            level for level in np.unique(largest) if (~right[largest >= level]).mean() <= error
        ]
        found = fit_threshold(largest, right, error)
        if not fitting:
            assert found > 1
            continue
        smaller = [level for level in np.unique(largest) if level < min(fitting)]
        below = max(smaller, default=0.0)
        assert found == pytest.approx((min(fitting) + below) / 2)
    never = np.zeros(500, np.bool_)
    assert fit_threshold(largest, never, 0.02) > 1
    assert fit_threshold(largest, ~never, 0.02) == pytest.approx(largest.min() / 2)


def test_the_calibration_error_is_a_mean_over_bins() -> None:
    logits, labels = answers(3000, scale=3.0)
    chances = probabilities(logits)
    largest, right = chances.max(1), chances.argmax(1) == labels
    total = 0.0
    for i in range(15):
        inside = [
            (float(p), bool(r))
            for p, r in zip(largest, right, strict=True)
            if i / 15 <= p and (p < (i + 1) / 15 or i == 14)
        ]
        if inside:
            sure, correct = (sum(each) / len(inside) for each in zip(*inside, strict=True))
            total += len(inside) / len(largest) * abs(sure - correct)
    assert expected_calibration_error(largest, right) == pytest.approx(total, rel=1e-5)
    assert total > 0.1  # as sure as three times these logits are
    exact = np.ones(10, np.float32)
    assert expected_calibration_error(exact, np.ones(10, np.bool_)) == 0.0
    assert expected_calibration_error(exact, np.zeros(10, np.bool_)) == 1.0


def test_half_of_the_examples_are_softened_by_the_temperature_of_the_other_half() -> None:
    logits, labels = answers(1001, scale=2.0)
    chances, temperatures = cross_fitted(logits, labels)
    one, other = halves(1001)
    assert (one ^ other).all()
    assert one.sum() == 501
    assert temperatures[0] == fit_temperature(logits[other], labels[other])
    assert temperatures[1] == fit_temperature(logits[one], labels[one])
    assert temperatures[0] != temperatures[1]
    assert np.array_equal(chances[one], probabilities(logits[one], temperatures[0]))
    assert np.array_equal(chances[other], probabilities(logits[other], temperatures[1]))


# What is found, and what it says


def test_answered_examples_are_as_rarely_wrong_as_asked_for() -> None:
    logits, labels = answers(4000)
    for error in (0.02, 0.2):
        calibration = calibrate(
            logits, labels, step=1, averaged=False, split="test", margin=None, error=error
        )
        chances = probabilities(logits, calibration.temperature)
        doubts = calibration.doubts(np.zeros((4000, 8, 8, 3), np.uint8), logits)
        wrong = chances.argmax(1) != labels
        answered = np.array([doubt != "error" for doubt in doubts])
        known = np.array([doubt != "unknown" for doubt in doubts])
        assert wrong[answered & known].sum() <= error * (answered & known).sum() + 20 * error
        assert answered.sum() > 50
        assert (~known).sum() == 20  # 5 in 1,000 by their energy; no statistics were given
        # an answer that is at once unlike all and unlikely is unlike all
        assert calibration.least_energy is not None
        assert np.array_equal(~known, energy(logits) < calibration.least_energy)


def test_no_calibration_doubts_nothing() -> None:
    plain = Calibration(1, False, "test", 10)
    logits, _ = answers(10)
    assert plain.doubts(np.zeros((10, 8, 8, 3), np.uint8), logits) == [None] * 10


def test_pictures_unlike_the_split_are_unknown_whatever_the_network_says() -> None:
    calibration = found()
    logits, _ = answers(2)
    noise = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    assert calibration.doubts(noise, logits * 100) == ["unknown", "unknown"]
    same = images_of(2, 8, 8, 3)[0]
    assert "unknown" not in calibration.doubts(same, logits * 100)


@pytest.mark.parametrize("count", [0, 1, FEWEST - 1])
def test_too_few_examples_give_the_margin_alone(count: int) -> None:
    logits, labels = answers(count)
    logits, labels = logits.reshape(count, 10), labels.reshape(count)
    about: dict[str, Any] = {"step": 1, "averaged": False, "split": "test", "margin": 0.5}
    assert calibrate(logits, labels, **about) == Calibration(1, False, "test", count, 0.5)
    logits, labels = answers(FEWEST)
    assert calibrate(logits, labels, **about).least_probability is not None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_give_no_thresholds(value: float) -> None:
    logits, labels = answers(FEWEST)
    logits[3, 4] = value
    calibration = calibrate(logits, labels, step=1, averaged=False, split="test", margin=None)
    assert calibration == Calibration(1, False, "test", FEWEST)
    json.dumps(calibration.to_dict(), allow_nan=False)


# Stored and read back


@pytest.mark.parametrize("margin", [None, 0.25])
def test_a_trip_through_json_changes_nothing(margin: float | None) -> None:
    for calibration in (found(margin=margin), Calibration(1, False, "validation", 3, margin)):
        text = json.dumps(calibration.to_dict(), allow_nan=False)
        again = Calibration.from_dict(json.loads(text), "here")
        assert again == calibration
        assert hash(again) == hash(calibration)


def test_one_without_a_kind_is_read() -> None:
    values = found().to_dict()
    del values["kind"]
    assert Calibration.from_dict(values, "here").kind is None


HOSTILE: list[Any] = [
    *(None, True, "1", "", [], {}, [[]], math.nan, math.inf, -math.inf, 10**400, -1e9),
    {"mean": 1},
    [1.0] * 6,
]


def damage() -> list[tuple[str, Any]]:
    """Pairs of a field and a value that none of them may have."""
    allowed: dict[str, list[Any]] = {
        "margin": [None, -1e9],
        "least_probability": [None, -1e9],
        "least_energy": [None, -1e9],
        "kind": [None],
        "averaged": [True],
        "split": ["1", ""],
        "step": [10**400],
        "examples": [10**400],
    }
    return [
        (field, value)
        for field in found().to_dict()
        for value in HOSTILE
        if not any(value is each or value == each for each in allowed.get(field, []))
    ]


def test_damaged_ones_are_refused() -> None:
    for field, value in damage():
        with pytest.raises(RunError, match="here: not a calibration as deepcnn writes it"):
            Calibration.from_dict(found_once() | {field: value}, "here")


def found_once() -> dict[str, Any]:
    return {**_FOUND}


_FOUND = json.loads(json.dumps(found().to_dict()))


@pytest.mark.parametrize(
    ("field", "value"),
    [("mean", [0.0] * 5), ("mean", [None] * 6), ("mean", "abcdef"), ("mean", {"a": 1})]
    + [("precision", [[0.0] * 6] * 5), ("precision", [[0.0] * 5] * 6), ("precision", 3)]
    + [("precision", [["1"] * 6] * 6), ("precision", [[math.nan] * 6] * 6)]
    + [("most_distance", value) for value in (None, "1", math.inf, [1.0], True)]
    + [("other", 1.0)],
)
def test_damaged_kinds_are_refused(field: str, value: Any) -> None:
    values = found_once()
    values["kind"] = values["kind"] | {field: value}
    with pytest.raises(RunError, match="not a calibration"):
        Calibration.from_dict(values, "here")


@pytest.mark.parametrize("values", [None, 3, "a", [], [1], {}, {"step": 1}, {"\x1b[31m": 1}])
def test_what_is_no_calibration_at_all_is_refused(values: Any) -> None:
    with pytest.raises(RunError, match="here: not a calibration") as raised:
        Calibration.from_dict(values, "here")
    assert str(raised.value).isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(_FOUND)), JSON)
def test_whatever_json_holds_is_read_or_refused(field: str, value: Any) -> None:
    try:
        calibration = Calibration.from_dict(found_once() | {field: value}, "here")
    except RunError as error:
        said = str(error)
        assert said.isprintable()  # or it could command the terminal
        return
    logits, _ = answers(3)
    doubts = calibration.doubts(np.zeros((3, 8, 8, 3), np.uint8), logits)
    assert set(doubts) <= {None, "error", "unknown"}


def test_an_infinite_kind_in_json_is_refused() -> None:
    kind = Kind((0.0,) * len(NAMES), ((0.0,) * len(NAMES),) * len(NAMES), 1.0)
    text = json.dumps(found(margin=None).to_dict() | {"kind": kind.__dict__})
    for hostile in ("Infinity", "-Infinity", "NaN", "1e999"):
        with pytest.raises(RunError, match="not a calibration"):
            Calibration.from_dict(json.loads(text.replace("1.0}", hostile + "}")), "here")
