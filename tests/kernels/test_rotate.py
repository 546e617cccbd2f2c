"""Turned images against bilinear interpolation by its formula, and against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from deepcnn.data.arrays import Arrays
from deepcnn.kernels.crop import crop
from deepcnn.kernels.rotate import crop_turned
from tests.helpers.distorting import turned_window

ANGLES = (-180.0, -91.5, -30.0, -0.4, 0.0, 7.0, 45.0, 90.0, 133.7, 180.0)


@pytest.mark.parametrize(
    ("shape", "size", "pad"),
    [((16, 16, 3), (16, 16), 0), ((13, 20, 1), (9, 15), 3), ((9, 7, 4), (11, 8), 6)],
)
def test_turned_windows_are_bilinear_means_by_the_formula(
    shape: tuple[int, int, int], size: tuple[int, int], pad: int
) -> None:
    rng = np.random.default_rng(pad)
    count = len(ANGLES)
    images = rng.integers(0, 256, (count, *shape), np.uint8)
    rows = rng.integers(0, shape[0] + 2 * pad - size[0] + 1, count)
    columns = rng.integers(0, shape[1] + 2 * pad - size[1] + 1, count)
    flips = rng.random(count) < 0.5
    where = torch.from_numpy(rows), torch.from_numpy(columns), torch.from_numpy(flips)
    there = torch.from_numpy(images)
    found = crop_turned(there, where, torch.tensor(ANGLES), size, pad=pad)
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    for i, angle in enumerate(ANGLES):
        expected = turned_window(
            images[i], rows[i] - pad, columns[i] - pad, bool(flips[i]), angle, size
        )
        assert np.abs(found[i].numpy() - expected).max() < 0.5 + 2e-3  # rounded, places in float32
    assert torch.equal(found[4], crop(there, *where, size, pad=pad)[4])  # by 0 degrees: the same


def test_turned_images_are_pillows(cifar10_test: Arrays) -> None:
    images = cifar10_test.images[: len(ANGLES)]
    nothing = torch.zeros(len(ANGLES), dtype=torch.int64)
    where = nothing, nothing, nothing > 0
    found = crop_turned(torch.from_numpy(images), where, torch.tensor(ANGLES), (32, 32)).numpy()
    for image, angle, ours in zip(images, ANGLES, found, strict=True):
        wide = Image.fromarray(np.pad(image, ((31, 31), (31, 31), (0, 0)), "reflect"))
        turned = np.asarray(wide.rotate(angle, Image.Resampling.BILINEAR))[31:-31, 31:-31]
        assert np.abs(ours.astype(np.int64) - turned).max() <= 1
    for quarters, i in ((1, 7), (2, 0), (2, 9)):
        np.testing.assert_array_equal(found[i], np.rot90(images[i], quarters))


def test_a_row_of_pixels_turns_about_its_middle() -> None:
    """A side of one pixel has no neighbours to go on with, and stays what it is."""
    images = torch.arange(5, dtype=torch.uint8).view(1, 1, 5, 1) * 10
    nothing = torch.zeros(1, dtype=torch.int64)
    half = crop_turned(images, (nothing, nothing, nothing > 0), torch.tensor([180.0]), (1, 5))
    assert half.flatten().tolist() == [40, 30, 20, 10, 0]
