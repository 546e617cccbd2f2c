"""Figures as inline SVG, with the page's colours and dashes; values are shown on hover.

A figure is drawn in a box of 400 by 250 units, so its text can also be read on a telephone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

from deepcnn.shown import printable

WIDTH, HEIGHT = 400.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 388.0, 30.0, 212.0  # of the plot inside the box
MOST_POINTS = 150  # of a line; more are brought together

Point = tuple[float, float]
Style = Literal["strong", "thin", "dashed", "dotted"]


@dataclass(frozen=True)
class Series:
    """A line: its name, its points by rising x, and how it is drawn.

    `dots`: the radius of a dot at each point; empty: none.
    """

    name: str
    points: Sequence[Point]
    style: Style
    dots: Sequence[float] = ()


@dataclass(frozen=True)
class Axes:
    """The visible part of the plane: the labels, and the ranges that must be seen."""

    title: str
    x: str
    y: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    percent: bool = False


@dataclass(frozen=True)
class Scale:
    """Maps values to units of the drawing, with round values to label."""

    low: float
    high: float
    start: float
    stop: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> str:
        """Return where a value is drawn."""
        share = (value - self.low) / (self.high - self.low)
        return f"{self.start + share * (self.stop - self.start):.1f}"


def chart(axes: Axes, series: Sequence[Series], tips: Iterable[tuple[float, str]] = ()) -> Markup:
    """Draw lines over axes; `tips`: the text for the x that is nearest to the pointer."""
    x = scale(axes.x_range, (LEFT, RIGHT), round_up=False)
    y = scale(axes.y_range, (BOTTOM, TOP), round_up=True)
    parts = [_frame(axes, x, y), *(_line(each, x, y) for each in series), _legend(series)]
    parts.append(_tips(list(tips), x))
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" '
        f'aria-label="{_text(axes.title)}"><g>{"".join(parts)}</g></svg>'
    )


def vertical(svg: Markup, axes: Axes, at: float, label: str) -> Markup:
    """Add a vertical line with a label to a chart that was drawn over these axes."""
    x = scale(axes.x_range, (LEFT, RIGHT), round_up=False)
    side = 'text-anchor="end" dx="-4"' if at > sum(axes.x_range) / 2 else 'dx="4"'
    mark = (
        f'<path class="mark" d="M{x(at)} {TOP}V{BOTTOM}"/>'
        f'<text x="{x(at)}" y="{BOTTOM - 6}" {side}>{_text(label)}</text>'
    )
    return Markup(str(svg).replace("<g>", f"<g>{mark}", 1))


def scale(values: tuple[float, float], drawn: tuple[float, float], *, round_up: bool) -> Scale:
    """Return the scale of a range; `round_up`: to the next round values on both sides."""
    low, high = values
    if not high > low:
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if round_up:
        low, high = first * step, last * step
    inside = (index * step for index in range(first, last + 1))
    ticks = tuple(t for t in inside if low - 1e-9 * step <= t <= high + 1e-9 * step)
    return Scale(low, high, *drawn, ticks)


def _round_step(step: float) -> float:
    """Return the next larger of 1, 2, 5, 10 … times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Return at most this many points; if there are more, means of neighbours."""
    count = len(points)
    if count <= most:
        return list(points)
    edges = [index * count // most for index in range(most + 1)]
    groups = [points[a:b] for a, b in itertools.pairwise(edges)]
    return [
        (math.fsum(x for x, _ in group) / len(group), math.fsum(y for _, y in group) / len(group))
        for group in groups
    ]


def number(value: float) -> str:
    """Return a number as a figure shows it, in few digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _frame(axes: Axes, x: Scale, y: Scale) -> str:
    def label(value: float) -> str:
        return f"{100 * value:.3g} %" if axes.percent else number(value)

    parts = []
    for tick in y.ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick)}H{RIGHT}"/>')
        parts.append(
            f'<text x="{LEFT - 5}" y="{y(tick)}" dy="4" text-anchor="end">{label(tick)}</text>'
        )
    for tick in x.ticks:
        parts.append(f'<path class="grid" d="M{x(tick)} {BOTTOM}v4"/>')
        at = 'text-anchor="middle"'
        parts.append(f'<text x="{x(tick)}" y="{BOTTOM + 16}" {at}>{number(tick)}</text>')
    middle = (LEFT + RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{_text(axes.x)}</text>')
    parts.append(f'<text x="{LEFT}" y="12">{_text(axes.y)}</text>')
    return "".join(parts)


def _line(series: Series, x: Scale, y: Scale) -> str:
    if not series.points:
        return ""
    drawn = [(x(a), y(b)) for a, b in series.points]
    path = f"M{drawn[0][0]} {drawn[0][1]}"
    path += "".join(f"L{a} {b}" for a, b in drawn[1:])
    dots = series.dots or ([3.0] if len(drawn) == 1 else [])
    marks = "".join(
        f'<circle cx="{a}" cy="{b}" r="{radius:.1f}"/>'
        for (a, b), radius in zip(drawn, dots, strict=False)
    )
    return f'<g class="line {series.style}"><path d="{path}"/>{marks}</g>'


def _legend(series: Sequence[Series]) -> str:
    parts, right = [], RIGHT
    for each in reversed([each for each in series if each.name]):
        right -= 7.2 * len(each.name) + 30  # of a wide font at this size
        parts.append(
            f'<g class="line {each.style}"><path d="M{right:.1f} 8h20"/></g>'
            f'<text x="{right + 24:.1f}" y="12">{_text(each.name)}</text>'
        )
    return "".join(parts)


def _tips(tips: list[tuple[float, str]], x: Scale) -> str:
    places = [float(x(at)) for at, _ in tips]
    edges = [LEFT, *((a + b) / 2 for a, b in itertools.pairwise(places)), RIGHT]
    return "".join(
        f'<rect class="tip" x="{left:.1f}" y="{TOP}" width="{max(0.1, right - left):.1f}" '
        f'height="{BOTTOM - TOP}"><title>{_text(text)}</title></rect>'
        for (_, text), left, right in zip(tips, edges, edges[1:], strict=False)
    )


def _text(text: str) -> Markup:
    return escape(printable(text))
