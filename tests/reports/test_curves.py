from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

from deepcnn.reports import curves, svg
from deepcnn.reports.measures import AtThreshold, Bin
from tests.reports.subjects import events

SVG = "{http://www.w3.org/2000/svg}"


def titles(figure: curves.Figure) -> list[str]:
    """Return what shows on hover; fail where the drawing is no XML."""
    tree = ElementTree.fromstring(str(figure.svg))
    return [each.text or "" for each in tree.iter() if each.tag.endswith("title")]


def points(figure: curves.Figure, style: str) -> list[tuple[float, float]]:
    path = re.search(rf'<g class="line {style}"><path d="([^"]*)"', str(figure.svg))
    assert path is not None
    pairs = [pair.split() for pair in re.split("[ML]", path[1]) if pair]
    return [(float(x), float(y)) for x, y in pairs]


def test_a_log_becomes_three_figures_with_values_on_hover() -> None:
    losses, rate, accuracy = curves.curves(events())
    assert "step 3: 2.2, averaged 2.25" in titles(losses)
    assert len(titles(losses)) == 7  # what a resumed training did again counts once
    assert "step 2: 0.025" in titles(rate)
    assert titles(accuracy) == [
        "step 3: test 33.33 % (28.2 to 38.8) of 300",
        "step 7: test 70.00 % (64.6 to 74.9) of 300",
    ]


def test_lines_are_where_their_values_say() -> None:
    losses, *_ = curves.curves(events())
    low, high = svg.BOTTOM, svg.TOP  # of the values 0 and 3, to which the axis is rounded
    expected = [low + (high - low) * (2.5 - step / 10) / 3 for step in range(7)]
    found = points(losses, "thin")
    assert [y for _, y in found] == pytest.approx(expected, abs=0.06)
    assert [x for x, _ in found][:: len(found) - 1] == [svg.LEFT, svg.RIGHT]


def test_what_is_no_number_is_left_out() -> None:
    log = events()
    log[2]["losses"]["total_loss"] = None  # as a log writes a loss that is not finite
    losses, *_ = curves.curves(log)
    assert len(points(losses, "thin")) == 6


@pytest.mark.parametrize("log", [[], events()[:1], [{"event": "Started"}]])
def test_a_log_without_steps_gives_no_figures(log: list[dict[str, Any]]) -> None:
    assert curves.curves(log) == []


def test_a_long_log_is_brought_together() -> None:
    log = [
        {"event": "Stepped", "step": step, "losses": {"total_loss": float(step)}}
        for step in range(10_000)
    ]
    (losses,) = curves.curves(log)
    found = points(losses, "thin")
    assert len(found) == svg.MOST_POINTS
    assert "Each of the 150 points is the mean of some." in losses.caption
    assert "10,000 steps" in losses.caption
    assert svg.thin([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0), (3.0, 9.0)], 2) == [(0.5, 2), (2.5, 7)]


def test_the_reliability_diagram_tells_every_bin() -> None:
    before = [Bin(0, 0.0, 0), Bin(40, 0.75, 20)]
    after = [Bin(30, 0.5, 10), Bin(10, 0.9, 10)]
    figure = curves.reliability(before, after, ("Before 1 %.", "After 2 %."))
    assert titles(figure) == [
        "before: none; after: 10 of 30 right (33.3 %, 19.2 to 51.2) at 50.0 %",
        "before: 20 of 40 right (50.0 %, 35.2 to 64.8) at 75.0 %; "
        "after: 10 of 10 right (100.0 %, 72.2 to 100.0) at 90.0 %",
    ]
    assert figure.caption.endswith("Before 1 %. After 2 %.")
    assert "strong" not in str(curves.reliability(before, None, ("", "")).svg)


def test_the_threshold_is_marked() -> None:
    found = [AtThreshold(0.0, 10, 6), AtThreshold(0.5, 5, 4), AtThreshold(1.0, 0, 0)]
    figure = curves.by_threshold(found, 0.5, "")
    assert "unsure below" in str(figure.svg)
    assert titles(figure)[1] == "at least 0.50: 5 answered, 4 right (80.0 %, 37.6 to 96.4)"
    assert titles(figure)[2] == "at least 1.00: 0 answered, 0 right"
    assert "unsure" not in str(curves.by_threshold(found, 1.1, "").svg)  # no answer is sure enough


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.5, 1]),
        (0, 289, [0, 100, 200, 300]),
        (0.81, 0.93, [0.8, 0.85, 0.9, 0.95]),
        (5, 5, [4.5, 5, 5.5]),
    ],
)
def test_axes_have_round_numbers(low: float, high: float, ticks: list[float]) -> None:
    found = svg.scale((low, high), (0, 100), round_up=True)
    assert list(found.ticks) == pytest.approx(ticks)
    assert float(found(found.low)) == 0
    assert float(found(found.high)) == 100


def test_names_with_markup_are_text_in_a_drawing() -> None:
    axes = svg.Axes("<b>", "x", 'y"', (0, 1), (0, 1))
    drawn = svg.chart(axes, [svg.Series("<script>", [(0, 0), (1, 1)], "strong")], [(0, "</title>")])
    tree = ElementTree.fromstring(str(drawn))
    assert not any(each.tag.endswith(("script", "b")) for each in tree.iter())
    assert "<script>" in "".join(tree.itertext())


def test_what_was_right_of_each_batch_is_drawn_beside_a_single_score() -> None:
    log = [event for event in events() if event["event"] != "Evaluated"]
    for event in log:
        if event["event"] == "Stepped":
            event |= {"correct": 10 * event["step"], "total": 100}
    score = {"event": "Evaluated", "step": 7, "split": "test", "correct": 210, "total": 300}
    *_, accuracy = curves.curves([*log, score])
    assert titles(accuracy)[-2:] == [
        "step 6: batch 60.00 % (50.2 to 69.1) of 100",
        "step 7: test 70.00 % (64.6 to 74.9) of 300",
    ]
    found = points(accuracy, "thin")
    assert len(found) == 7
    assert [y for _, y in found] == pytest.approx(
        [svg.BOTTOM + (svg.TOP - svg.BOTTOM) * share / 0.8 for share in np.arange(0, 0.7, 0.1)],
        abs=0.06,
    )
    assert str(accuracy.svg).count("<circle") == 1
    assert "of the 100 images of each step that was logged" in accuracy.caption
    assert len(curves.curves(log)) == 3  # also without any score
