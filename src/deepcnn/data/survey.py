"""A picture of a data set: some images of each class, with its name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from deepcnn.data.lettering import lettered
from deepcnn.data.shards import Progress
from deepcnn.data.source import Source
from deepcnn.shown import shown

COLUMNS = 12
ROWS = 200  # classes that are drawn at most
CELL = 64  # pixels a side of an image on the sheet
GAP = 4
LABEL = 150  # width of the column of names


@dataclass(frozen=True)
class Survey:
    """How many examples each class has, and the first few images of each, uint8 [H, W, C]."""

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    counts: NDArray[np.int64]
    images: tuple[list[NDArray[np.uint8]], ...]


def survey(source: Source, progress: Progress) -> Survey:
    """Read all examples once, in constant memory."""
    counts = np.zeros(len(source.classes), np.int64)
    first: tuple[list[NDArray[np.uint8]], ...] = tuple([] for _ in source.classes[:ROWS])
    done = 0
    for images, labels in source.blocks():
        counts += np.bincount(labels, minlength=len(counts))
        for label, found in enumerate(first):
            if len(found) < COLUMNS:
                here = np.flatnonzero(labels == label)[: COLUMNS - len(found)]
                found += [images[i].copy() for i in here]  # not a view, which would hold the block
        done += len(labels)
        progress(done, len(source))
    return Survey(source.classes, source.shape, counts, first)


def spelled(found: Survey) -> int:
    """Return how many names cannot be drawn with any font here without replacements."""
    names = found.classes[: len(found.images)]
    return sum(not lettered(shown(name)).whole for name in names)


def draw(found: Survey) -> Image.Image:
    """Return a sheet with a row for each class: its name, its count, its first images."""
    height, width, channels = found.shape
    scale = max(1, CELL // max(height, width))
    cell_height, cell_width = height * scale, width * scale
    sheet = Image.new(
        "RGB",
        (
            LABEL + COLUMNS * (cell_width + GAP) + GAP,
            len(found.images) * (cell_height + GAP) + GAP,
        ),
        "white",
    )
    pen = ImageDraw.Draw(sheet)
    for label, images in enumerate(found.images):
        top = GAP + label * (cell_height + GAP)
        name = lettered(shown(found.classes[label]))
        text = f"{name.text}\n{found.counts[label]:,}"
        pen.multiline_text((GAP * 2, top + cell_height / 2), text, "black", name.font, anchor="lm")
        for column, pixels in enumerate(images):
            picture = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
            picture = picture.convert("RGB").resize(
                (cell_width, cell_height), Image.Resampling.NEAREST
            )
            sheet.paste(picture, (LABEL + column * (cell_width + GAP), top))
    return sheet
