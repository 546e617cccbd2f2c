"""The pictures of a report: the choice, and their pixels as data URIs."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.formats.decoding import encode
from deepcnn.data.source import Source
from deepcnn.inference.answered import Answered
from deepcnn.inference.calibration import Doubt, Floats
from deepcnn.reports.measures import Labels

IN_A_CELL, IN_ALL = 12, 400  # pictures behind a confusion matrix, at most
MISTAKES = 24  # of the gallery
BYTES = 1_600_000  # of all pictures, in base64

Pixels = NDArray[np.uint8]
Cell = tuple[int, int]  # the class that was given, and the one that was answered


@dataclass(frozen=True)
class Chosen:
    """The examples that are shown: for each cell, and in the gallery, the worst first."""

    cells: dict[Cell, list[int]]
    mistakes: list[int]

    @property
    def all(self) -> list[int]:
        """All examples, each once: first the gallery's, then one from each cell in turn."""
        turns = [
            members[turn]
            for turn in range(IN_A_CELL)
            for members in self.cells.values()
            if turn < len(members)
        ]
        return list(dict.fromkeys([*self.mistakes, *turns]))


@dataclass(frozen=True)
class Seen:
    """What one pass over the examples of a split found.

    `sha256`: of all their pixels in order, then of all labels as int64. `doubts`: for every answer.
    `pixels`: of the requested examples, by index.
    """

    sha256: str
    doubts: list[Doubt] = field(repr=False)
    pixels: dict[int, Pixels] = field(repr=False)


def choose(labels: Labels, predicted: Labels, chances: Floats) -> Chosen:
    """Choose which examples to show, by their probabilities, float32 [N, classes].

    The worst wrong answer is the surest one; the worst right answer is the least sure one. Cells
    take turns: each shows its worst example before any cell shows its second. Wrong cells come
    first, and among them large ones.
    """
    surest = chances[np.arange(len(labels)), predicted]
    wrong = predicted != labels
    order = np.argsort(np.where(wrong, -surest, surest), kind="stable")
    members: dict[Cell, list[int]] = {}
    sizes: dict[Cell, int] = {}
    for index in order.tolist():
        cell = (int(labels[index]), int(predicted[index]))
        sizes[cell] = sizes.get(cell, 0) + 1
        if sizes[cell] <= IN_A_CELL:
            members.setdefault(cell, []).append(index)
    by_turns = sorted(members, key=lambda cell: (cell[0] == cell[1], -sizes[cell], cell))
    cells: dict[Cell, list[int]] = {cell: [] for cell in by_turns}
    left = IN_ALL
    for turn in range(IN_A_CELL):
        for cell in by_turns:
            if left and turn < len(members[cell]):
                cells[cell].append(members[cell][turn])
                left -= 1
    mistakes = order[wrong[order]][:MISTAKES].tolist()
    return Chosen({cell: some for cell, some in cells.items() if some}, mistakes)


def look(source: Source, answered: Answered, wanted: list[int]) -> Seen:
    """Pass over the examples of a split once, in constant memory."""
    digest = hashlib.sha256()
    doubts: list[Doubt] = []
    pixels: dict[int, Pixels] = {}
    places = np.unique(wanted)
    start = 0
    for images, labels in source.blocks():
        stop = start + len(labels)
        digest.update(np.ascontiguousarray(images).tobytes())
        if answered.calibration is not None:
            doubts += answered.calibration.doubts(images, answered.logits[start:stop])
        inside = places[(places >= start) & (places < stop)].tolist()
        pixels |= {index: images[index - start].copy() for index in inside}
        start = stop
    digest.update(answered.labels.astype("<i8").tobytes())
    return Seen(digest.hexdigest(), doubts or [None] * start, pixels)


def in_base64(seen: Seen, order: list[int], limit: int = BYTES) -> dict[int, str]:
    """Return pictures as PNG in base64, the first of `order`, up to this many bytes in all."""
    found: dict[int, str] = {}
    for index in order:
        text = base64.b64encode(encode(seen.pixels[index])).decode()
        limit -= len(text)
        if limit < 0:
            break
        found[index] = text
    return found


def data_uri(image: Pixels) -> str:
    """Return a picture uint8 [H, W, 1 or 3] as an image's address in a page."""
    return "data:image/png;base64," + base64.b64encode(encode(image)).decode()


def sheet(images: Pixels, across: int, *, gap: int = 1, ground: int = 128) -> Pixels:
    """Lay images uint8 [N, H, W, C] out in rows of `across`, with a gap between them."""
    count, height, width, channels = images.shape
    across = min(across, count)
    down = -(-count // across)
    size = (down * (height + gap) - gap, across * (width + gap) - gap, channels)
    found = np.full(size, ground, np.uint8)
    for index, image in enumerate(images):
        top, left = (index // across) * (height + gap), (index % across) * (width + gap)
        found[top : top + height, left : left + width] = image
    return found


def for_display(values: NDArray[np.float32], *, around_zero: bool = False) -> Pixels:
    """Scale each image float32 [N, H, W, C] to 0 to 255, by its smallest and largest value.

    `around_zero`: zero becomes the middle gray, and the value that is farthest from zero becomes 1
    or 255.
    """
    axes = (1, 2, 3)
    if around_zero:
        most = np.abs(values).max(axes, keepdims=True)
        low, span = -most, 2 * most
    else:
        low = values.min(axes, keepdims=True)
        span = values.max(axes, keepdims=True) - low
    scaled = (values - low) / np.where(span > 0, span, 1)
    return np.asarray(np.rint(255 * np.where(span > 0, scaled, 0.5)), np.uint8)
