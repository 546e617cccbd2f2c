"""What a recipe makes of what is seen of a set."""

from __future__ import annotations

import numpy as np

from deepcnn.data.arrays import Arrays
from deepcnn.presets import quick
from deepcnn.training.recipes import DRAWN_CONTRAST, fitting


def striped(side: int, *, paper: bool) -> Arrays:
    """Return images of two classes: a bar at the left, or at the right; on paper or on noise."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (60, side, side, 1)).astype(np.uint8)
    if paper:
        images[:] = 255
    labels = np.arange(60) % 2
    for image, label in zip(images, labels, strict=True):
        image[:, 1:4] = image[:, 1:4] if label else 0
        image[:, -4:-1] = 0 if label else image[:, -4:-1]
        image[rng.integers(side), :] = 90
    return Arrays(images, labels.astype(np.int64), ("left", "right"))


def test_what_differs_from_its_mirror_image_is_not_mirrored() -> None:
    inputs = fitting(quick().inputs, striped(32, paper=False))
    assert (inputs.flip, inputs.views, inputs.contrast) == ("none", "one", None)
    assert inputs.scales == quick().inputs.scales


def test_drawings_get_a_random_contrast() -> None:
    assert fitting(quick().inputs, striped(32, paper=True)).contrast == DRAWN_CONTRAST


def test_small_images_do_not_grow() -> None:
    assert fitting(quick().inputs, striped(12, paper=False)).scales == ()


def test_what_was_chosen_stays() -> None:
    chosen = frozenset(["inputs.flip", "inputs.contrast", "inputs.scales"])
    assert fitting(quick().inputs, striped(12, paper=True), chosen) == quick().inputs
