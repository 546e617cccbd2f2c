"""The loss over growing learning rates, drawn: as text of 80 columns, and as a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

COLUMNS, ROWS = 66, 16  # of the text, without its axes
AXIS = 10  # columns left of it
SIZE = 960, 560  # of the picture, and the edges of the plot in it:
LEFT, TOP, RIGHT, BOTTOM = 84, 52, 932, 492
INK, NOTE, GRID = (40, 40, 40), (110, 110, 110), (229, 229, 229)
LOSS, SMOOTHED, MARKS = (176, 190, 210), (20, 85, 180), ((200, 60, 30), NOTE, NOTE)


@dataclass(frozen=True)
class Curve:
    """What is drawn: for each step the learning rate, which grows, the loss, and its average.

    `marks`: rates to point at, each with a word for it; the first one counts.
    """

    rates: Sequence[float]
    losses: Sequence[float]
    smoothed: Sequence[float]
    marks: Sequence[tuple[float, str]] = ()

    def across(self, rates: Sequence[float]) -> NDArray[np.float64]:
        """Return how far rates lie from the first, 0, to the last one, 1, in logarithms."""
        first, last = math.log(self.rates[0]), math.log(self.rates[-1])
        return np.clip((np.log(rates) - first) / (last - first), 0.0, 1.0)

    def edges(self) -> tuple[float, float]:
        """Return the losses at the lower and at the upper edge; averages above are drawn there."""
        low = min(*self.smoothed, float(np.quantile(self.losses, 0.02)))
        first = max(self.smoothed[: len(self.smoothed) // 4 + 1])
        way = max(first - low, 0.02 * abs(first), 1e-6)
        return low - 0.05 * way, first + 0.3 * way

    def up(self, losses: Sequence[float]) -> NDArray[np.float64]:
        """Return how far losses lie from the lower edge, 0, to the upper one, 1."""
        low, high = self.edges()
        return np.asarray((np.clip(losses, low, high) - low) / (high - low), np.float64)

    def decades(self) -> list[int]:
        """Return the powers of ten between the first and the last rate."""
        first, last = math.log10(self.rates[0]), math.log10(self.rates[-1])
        return [*range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)]


def as_text(curve: Curve) -> str:
    """Draw with characters of ASCII: losses as `.`, their average as `*`, marks as columns."""
    cells = [[" "] * COLUMNS for _ in range(ROWS)]
    columns = np.rint(curve.across(curve.rates) * (COLUMNS - 1)).astype(int)
    rows = np.rint((1 - curve.up(curve.losses)) * (ROWS - 1)).astype(int)
    marked = [round(float(curve.across([rate])[0]) * (COLUMNS - 1)) for rate, _ in curve.marks]
    for column in marked[:1]:
        for line in cells:
            line[column] = ":"
    low, high = curve.edges()
    for column, row, loss in zip(columns, rows, curve.losses, strict=True):
        if low <= loss <= high:
            cells[row][column] = "."
    between = np.interp(np.linspace(0, 1, COLUMNS), curve.across(curve.rates), curve.smoothed)
    levels = np.rint((1 - curve.up(between.tolist())) * (ROWS - 1)).astype(int)
    for column, level in enumerate(levels):
        before = levels[max(0, column - 1)]
        for row in range(min(level, before + 1), max(level, before - 1) + 1):
            cells[row][column] = "*"
    names = [f"{high:.4g}", *[""] * (ROWS - 2), f"{low:.4g}"]
    lines = [f"{name:>8} |{''.join(line)}" for name, line in zip(names, cells, strict=True)]
    lines += _axis(curve)
    lines += [
        _pointing(column, f"{rate:.2g} {word}")
        for column, (rate, word) in zip(marked, curve.marks, strict=True)
    ]
    return "\n".join(line.rstrip() for line in lines)


def _axis(curve: Curve) -> list[str]:
    """Return the axis of the rates, with its powers of ten."""
    line, names = ["-"] * COLUMNS, [" "] * (COLUMNS + 2)
    for power in curve.decades():
        column = round(float(curve.across([10.0**power])[0]) * (COLUMNS - 1))
        line[column] = "+"
        name = f"1e{power}"
        start = min(column, len(names) - len(name))
        names[start : start + len(name)] = name
    return [" " * (AXIS - 1) + "+" + "".join(line), " " * AXIS + "".join(names)]


def _pointing(column: int, text: str) -> str:
    """Return a line that points at a column, with a text on the side that has room."""
    if column + 2 + len(text) <= COLUMNS + 2:
        return " " * (AXIS + column) + "^ " + text
    return f"{text} ^".rjust(AXIS + column + 1)


def as_png(curve: Curve, title: str) -> bytes:
    """Draw a picture of 960×560 pixels; return the content of a PNG file."""
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    font, large = ImageFont.load_default(14), ImageFont.load_default(18)
    low, high = curve.edges()

    def places(rates: Sequence[float], losses: Sequence[float]) -> list[tuple[float, float]]:
        xs = LEFT + curve.across(rates) * (RIGHT - LEFT)
        ys = BOTTOM - curve.up(losses) * (BOTTOM - TOP)
        return [*zip(xs.tolist(), ys.tolist(), strict=True)]

    draw.text((LEFT, 14), title, INK, large)
    for loss in np.linspace(low, high, 6).tolist():
        ((_, y),) = places(curve.rates[:1], [loss])
        draw.line((LEFT, y, RIGHT, y), GRID)
        draw.text((LEFT - 10, y), f"{loss:.3g}", NOTE, font, anchor="rm")
    for power in curve.decades():
        ((x, _),) = places([10.0**power], [low])
        draw.line((x, TOP, x, BOTTOM), GRID)
        draw.text((x, BOTTOM + 8), f"{10.0**power:g}", NOTE, font, anchor="ma")
    for i, (rate, word) in enumerate(curve.marks):
        ((x, _),) = places([rate], [low])
        draw.line((x, TOP, x, BOTTOM), MARKS[i], 2 if i == 0 else 1)
        on_left = x > (LEFT + RIGHT) / 2
        anchor, side = ("ra", -6) if on_left else ("la", 6)
        said, place = f"{rate:.2g} {word}", (x + side, TOP + 6 + 20 * i)
        draw.rectangle(draw.textbbox(place, said, font, anchor), "white")
        draw.text(place, said, MARKS[i], font, anchor)
    for (x, y), loss in zip(places(curve.rates, curve.losses), curve.losses, strict=True):
        if low <= loss <= high:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), LOSS)
    draw.line(places(curve.rates, curve.smoothed), SMOOTHED, 3, joint="curve")
    draw.rectangle((LEFT, TOP, RIGHT, BOTTOM), outline=NOTE)
    draw.text(((LEFT + RIGHT) / 2, SIZE[1] - 14), "learning rate", INK, font, anchor="ms")
    draw.text((LEFT - 10, TOP - 22), "loss", INK, font, anchor="ra")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
