"""A small data set that is generated, not fetched."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepcnn import hashing
from deepcnn.data.arrays import Arrays

CLASSES = tuple(f"pattern {i}" for i in range(10))
SIZE = 32


def synthetic(part: Literal["train", "test"]) -> Arrays:
    """Make a small data set that can be learned: 8,192 training or 512 test images, 32×32×3.

    Each class is a pattern of 4×4 coloured squares. An image is the pattern of its class, shifted
    by up to 4 pixels, with noise. The set needs no file and is the same everywhere.
    """
    count, epoch = (8192, np.array([0])) if part == "train" else (512, np.array([1]))

    def random(what: int, count: int) -> NDArray[np.int64]:
        bits = hashing.bits(what, hashing.SYNTHETIC, epoch, np.arange(count, dtype=np.int64))
        return np.asarray(bits)

    squares = hashing.bits(
        0, hashing.SYNTHETIC, np.zeros(1, np.int64), np.arange(len(CLASSES) * 48)
    )
    colours = hashing.below(160, squares).reshape(len(CLASSES), 4, 4, 3).astype(np.uint8)
    patterns = colours.repeat(SIZE // 4, 1).repeat(SIZE // 4, 2)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    # One image for each class and shift, to be looked up: much faster than shifting each example.
    rows = (np.arange(SIZE) - np.arange(-4, 5)[:, None]) % SIZE
    shifted = patterns[:, rows][:, :, :, rows].swapaxes(2, 3).reshape(-1, SIZE * SIZE * 3)
    down, right = hashing.below(9, random(1, 2 * count)).reshape(2, count)
    images = shifted[(labels * 9 + down) * 9 + right].reshape(count, SIZE, SIZE, 3)
    noise = random(2, images.size // 8).astype("<i8", copy=False).view(np.uint8)  # one for a value
    images += (np.arange(256) * 96 >> 8).astype(np.uint8)[noise].reshape(images.shape)
    return Arrays(images, labels, CLASSES)
