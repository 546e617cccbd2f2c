"""Figures of the course of a training: losses, learning rate and accuracy, from the run's log."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from deepcnn.intervals import interval
from deepcnn.reports.measures import AtThreshold, Bin
from deepcnn.reports.svg import Axes, Point, Series, Style, chart, number, thin, vertical
from deepcnn.runs.log import events

Log = list[dict[str, Any]]


@dataclass(frozen=True)
class Figure:
    """A drawing and the text about it."""

    svg: Markup
    caption: str


def curves(log: Log) -> list[Figure]:
    """Return the figures of a training; none if its log says nothing."""
    steps = _last_of_each_step(events(log, "Stepped"))
    scores = _last_of_each_step(events(log, "Evaluated"))
    found = [_losses(steps), _rate(steps), _accuracy(steps, scores)]
    return [figure for figure in found if figure is not None]


def _last_of_each_step(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return events by rising step; steps that a resumed training made again count once."""
    last = {(event["step"], event.get("split")): event for event in found}
    return [last[key] for key in sorted(last, key=lambda key: key[0])]


def _values(steps: list[dict[str, Any]], *path: str) -> list[Point]:
    """Return the points of a number in events, without values that are not numbers."""
    points = []
    for event in steps:
        value: Any = event
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, int | float) and math.isfinite(value):
            points.append((float(event["step"]), float(value)))
    return points


def _losses(steps: list[dict[str, Any]]) -> Figure | None:
    raw, averaged = _values(steps, "losses", "total_loss"), _values(steps, "averages", "total_loss")
    if len(raw) < 2:
        return None
    series = [
        Series("of the step", thin(raw), "thin"),
        Series("averaged", thin(averaged), "strong"),
    ]
    alone = _values(steps, "averages", "cross_entropy")
    if alone and alone != averaged:
        series.append(Series("cross-entropy, averaged", thin(alone), "dotted"))
    axes = Axes("Loss by step", "step", "loss", _range(raw), _heights(*(s.points for s in series)))
    by_step = dict(thin(averaged))
    tips = []
    for x, y in thin(raw):
        average = f", averaged {number(by_step[x])}" if x in by_step else ""
        tips.append((x, f"step {x:,.0f}: {number(y)}{average}"))
    caption = f"The loss of {len(raw):,} steps that were logged, and its moving average."
    if len(raw) > len(tips):
        caption += f" Each of the {len(tips)} points is the mean of some."
    return Figure(chart(axes, series, tips), caption)


def _rate(steps: list[dict[str, Any]]) -> Figure | None:
    rates = _values(steps, "learning_rate")
    if len(rates) < 2:
        return None
    points = thin(rates)
    axes = Axes("Learning rate by step", "step", "learning rate", _range(rates), _heights(points))
    tips = [(x, f"step {x:,.0f}: {number(y)}") for x, y in points]
    series = [Series("", points, "strong")]
    return Figure(chart(axes, series, tips), "The learning rate of stochastic gradient descent.")


def _accuracy(steps: list[dict[str, Any]], scores: list[dict[str, Any]]) -> Figure | None:
    lines: dict[str, list[Point]] = {}
    totals = {str(event["split"]): event["total"] for event in scores}  # of each pass the same
    for event in scores:
        lines.setdefault(str(event["split"]), []).append(_share(event))
    counted = [event for event in steps if event.get("total")]  # older logs do not tell
    batches = thin([_share(event) for event in counted])
    if max(map(len, [batches, *lines.values()])) < 2:
        return None
    styles: tuple[Style, ...] = ("strong", "dashed", "dotted")
    series = [
        Series(split, thin(points), style, [3.0] * len(points) if len(points) <= 30 else ())
        for (split, points), style in zip(lines.items(), styles, strict=False)
    ]
    if batches:
        series.insert(0, Series("batch", batches, "thin"))
        totals["batch"] = counted[-1]["total"]
    xs, ys = zip(*(point for each in series for point in each.points), strict=True)
    ranges = (min(xs), max(xs)), (min(ys), max(ys))
    axes = Axes("Accuracy by step", "step", "accuracy", *ranges, percent=True)
    tips: dict[float, list[str]] = {}
    for each in series:
        for x, y in each.points:
            total = totals[each.name]
            sure = interval(round(y * total), total)
            tips.setdefault(x, []).append(f"{each.name} {100 * y:.2f} % {sure} of {total:,}")
    told = [(x, f"step {x:,.0f}: " + ", ".join(tips[x])) for x in sorted(tips)]
    caption = "The accuracy whenever the network was scored; its 95 % interval shows on hover."
    if batches:
        caption += (
            f" Thin, the training accuracy: of the {counted[-1]['total']:,} images of each step "
            "that was logged, as training sees them, with its random changes, and before they are "
            "learned from. So it may lie below the score."
        )
    return Figure(chart(axes, series, told), caption)


def _share(event: dict[str, Any]) -> Point:
    return float(event["step"]), event["correct"] / event["total"]


def reliability(before: list[Bin], after: list[Bin] | None, errors: tuple[str, str]) -> Figure:
    """Draw the share of right answers over how sure they are; `errors`: as text."""
    diagonal = Series("", [(0.0, 0.0), (1.0, 1.0)], "dotted")
    series = [diagonal, Series("before", _of_bins(before), "dashed", _dots(before))]
    caption = (
        "Answers by their probability: on the dotted line both agree. The more answers, the larger "
        f"the dot. {errors[0]}"
    )
    if after is not None:
        series.append(Series("after a temperature", _of_bins(after), "strong", _dots(after)))
        caption += f" {errors[1]}"
    whole = (0.0, 1.0)
    axes = Axes("Reliability diagram", "probability", "share right", whole, whole, percent=True)
    tips = []
    for index, each in enumerate(before):
        told = [_tip("before", each)] + ([_tip("after", after[index])] if after else [])
        tips.append(((index + 0.5) / len(before), "; ".join(told)))
    return Figure(chart(axes, series, tips), caption)


def _of_bins(bins: list[Bin]) -> list[Point]:
    return [(each.probability, each.right / each.examples) for each in bins if each.examples]


def _dots(bins: list[Bin]) -> list[float]:
    """Return radii whose squares are proportional to the answers; all are large enough to see."""
    most = max(each.examples for each in bins)
    return [1.5 + 3.5 * math.sqrt(each.examples / most) for each in bins if each.examples]


def _tip(name: str, each: Bin) -> str:
    if not each.examples:
        return f"{name}: none"
    share = _in_percent(each.right, each.examples)
    sure = f"{100 * each.probability:.1f} %"
    return f"{name}: {each.right:,} of {each.examples:,} right ({share}) at {sure}"


def _in_percent(right: int, examples: int) -> str:
    """Return a share with its interval."""
    return f"{100 * right / examples:.1f} %, {interval(right, examples).strip('()')}"


def by_threshold(found: list[AtThreshold], mark: float | None, caption: str) -> Figure:
    """Draw accuracy and share of the answers over the required probability."""
    total = found[0].answered
    right = [(each.threshold, each.right / each.answered) for each in found if each.answered]
    kept = [(each.threshold, each.answered / total) for each in found]
    series = [Series("answered", kept, "dashed"), Series("right of those", right, "strong")]
    low = min(y for _, y in [*right, *kept])
    axes = Axes(
        "Accuracy by threshold", "probability asked for", "share", (0, 1), (low, 1), percent=True
    )
    tips = [
        (
            each.threshold,
            f"at least {each.threshold:.2f}: {each.answered:,} answered, {each.right:,} right"
            + (f" ({_in_percent(each.right, each.answered)})" if each.answered else ""),
        )
        for each in found
    ]
    svg = chart(axes, series, tips)
    if mark is not None and 0 <= mark <= 1:
        svg = vertical(svg, axes, mark, "unsure below")
    return Figure(svg, caption)


def _range(points: list[Point]) -> tuple[float, float]:
    return points[0][0], points[-1][0]


def _heights(*lines: Iterable[Point]) -> tuple[float, float]:
    return 0.0, max((y for line in lines for _, y in line), default=1.0)
