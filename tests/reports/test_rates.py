"""The loss over growing rates, as text and as a picture."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from deepcnn.reports import rates as drawn_rates
from deepcnn.reports.rates import BOTTOM, LEFT, RIGHT, TOP, Curve, as_png, as_text

AXIS, COLUMNS, ROWS = drawn_rates.AXIS, drawn_rates.COLUMNS, drawn_rates.ROWS
RATES = np.logspace(-4, 2, 61).tolist()  # ten a decade
LEVELS = np.interp(np.arange(61), [0, 20, 40, 45, 60], [2.0, 2.0, 1.0, 2.3, 9.0]).tolist()


def curve(marks: list[tuple[float, str]] | None = None) -> Curve:
    return Curve(RATES, LEVELS, LEVELS, [(1.0, "suggested")] if marks is None else marks)


def test_text_fits_80_columns_and_is_ascii() -> None:
    marks = [(rate, "a mark with many words") for rate in (1e-9, RATES[0], 1.0, RATES[-1], 1e9)]
    text = as_text(curve(marks))
    assert text.isascii()
    assert max(map(len, text.splitlines())) < 80
    assert len(text.splitlines()) == ROWS + 2 + len(marks)
    flat = Curve(RATES[:2], [0.0, 0.0], [0.0, 0.0])
    assert as_text(flat).count("*") == COLUMNS


def test_text_shows_each_loss_at_its_rate() -> None:
    lines = as_text(curve([])).splitlines()
    rows = [line[AXIS:].ljust(COLUMNS) for line in lines[:ROWS]]
    high, low = float(lines[0][:8]), float(lines[ROWS - 1][:8])
    for column in range(COLUMNS):
        level = np.interp(column / (COLUMNS - 1) * 60, np.arange(61), LEVELS)
        expected = (1 - (min(level, high) - low) / (high - low)) * (ROWS - 1)
        drawn = [row for row in range(ROWS) if rows[row][column] == "*"]
        assert min(abs(row - expected) for row in drawn) <= 0.6, column
        assert drawn == list(range(drawn[0], drawn[-1] + 1))
    # The powers of ten stand below their crosses, at equal distances.
    assert lines[ROWS][AXIS:].replace("-", " ").split() == ["+"] * 7
    places = [i for i, c in enumerate(lines[ROWS][AXIS:]) if c == "+"]
    assert {b - a for a, b in itertools.pairwise(places)} <= {10, 11}
    assert lines[ROWS + 1].split() == ["1e-4", "1e-3", "1e-2", "1e-1", "1e0", "1e1", "1e2"]


def test_text_points_at_what_is_marked() -> None:
    lines = as_text(curve()).splitlines()
    column = round(40 / 60 * (COLUMNS - 1))
    assert lines[-1][AXIS + column :] == "^ 1 suggested"
    assert lines[ROWS - 3][AXIS + column] in ":*."
    right = as_text(curve([(90.0, "far right")])).splitlines()[-1]
    assert right.endswith("90 far right ^")


def test_a_picture_shows_the_curve_where_it_belongs() -> None:
    picture = np.array(Image.open(io.BytesIO(as_png(curve(), "a title"))))
    assert picture.shape == (560, 960, 3)
    ours = (picture == drawn_rates.SMOOTHED).all(2)
    low, high = curve().edges()
    for step in range(0, 61, 4):
        x = LEFT + step / 60 * (RIGHT - LEFT)
        y = BOTTOM - (min(LEVELS[step], high) - low) / (high - low) * (BOTTOM - TOP)
        if low < LEVELS[step] < high:
            assert ours[round(y) - 3 : round(y) + 4, round(x) - 2 : round(x) + 3].any(), step
    red = np.nonzero((picture[BOTTOM - 40 : BOTTOM - 4] == drawn_rates.MARKS[0]).all(2).any(0))[0]
    assert red.mean() == pytest.approx(LEFT + 40 / 60 * (RIGHT - LEFT), abs=2)
    assert not (picture[:40, LEFT:] == 255).all(), "the title"


def test_text_shows_the_loss_of_a_single_step_as_a_dot() -> None:
    losses = [*LEVELS]
    losses[30] = 2.2
    low, high = Curve(RATES, losses, LEVELS).edges()
    lines = as_text(Curve(RATES, losses, LEVELS)).splitlines()
    row = round((1 - (2.2 - low) / (high - low)) * (ROWS - 1))
    assert lines[row][AXIS:].index(".") == round(30 / 60 * (COLUMNS - 1))
