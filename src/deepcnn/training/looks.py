"""What a few images tell: whether they may be mirrored, and whether they are mostly blank."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.arrays import Arrays
from deepcnn.data.source import Source

SEEN = 1000  # examples, at most
SIDE = 32  # pixels a side, about, that images are averaged down to
LEAST_SHARE = 0.8  # of the right neighbours, that must be right after mirroring, too
EVIDENCE = 3.0  # deviations by which it must have become worse
BLANK = 2 / 3  # of all values, that are one and the same,
NEAR = 2  # or differ from it by so much at most


def some_of(train: Source) -> Arrays:
    """Return at most SEEN examples of a training set, evenly spread over it."""
    chosen = np.zeros(len(train), np.bool_)
    chosen[np.linspace(0, len(train) - 1, min(SEEN, len(train))).astype(np.int64)] = True
    return train.select(chosen).load()


def may_mirror(few: Arrays) -> bool:
    """Tell whether mirroring left to right seems to leave an image in its class.

    For each image and for its mirror image, the most similar other image is found, by the
    correlation of pixels. Mirroring is not allowed if mirror images find their own class far less
    often, as with letters, digits and hands. "Far less often" means less than four fifths as often,
    and by three deviations of McNemar's test (1947). If there are too few examples to tell,
    mirroring is allowed.
    """
    small, labels = _averaged(few.images), few.labels
    as_they_are = _has_right_neighbour(small, small, labels)
    in_the_mirror = _has_right_neighbour(small[:, :, ::-1], small, labels)
    lost = int((as_they_are & ~in_the_mirror).sum())
    won = int((in_the_mirror & ~as_they_are).sum())
    worse = (lost - won) / math.sqrt(max(1, lost + won))
    return bool(worse < EVIDENCE or in_the_mirror.mean() >= LEAST_SHARE * as_they_are.mean())


def mostly_blank(few: Arrays) -> bool:
    """Tell whether most pixels have the same value, as in drawings on paper."""
    counts = np.bincount(few.images.ravel(), minlength=256)
    most = int(counts.argmax())
    near = counts[max(0, most - NEAR) : most + NEAR + 1].sum()
    return bool(near > BLANK * counts.sum())


def _averaged(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return images of about SIDE pixels a side, each pixel the mean of a block."""
    count, height, width, channels = images.shape
    block = max(1, min(height, width) // SIDE)
    rows, columns = height // block, width // block
    cut = images[:, : rows * block, : columns * block]
    blocks = cut.reshape(count, rows, block, columns, block, channels)
    return np.asarray(blocks.mean((2, 4), dtype=np.float32))


def _has_right_neighbour(
    images: NDArray[np.float32], among: NDArray[np.float32], labels: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell for each image, bool [N], whether the most similar other one has its label."""
    similar = _rows(images) @ _rows(among).T
    np.fill_diagonal(similar, -np.inf)
    return np.asarray(labels[similar.argmax(1)] == labels)


def _rows(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each image as a row of mean 0 and length 1; one of a single colour is all zeros."""
    rows = images.reshape(len(images), -1)
    rows = rows - rows.mean(1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6))
