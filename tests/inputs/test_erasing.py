from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from deepcnn.inputs import erasing
from deepcnn.inputs.draws import Draws, hashed

COUNT = 20_000


def draws_of(probability: float, size: tuple[int, int], count: int = COUNT) -> Draws:
    position = torch.arange(count)
    bits = hashed(3, erasing.STREAMS, torch.full_like(position, 2), position)
    nothing = torch.zeros_like(position)
    found = erasing.draw(probability, size, bits)
    return Draws(row=nothing, column=nothing, flip=nothing > 0, **found)


def rectangles(draws: Draws) -> tuple[NDArray[np.int64], ...]:
    fields = (draws.erase_row, draws.erase_column, draws.erase_height, draws.erase_width)
    return tuple(values.numpy() for values in fields if values is not None)


def test_area_aspect_and_place_are_those_of_the_paper() -> None:
    """On so large an image that rounding to whole pixels does not matter."""
    side = 10**6
    row, column, height, width = rectangles(draws_of(1.0, (side, side)))
    area, aspect = height / side * width / side, height / width
    assert stats.kstest(area, stats.uniform(0.02, 0.38).cdf).pvalue > 0.01
    # Even on a logarithmic scale, as far as 0.3 to 1 / 0.3 and the image's sides allow.
    widest = -np.log(np.maximum(area, 0.3))
    assert stats.kstest(np.log(aspect) / widest, stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert 0.3 <= aspect.min() < 0.301
    assert 3.32 < aspect.max() <= 10 / 3 + 1e-6
    for start, length in ((row, height), (column, width)):
        assert stats.kstest(start / (side - length + 1), "uniform").pvalue > 0.01
    assert np.abs(np.corrcoef([area, np.log(aspect), row, column])[0, 1:2]).max() < 0.02


@pytest.mark.parametrize("size", [(32, 32), (24, 24), (5, 40), (1, 1), (1, 30)])
def test_rectangles_lie_inside_and_hold_a_pixel(size: tuple[int, int]) -> None:
    row, column, height, width = rectangles(draws_of(1.0, size))
    for start, length, side in ((row, height, size[0]), (column, width, size[1])):
        assert start.min() == 0
        assert length.min() >= 1
        assert (start + length).max() == side
    if size == (32, 32):  # whole pixels move the mean area by less than a hundredth
        assert (height * width / 1024).mean() == pytest.approx(0.21, abs=0.01)


def test_an_image_is_erased_with_the_probability_that_is_asked_for() -> None:
    for probability in (0.0, 0.25, 1.0):
        erased = rectangles(draws_of(probability, (32, 32)))[2] > 0
        deviation = math.sqrt(COUNT * probability * (1 - probability))
        assert abs(erased.sum() - COUNT * probability) <= 3 * deviation


def test_what_is_erased_is_random_and_nothing_else_changes() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (400, 9, 13, 3), np.uint8))
    before = images.clone()
    draws = draws_of(0.5, (9, 13), 400)
    found = erasing.erase(images, draws)
    assert torch.equal(images, before)
    filled = []
    for image, old, row, column, height, width in zip(
        found.numpy(), images.numpy(), *rectangles(draws), strict=True
    ):
        there = image[row : row + height, column : column + width]
        assert there.size == 3 * height * width
        filled.append(there.reshape(-1))
        rest = np.ones((9, 13), bool)
        rest[row : row + height, column : column + width] = False
        np.testing.assert_array_equal(image[rest], old[rest])
    values = np.concatenate(filled)
    assert stats.chisquare(np.bincount(values, minlength=256)).pvalue > 0.01
    first = [values[:20].tobytes() for values in filled if len(values) >= 20]
    assert len(set(first)) == len(first)  # each image has its own
    assert torch.equal(erasing.erase(images, draws), found)
