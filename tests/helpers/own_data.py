"""Data of one's own: images of any size that can be learned, in memory and as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepcnn.data.arrays import Arrays


def images_of(
    count: int, height: int, width: int, channels: int, classes: int = 3, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Learnable images: the class is how bright the left half is."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = rng.integers(0, 60, (count, height, width, channels), dtype=np.uint8)
    images[:, :, : width // 2] += (labels * (190 // classes)).astype(np.uint8)[:, None, None, None]
    return images, labels


def write_pictures(root: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze()).save(folder / f"{i:05}.png")


def equal(found: Arrays, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    assert np.array_equal(found.images, images)
    assert np.array_equal(found.labels, labels)
