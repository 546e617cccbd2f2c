"""Every distortion at once, and turned images by the formula."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

EVERYTHING: dict[str, Any] = {
    "translation": 2,
    "rotation": 20.0,
    "brightness": 60.0,
    "saturation": (0.4, 1.8),
    "hue": 0.15,
    "erase": 0.6,
    "contrast": (0.6, 1.4),
    "cutout": 3,
    "mixup": 0.6,
    "cutmix": 1.0,
}


def turned_window(
    image: NDArray[np.uint8], row: int, column: int, flip: bool, angle: float, size: tuple[int, int]
) -> NDArray[np.float64]:
    """A window whose pixels are asked one by one of an image that its reflections surround."""
    height, width, channels = image.shape
    around = [(5 * (side - 1),) * 2 for side in (height, width)]
    wide = np.pad(image.astype(np.float64), [*around, (0, 0)], "reflect")
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    found = np.empty((*size, channels))
    for i, j in np.ndindex(*size):
        y = row + i - (height - 1) / 2
        x = column + (size[1] - 1 - j if flip else j) - (width - 1) / 2
        # The image turned counterclockwise has here what was further on clockwise; y points down.
        up = sine * x + cosine * y + (height - 1) / 2 + around[0][0]
        left = cosine * x - sine * y + (width - 1) / 2 + around[1][0]
        top, start = math.floor(up), math.floor(left)
        v, u = up - top, left - start
        (a, b), (c, d) = wide[top : top + 2, start : start + 2]
        found[i, j] = (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * c + u * d)
    return found
