"""A data set in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepcnn.errors import DataError


@dataclass(frozen=True)
class Arrays:
    """Images with their labels.

    `images`: uint8 [N, H, W, C], values 0 to 255; `labels`: int64 [N], 0 to len(classes) - 1;
    `classes`: the name of each label.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise DataError(
                "images: expected uint8 [N, height, width, channels], found "
                f"{self.images.dtype} {list(self.images.shape)}"
            )
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != np.int64:
            raise DataError(
                f"labels: expected int64 [{len(self.images)}], one for each image, found "
                f"{self.labels.dtype} {list(self.labels.shape)}"
            )
        outside = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.classes)))
        if outside.size:
            first = int(outside[0])
            raise DataError(
                f"labels: expected 0 to {len(self.classes) - 1}, the index of a class, found "
                f"{int(self.labels[first])} for example {first} ({outside.size} such labels)"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.shape))
        return f"<Arrays: {len(self):,} images {shape}, {len(self.classes):,} classes>"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    def select(self, index: NDArray[np.int64 | np.bool_] | slice) -> Arrays:
        """Return the examples that `index` selects; a slice shares memory."""
        return Arrays(self.images[index], self.labels[index], self.classes)
