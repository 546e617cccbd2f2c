"""Sheets of small pictures with words beside them, and bars, drawn with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating]

WHITE, INK, GRAY = (255, 255, 255), (31, 35, 40), (200, 205, 212)
BLUE, ORANGE = (9, 82, 165), (196, 84, 0)  # told apart by colour-blind people, too
GAP = 10  # pixels between pictures
TEXT, LINE = 24, 6  # pixels, of letters and between lines: read on a telephone at half the size
EDGE = 4  # pixels of white around all


def font(size: int = TEXT) -> ImageFont.FreeTypeFont:
    """Return the font that comes with Pillow, so that every machine draws the same."""
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return found


def enlarged(pixels: Pixels, side: int) -> Image.Image:
    """Return an image [H, W, 3], of which each pixel becomes a square, `side` high."""
    height, width = pixels.shape[:2]
    size = side * width // height, side
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def map_of(values: Floats, most: float, side: int) -> Image.Image:
    """Return values [H, W] as a framed picture, `side` high and the frame beside it."""
    picture = enlarged(shaded(values, most), side)
    found = Image.new("RGB", (picture.width + 2, picture.height + 2), GRAY)
    found.paste(picture, (1, 1))
    return found


def from_darkest_to_brightest(values: Floats) -> Pixels:
    """Stretch values [H, W, C] over all that a screen can show."""
    low, high = values.min(), values.max()
    found: Pixels = ((values - low) / max(high - low, 1e-9) * 255).round().astype(np.uint8)
    return found


def shaded(values: Floats, most: float) -> Pixels:
    """Return values [H, W] as colours: 0 white, towards `most` blue, towards -`most` orange."""
    share = np.clip(values / max(most, 1e-9), -1, 1)[..., None]
    towards = np.where(share > 0, np.array(BLUE), np.array(ORANGE))
    found: Pixels = (255 + np.abs(share) * (towards - 255)).round().astype(np.uint8)
    return found


def sheet(
    rows: Sequence[Sequence[Image.Image]],
    *,
    heads: Sequence[str] = (),
    sides: Sequence[str] = (),
    gap: int = GAP,
) -> Image.Image:
    """Lay pictures out in rows: `heads` stand over the columns, `sides` before the rows.

    Both may have several lines; a column is at least as wide as its head.
    """
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))

    def width_of(text: str) -> int:
        return math.ceil(measure.multiline_textbbox((0, 0), text, font(), spacing=LINE)[2])

    lines = max((head.count("\n") + 1 for head in heads), default=0)
    top = lines * (TEXT + LINE) + (GAP if heads else 0)
    left = max(map(width_of, sides)) + 2 * GAP if sides else 0
    widths = [max(row[i].width for row in rows if i < len(row)) for i in range(len(rows[0]))]
    if heads:
        widths = [max(width, width_of(head)) for width, head in zip(widths, heads, strict=True)]
    heights = [max(picture.height for picture in row) for row in rows]
    size = (
        left + sum(widths) + gap * (len(widths) - 1) + 2 * EDGE,
        top + sum(heights) + gap * (len(heights) - 1) + 2 * EDGE,
    )
    found = Image.new("RGB", size, WHITE)
    draw = ImageDraw.Draw(found)
    places = [EDGE + left + sum(widths[:i]) + gap * i for i in range(len(widths))]
    for head, at, width in zip(heads, places, widths, strict=False):
        place = at + width / 2, EDGE
        draw.multiline_text(place, head, INK, font(), "ma", spacing=LINE, align="center")
    down = EDGE + top
    for i, (row, height) in enumerate(zip(rows, heights, strict=True)):
        if sides:
            beside_it = EDGE, down + height / 2
            draw.multiline_text(beside_it, sides[i], INK, font(), "lm", spacing=LINE)
        for picture, at, width in zip(row, places, widths, strict=False):
            found.paste(picture, (at + (width - picture.width) // 2, down))
        down += height + gap
    return found


def beside(pictures: Sequence[Image.Image], gap: int = 4 * GAP) -> Image.Image:
    """Put pictures beside each other."""
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    found = Image.new("RGB", (width, max(picture.height for picture in pictures)), WHITE)
    at = 0
    for picture in pictures:
        found.paste(picture, (at, 0))
        at += picture.width + gap
    return found


def framed(picture: Image.Image, box: tuple[int, int, int, int], width: int = 3) -> Image.Image:
    """Draw a rectangle into a copy of a picture."""
    found = picture.copy()
    ImageDraw.Draw(found).rectangle(box, outline=ORANGE, width=width)
    return found


def bars(
    names: Sequence[str], values: Floats, *, title: str, length: int, written: Sequence[str]
) -> Image.Image:
    """Draw a bar to the right for each value, to the left for a negative one."""
    pen, step = font(), TEXT + 8
    left = max(round(pen.getlength(name)) for name in names) + GAP
    right = max(round(pen.getlength(text)) for text in written) + 2 * GAP
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    scale = length / max(high - low, 1e-9)
    zero = left + round(-low * scale)
    found = Image.new("RGB", (left + length + right, (len(names) + 1) * step), WHITE)
    draw = ImageDraw.Draw(found)
    draw.text((left, 0), title, INK, pen)
    for i, (name, value, text) in enumerate(zip(names, values, written, strict=True)):
        top = (i + 1) * step
        draw.text((left - GAP, top + step / 2), name, INK, pen, "rm")
        ends = sorted((zero, zero + round(float(value) * scale)))
        fill = BLUE if value >= 0 else ORANGE
        draw.rectangle((ends[0], top + 4, max(ends[1], ends[0] + 1), top + step - 4), fill)
        draw.text((left + length + GAP, top + step / 2), text, INK, pen, "lm")
    draw.line((zero, step, zero, (len(names) + 1) * step), INK)
    return found


def save(picture: Image.Image, path: Path, colours: int = 256) -> None:
    """Write a picture as a small PNG; `colours`: at most, which halves what photographs take."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = picture.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    flat.save(path, optimize=True)
