"""Colours against `colorsys` in float64, and against Pillow."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from deepcnn.data.arrays import Arrays
from deepcnn.kernels.colour import brighten, recolour

Pixels = NDArray[np.uint8]
# Corners, edges and grays of the cube of colours, where sectors of the circle of hues meet.
LEVELS = np.array([0, 1, 127, 128, 254, 255], np.uint8)
CUBE = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS), -1).reshape(1, 12, 18, 3)


@pytest.fixture(scope="module")
def images(cifar10_test: Arrays) -> Pixels:
    return np.concatenate(
        [np.pad(CUBE, ((0, 0), (0, 20), (0, 14), (0, 0))), cifar10_test.images[:9]]
    )


def by_definition(image: Pixels, factor: float, turn: float) -> NDArray[np.float64]:
    found = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[place] / 255.0))
        changed = (hue + turn) % 1.0, min(1.0, saturation * factor), value
        found[place] = 255 * np.array(colorsys.hsv_to_rgb(*changed))
    return found


def close(found: torch.Tensor, expected: NDArray[np.float64]) -> None:
    """Up to rounding: half a level, and a little more where float32 rounds a half."""
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    assert np.abs(found.numpy() - expected).max() < 0.5 + 1e-4


def test_saturation_and_hue_are_those_of_the_hexagonal_cone(images: Pixels) -> None:
    factors = torch.tensor([0.0, 0.3, 1.0, 1.7, 40.0, 0.8, 1.2, 1.1, 0.9, 2.0])
    turns = torch.tensor([0.1, -0.5, 0.5, 1 / 6, -1 / 3, 0.0, 0.9, -0.05, 0.25, -1.0])
    there = torch.from_numpy(images)
    both, only = recolour(there, factors, turns), recolour(there, factors, None)
    turned = recolour(there, None, turns)
    for i, image in enumerate(images):
        factor, turn = float(factors[i]), float(turns[i])
        close(both[i], by_definition(image, factor, turn))
        close(only[i], by_definition(image, factor, 0.0))
        close(turned[i], by_definition(image, 1.0, turn))


def test_no_change_changes_nothing_and_no_saturation_is_gray(images: Pixels) -> None:
    there = torch.from_numpy(images)
    one, none = torch.ones(len(images)), torch.zeros(len(images))
    for found in (
        recolour(there, one, none),
        recolour(there, one, None),
        recolour(there, None, one),
    ):
        assert torch.equal(found, there)
    gray = recolour(there, none, one * 0.3)
    assert torch.equal(gray, there.amax(3, keepdim=True).expand_as(there))


def test_a_turned_hue_is_pillows(images: Pixels) -> None:
    """Pillow has 256 hues and 256 saturations, so that a level of both is 6 of 255 of a colour."""
    turns = np.linspace(-128, 128, len(images)).astype(np.int64)
    found = recolour(torch.from_numpy(images), None, torch.from_numpy(turns / 256).float())
    for image, turn, ours in zip(images, turns, found.numpy(), strict=True):
        hsv = np.asarray(Image.fromarray(image).convert("HSV")).astype(np.int64)
        hsv[..., 0] = (hsv[..., 0] + turn) % 256
        bands = [Image.fromarray(band) for band in hsv.astype(np.uint8).transpose(2, 0, 1)]
        theirs = np.asarray(Image.merge("HSV", bands).convert("RGB"))
        apart = np.abs(ours.astype(np.int64) - theirs)
        assert apart.max() <= 8
        assert apart.mean() < 1.5


def test_brightness_is_pillows_and_clips_at_both_ends(images: Pixels) -> None:
    amounts = np.array([-300, -255, -63, -1, 0, 1, 63, 200, 255, 300])
    found = brighten(torch.from_numpy(images), torch.from_numpy(amounts).float())
    for image, amount, ours in zip(images, amounts.tolist(), found.numpy(), strict=True):
        table = [min(max(value + amount, 0), 255) for value in range(256)] * 3
        np.testing.assert_array_equal(ours, Image.fromarray(image).point(table))
    half = brighten(torch.from_numpy(images), torch.full((10,), 20.4))
    close(half, np.clip(images + 20.4, 0, 255))
