"""A small data set that is made, not fetched."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepcnn.data import order
from deepcnn.data.arrays import Arrays


def synthetic(part: Literal["train", "test"], *, classes: int = 10) -> Arrays:
    """Make a small data set that can be learned: 2,048 training or 512 test images, 32×32×3.

    Each class is a pattern of 4×4 coloured squares; an image is its class's pattern, shifted by
    up to 4 pixels, with noise. It needs no file and is the same everywhere.
    """
    count, epoch = (2048, 0) if part == "train" else (512, 1)

    def random(what: int, *shape: int) -> NDArray[np.float64]:
        position = np.arange(int(np.prod(shape)), dtype=np.int64)
        return np.asarray(
            order.unit(order.bits(what, order.SYNTHETIC, np.array([epoch]), position))
        ).reshape(shape)

    squares = order.unit(
        order.bits(0, order.SYNTHETIC, np.zeros(1, np.int64), np.arange(classes * 48))
    ).reshape(classes, 4, 4, 3)
    patterns = np.kron(squares, np.ones((1, 8, 8, 1)))
    labels = np.arange(count, dtype=np.int64) % classes
    shifts = (random(1, count, 2) * 9).astype(np.int64) - 4
    images = np.stack(
        [
            np.roll(patterns[label], shift, (0, 1))
            for label, shift in zip(labels, shifts, strict=True)
        ]
    )
    noisy = images * 160 + 48 + (random(2, *images.shape) - 0.5) * 96
    names = tuple(f"pattern {i}" for i in range(classes))
    return Arrays(noisy.round().astype(np.uint8), labels, names)
