"""The mean image, against NumPy in float64; cut and subtracted as cuda-convnet does it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.errors import ConfigError
from deepcnn.inputs.draws import Draws
from deepcnn.inputs.transform import Transform


def of(arrays: Arrays, **settings: Any) -> Transform:
    given: dict[str, Any] = {"crop": 0.75, "pad": 0, "flip": "random", "contrast": None} | settings
    return Transform.of(in_memory(arrays), standardize="mean_image", **given)


@pytest.fixture(scope="module")
def some(cifar10_test: Arrays) -> Arrays:
    return cifar10_test.select(slice(0, 700))


@pytest.fixture(scope="module")
def mean(some: Arrays) -> NDArray[np.float64]:
    """The mean image itself, [32, 32, 3]."""
    found: NDArray[np.float64] = some.images.astype(np.float64).mean(0)
    return found


def test_the_centre_of_the_mean_image_is_kept(some: Arrays, mean: NDArray[np.float64]) -> None:
    transform = of(some)
    np.testing.assert_allclose(
        np.reshape(transform.mean, (24, 24, 3)), mean[4:28, 4:28], rtol=1e-15
    )
    assert transform.std == ()
    again = Transform.from_dict(json.loads(json.dumps(transform.to_dict())))
    assert again == transform


def test_the_same_centre_is_subtracted_wherever_the_crop_lies_and_after_mirroring(
    some: Arrays, mean: NDArray[np.float64]
) -> None:
    row, column = torch.tensor([0, 8, 4, 3]), torch.tensor([8, 0, 4, 5])
    flip = torch.tensor([False, True, True, False])
    images = torch.from_numpy(some.images[:4])
    found = of(some).train(images, Draws(row, column, flip))
    assert found.is_contiguous(memory_format=torch.channels_last)
    for i in range(4):
        r, c = int(row[i]), int(column[i])
        crop = some.images[i, r : r + 24, c : c + 24].astype(np.float64)
        expected = (crop[:, ::-1] if flip[i] else crop) - mean[4:28, 4:28]
        np.testing.assert_allclose(found[i].permute(1, 2, 0), expected, atol=2e-5)


def test_contrast_comes_before(some: Arrays, mean: NDArray[np.float64]) -> None:
    images, factor = torch.from_numpy(some.images[:2]), torch.tensor([0.5, 1.5])
    zeros = torch.zeros(2, dtype=torch.int64)
    transform = of(some, contrast=(0.5, 1.5), crop=1.0)
    found = transform.train(images, Draws(zeros, zeros, zeros.bool(), factor))
    for i in range(2):
        x = some.images[i].astype(np.float64)
        means = x.mean((0, 1))
        expected = (x - means) * float(factor[i]) + means - mean
        np.testing.assert_allclose(found[i].permute(1, 2, 0), expected, atol=5e-5)


def test_evaluation_subtracts_it_from_the_central_crop(
    some: Arrays, mean: NDArray[np.float64]
) -> None:
    found = of(some).evaluate(torch.from_numpy(some.images[:9]))
    expected = (some.images[:9].astype(np.float64) - mean)[:, 4:28, 4:28]
    np.testing.assert_allclose(found.permute(0, 2, 3, 1), expected, atol=2e-5)


def test_ten_views_are_the_centre_and_the_corners_each_mirrored_too(
    some: Arrays, mean: NDArray[np.float64]
) -> None:
    images = some.images[:3]
    views = of(some, views="ten").views_of(torch.from_numpy(images))
    assert [weight for weight, _ in views] == [0.1] * 10
    starts = [(4, 4), (0, 0), (0, 8), (8, 0), (8, 8)]
    expected = []
    for r, c in starts:
        crop = images[:, r : r + 24, c : c + 24].astype(np.float64)
        expected += [each - mean[4:28, 4:28] for each in (crop, crop[:, :, ::-1])]
    for (_, found), exact in zip(views, expected, strict=True):
        np.testing.assert_allclose(found.permute(0, 2, 3, 1), exact, atol=2e-5)


@pytest.mark.parametrize("standardize", ["image", "dataset"])
def test_of_other_inputs_mirroring_may_come_before_or_after(some: Arrays, standardize: Any) -> None:
    transform = dataclasses.replace(of(some, views="ten"), standardize=standardize)
    if standardize == "dataset":
        transform = dataclasses.replace(transform, mean=(120.0,) * 3, std=(60.0,) * 3)
    views = [view for _, view in transform.views_of(torch.from_numpy(some.images[:5]))]
    for plain, mirrored in zip(views[::2], views[1::2], strict=True):
        torch.testing.assert_close(mirrored, plain.flip(3), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(views[0], transform.evaluate(torch.from_numpy(some.images[:5])))


def test_ten_views_of_whole_images_are_refused(some: Arrays) -> None:
    with pytest.raises(ConfigError, match=r"found 32 by 32 of both\. Choose .* a crop below 1"):
        of(some, crop=1.0, views="ten")
    whole = of(some, crop=1.0)
    with pytest.raises(ConfigError, match="ten views are the centre and the four corners"):
        whole.seen_from("ten")
    assert whole.seen_from("mirrored") == dataclasses.replace(whole, views="mirrored")
