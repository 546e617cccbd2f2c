"""A picture of a data set: some images of each class, with its name."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deepcnn.data.arrays import Arrays

COLUMNS = 12
CELL = 64  # pixels a side of an image on the sheet
GAP = 4
LABEL = 150  # width of the column of names


def draw(arrays: Arrays) -> Image.Image:
    """Return a sheet with a row for each class: its name, its count, its first images."""
    height, width, channels = arrays.shape
    scale = max(1, CELL // max(height, width))
    cell_height, cell_width = height * scale, width * scale
    rows = len(arrays.classes)
    sheet = Image.new(
        "RGB",
        (LABEL + COLUMNS * (cell_width + GAP) + GAP, rows * (cell_height + GAP) + GAP),
        "white",
    )
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for label, name in enumerate(arrays.classes):
        members = np.flatnonzero(arrays.labels == label)
        top = GAP + label * (cell_height + GAP)
        text = f"{name}\n{len(members):,}"
        pen.multiline_text((GAP * 2, top + cell_height / 2), text, "black", font, anchor="lm")
        for column, index in enumerate(members[:COLUMNS]):
            pixels = arrays.images[index]
            picture = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
            picture = picture.convert("RGB").resize(
                (cell_width, cell_height), Image.Resampling.NEAREST
            )
            sheet.paste(picture, (LABEL + column * (cell_width + GAP), top))
    return sheet


def counts(arrays: Arrays) -> dict[str, int]:
    """Return how many examples each class has."""
    found = np.bincount(arrays.labels, minlength=len(arrays.classes))
    return {name: int(count) for name, count in zip(arrays.classes, found, strict=True)}
