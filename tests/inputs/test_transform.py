from __future__ import annotations

import dataclasses
import json
import math
import sys
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.errors import ConfigError
from deepcnn.inputs import transform as transforms
from deepcnn.inputs.draws import Draws
from deepcnn.inputs.shuffle import Shuffle, epoch_order, permutation
from deepcnn.inputs.standardize import channel_sums, image_moments, moments
from deepcnn.inputs.transform import Transform

TUTORIAL = Transform(
    height=32,
    width=32,
    channels=3,
    crop_height=24,
    crop_width=24,
    pad=0,
    flip="random",
    contrast=(0.2, 1.8),
    cutout=0,
    standardize="image",
    mean=(),
    std=(),
    scales=(),
    least_side=1,
    views="one",
)


def distort(
    image: NDArray[np.uint8], row: int, column: int, flip: bool, brightness: float, contrast: float
) -> NDArray[np.float64]:
    """One training image of the reference, from the definitions, in float64."""
    x = image[row : row + 24, column : column + 24].astype(np.float64)
    x = x[:, ::-1] if flip else x
    x = x + brightness
    means = x.mean((0, 1))
    x = (x - means) * contrast + means
    return np.asarray((x - x.mean()) / max(float(x.std()), 1 / math.sqrt(x.size)))


def test_distorted_inputs_equal_the_definition_on_real_images(cifar10_test: Arrays) -> None:
    n = 200
    rng = np.random.default_rng(0)
    images = cifar10_test.images[:n]
    row, column = rng.integers(0, 9, n), rng.integers(0, 9, n)
    flip = rng.random(n) < 0.5
    contrast = rng.uniform(0.2, 1.8, n).astype(np.float32)
    draws = Draws(*(torch.from_numpy(values) for values in (row, column, flip, contrast)))
    found = TUTORIAL.train(torch.from_numpy(images), draws)
    assert found.shape == (n, 3, 24, 24)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    for i in range(n):
        brightness = rng.uniform(-63, 63)  # has no effect: nothing is clipped
        expected = distort(
            images[i], row[i], column[i], bool(flip[i]), brightness, float(contrast[i])
        )
        np.testing.assert_allclose(found[i].permute(1, 2, 0), expected, atol=5e-6)


def test_evaluation_takes_the_centre(cifar10_test: Arrays) -> None:
    images = cifar10_test.images[:50]
    found = TUTORIAL.evaluate(torch.from_numpy(images))
    for i in range(50):
        expected = distort(images[i], 4, 4, False, 0.0, 1.0)
        np.testing.assert_allclose(found[i].permute(1, 2, 0), expected, atol=5e-6)


@pytest.mark.parametrize("value", [0, 255])
def test_an_image_without_contrast_becomes_zeros(value: int) -> None:
    images = torch.full((1, 32, 32, 3), value, dtype=torch.uint8)
    assert TUTORIAL.evaluate(images).abs().max() == 0


def draws_of(transform: Transform, count: int, epoch: int = 0) -> Draws:
    position = torch.arange(count)
    return transform.draw(0, index=position, epoch=torch.full((count,), epoch), position=position)


def test_every_one_of_the_81_offsets_and_both_flips_are_reached() -> None:
    draws = draws_of(TUTORIAL, 5000)
    assert draws.contrast is not None
    offsets = {(int(r), int(c)) for r, c in zip(draws.row, draws.column, strict=True)}
    assert offsets == {(r, c) for r in range(9) for c in range(9)}
    assert 0.45 < draws.flip.float().mean() < 0.55
    assert 0.2 <= draws.contrast.min() < 0.21
    assert 1.79 < draws.contrast.max() < 1.8


def test_draws_of_step_12345_alone_equal_those_of_a_full_run() -> None:
    def draw(step: int) -> Draws:
        index, epoch, position = map(torch.from_numpy, Shuffle.full(3, 50_000).batch(step, 128))
        return TUTORIAL.draw(3, index=index, epoch=epoch, position=position)

    for step in range(12_300, 12_346):
        in_full_run = draw(step)
    permutation.cache_clear()
    epoch_order.cache_clear()
    alone = draw(12_345)
    for name in ("row", "column", "flip", "contrast"):
        assert torch.equal(getattr(alone, name), getattr(in_full_run, name))
    assert not torch.equal(draw(12_344).row, alone.row)


def test_alternate_flips_show_each_image_both_ways_in_two_epochs() -> None:
    transform = dataclasses.replace(TUTORIAL, flip="alternate")
    first, second = draws_of(transform, 1000, 0).flip, draws_of(transform, 1000, 1).flip
    assert torch.equal(first, ~second)
    assert 0.4 < first.float().mean() < 0.6
    assert not draws_of(dataclasses.replace(TUTORIAL, flip="none"), 1000).flip.any()


def test_padding_reflects_and_the_data_sets_statistics_standardize(cifar10_test: Arrays) -> None:
    arrays = cifar10_test.select(slice(0, 1500))
    transform = Transform.of(
        in_memory(arrays), crop=1, pad=2, flip="random", contrast=None, standardize="dataset"
    )
    pixels = arrays.images.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(transform.mean, pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(transform.std, pixels.std(0), rtol=1e-6)
    images = cifar10_test.images[:25]
    grid = torch.arange(25)
    draws = Draws(grid // 5, grid % 5, grid % 2 == 1, None)
    found = transform.train(torch.from_numpy(images), draws)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    for i in range(25):
        x = padded[i, i // 5 : i // 5 + 32, i % 5 : i % 5 + 32].astype(np.float64)
        x = x[:, ::-1] if i % 2 else x
        expected = (x - pixels.mean(0)) / pixels.std(0)
        np.testing.assert_allclose(found[i].permute(1, 2, 0), expected, atol=1e-5)


def test_contrast_before_the_data_sets_statistics(cifar10_test: Arrays) -> None:
    transform = Transform.of(
        in_memory(cifar10_test),
        crop=1,
        pad=0,
        flip="none",
        contrast=(0.5, 1.5),
        standardize="dataset",
    )
    images = cifar10_test.images[:4]
    zeros = torch.zeros(4, dtype=torch.int64)
    draws = Draws(zeros, zeros, zeros > 0, torch.tensor([0.5, 0.8, 1.1, 1.4]))
    assert draws.contrast is not None
    found = transform.train(torch.from_numpy(images), draws)
    for i, factor in enumerate(draws.contrast.tolist()):
        x = images[i].astype(np.float64)
        means = x.mean((0, 1))
        expected = ((x - means) * factor + means - transform.mean) / transform.std
        np.testing.assert_allclose(found[i].permute(1, 2, 0), expected, atol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="there is no Triton for this system")
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("standardize", ["dataset", "unit"])
def test_one_pass_on_a_gpu_makes_the_same_bits(
    standardize: Literal["dataset", "unit"], channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(channels)
    shape = (30, 25, 19, channels)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    arrays = Arrays(images.numpy(), np.arange(30) % 2, ("a", "b"))
    transform = Transform.of(
        in_memory(arrays),
        crop=0.9,
        pad=3,
        flip="random",
        contrast=None,
        standardize=standardize,
        cutout=2,
        scales=((0.0, 0.5),),
        translation=2,
    )
    index = torch.arange(30)
    draws = transform.draw(0, index=index, epoch=torch.zeros_like(index), position=index)
    for scale in (1.0, 0.5):
        expected = transform.train(images, draws, scale)
        with monkeypatch.context() as on_gpu:
            on_gpu.setattr(transforms, "runs_triton", lambda _: True)
            on_gpu.setattr(transforms, "crop", None)  # is not used
            found = transform.train(images, draws, scale)
        assert torch.equal(found, expected)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_the_moments_of_a_processor_and_of_a_gpu_are_the_same(cifar10_test: Arrays) -> None:
    values = torch.from_numpy(cifar10_test.images[:50]).to(torch.float32).reshape(50, 32, 96)
    sums, squares = channel_sums(values, 3), channel_sums(values.square(), 3)
    for contrast in (None, torch.linspace(0.2, 1.8, 50)):
        on_host = image_moments(sums, squares, contrast, area=1024)
        on_device = torch.stack(moments(sums, squares, contrast, 1024))
        torch.testing.assert_close(on_host, on_device.to(torch.float32), rtol=3e-6, atol=1e-7)


def test_the_data_sets_statistics_are_exact() -> None:
    """Where the deviation is small beside the values, a sum of squares in float32 is too coarse."""
    images = np.random.default_rng(0).integers(250, 256, (5000, 2, 2, 3), np.uint8)
    source = in_memory(Arrays(images, np.zeros(len(images), np.int64), ("a",)))
    transform = Transform.of(
        source, crop=1, pad=0, flip="none", contrast=None, standardize="dataset"
    )
    values = images.reshape(-1, 3).astype(np.float64)
    assert transform.mean == pytest.approx(values.mean(0), rel=1e-12)
    assert transform.std == pytest.approx(values.std(0), rel=1e-9)


def test_sums_are_exact_for_large_images() -> None:
    images = torch.full((2, 300, 290, 3), 255, dtype=torch.uint8)
    images[1, 0, 0, 2] = 254
    values = images.to(torch.float32).reshape(2, 300, 870)
    assert channel_sums(values.square(), 3).tolist() == [
        [300 * 290 * 65025] * 3,
        [*[300 * 290 * 65025] * 2, 300 * 290 * 65025 - 65025 + 254**2],
    ]


def test_images_that_are_not_square_keep_their_shape() -> None:
    images = np.zeros((2, 20, 40, 1), np.uint8)
    source = in_memory(Arrays(images, np.zeros(2, np.int64), ("a",)))
    transform = Transform.of(
        source, crop=0.75, pad=0, flip="none", contrast=None, standardize="image"
    )
    assert transform.shape == (1, 15, 30)
    assert transform.train(torch.from_numpy(images), draws_of(transform, 2)).shape == (2, 1, 15, 30)
    with pytest.raises(ConfigError, match="pad 0 to 19"):
        Transform.of(source, crop=1, pad=20, flip="none", contrast=None, standardize="image")


def test_growing_images_are_the_whole_ones_made_smaller() -> None:
    growing = dataclasses.replace(TUTORIAL, scales=((0.0, 0.5), (0.4, 0.75)))
    assert [growing.scale_at(p) for p in (0.0, 0.39, 0.4, 0.99)] == [0.5, 0.5, 0.75, 0.75]
    assert TUTORIAL.scale_at(0.0) == 1.0
    # 0.4 of the steps at a quarter of the pixels, 0.6 at nine sixteenths.
    total = 0.4 / 4 + 0.6 * 9 / 16
    assert growing.work_at(0.2) == pytest.approx(0.2 / 4 / total)
    assert growing.work_at(0.7) == pytest.approx((0.4 / 4 + 0.3 * 9 / 16) / total)
    assert [transform.work_at(1.0) for transform in (growing, TUTORIAL)] == [1.0, 1.0]
    assert TUTORIAL.work_at(0.3) == 0.3
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8))
    place = torch.arange(3)
    draws = growing.draw(0, index=place, epoch=place, position=place)
    whole, half = growing.train(images, draws), growing.train(images, draws, 0.5)
    assert whole.shape == (3, 3, 24, 24)
    # At half the size, bilinear interpolation takes the mean of 2 by 2 pixels.
    expected = whole.double().reshape(3, 3, 12, 2, 12, 2).mean((3, 5)).float()
    torch.testing.assert_close(half, expected)
    assert half.is_contiguous(memory_format=torch.channels_last)
    assert growing.train(images, draws, 0.75).shape == (3, 3, 18, 18)
    assert dataclasses.replace(growing, least_side=15).scaled(0.5) == (15, 15)
    assert dataclasses.replace(growing, least_side=30).scaled(0.5) == (24, 24)  # not enlarged
    assert torch.equal(growing.evaluate(images), TUTORIAL.evaluate(images))
    assert Transform.from_dict(json.loads(json.dumps(growing.to_dict()))) == growing


def test_a_square_anywhere_inside_is_blanked_and_nothing_else_changes() -> None:
    cutting = dataclasses.replace(TUTORIAL, cutout=7)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (2000, 32, 32, 3), np.uint8))
    place = torch.arange(len(images))
    draws = cutting.draw(5, index=place, epoch=place * 0 + 3, position=place)
    plain = TUTORIAL.draw(5, index=place, epoch=place * 0 + 3, position=place)
    assert [*plain.made()] == ["row", "column", "flip", "contrast"]
    assert all(torch.equal(getattr(draws, n), values) for n, values in plain.made().items())
    found, whole = cutting.train(images, draws).numpy(), TUTORIAL.train(images, plain).numpy()
    assert draws.cut_row is not None
    assert draws.cut_column is not None
    rows, columns = draws.cut_row.tolist(), draws.cut_column.tolist()
    for image, row, column in zip(whole, rows, columns, strict=True):
        image[:, row : row + 7, column : column + 7] = 0
    np.testing.assert_array_equal(found, whole)
    assert set(rows) == set(columns) == set(range(18))  # 24 - 7 + 1 places
    assert len(set(zip(rows, columns, strict=True))) == 18 * 18  # row and column are independent
    half = cutting.train(images, draws, 0.5)  # what is scaled has been cut already
    expected = whole.astype(np.float64).reshape(-1, 3, 12, 2, 12, 2).mean((3, 5))
    np.testing.assert_allclose(half, expected, atol=1e-5)
    np.testing.assert_array_equal(cutting.evaluate(images), TUTORIAL.evaluate(images))
    assert Transform.from_dict(json.loads(json.dumps(cutting.to_dict()))) == cutting
    source = in_memory(Arrays(images.numpy(), np.zeros(2000, np.int64), ("a",)))
    with pytest.raises(ConfigError, match=r"cutout: expected 0 to 24 .* found 25"):
        Transform.of(
            *(source,), crop=0.75, pad=0, flip="none", contrast=None, standardize="image", cutout=25
        )


def test_views_are_the_image_its_mirror_image_and_both_shifted() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8))
    central = TUTORIAL.evaluate(images).numpy()
    ((weight, only),) = TUTORIAL.views_of(images)
    assert weight == 1
    np.testing.assert_array_equal(only, central)
    padded = np.pad(central, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    shifted = [padded[:, :, :24, :24], padded[:, :, 2:, 2:]]
    both = [central, central[..., ::-1]]
    four = [*shifted, *(view[..., ::-1] for view in shifted)]

    def check(found: list[tuple[float, torch.Tensor]], wanted: dict[float, list[Any]]) -> None:
        expected = [(weight, view) for weight, views in wanted.items() for view in views]
        assert [weight for weight, _ in found] == [weight for weight, _ in expected]
        for (_, view), (_, expected_view) in zip(found, expected, strict=True):
            np.testing.assert_array_equal(view, expected_view)

    wanted_of = {
        "mirrored": {0.5: both},
        "shifted": {0.25: both, 0.125: four},
        "unsure": {0.5: both},
    }
    for views, expected in wanted_of.items():
        transform = Transform.from_dict(TUTORIAL.to_dict() | {"views": views})
        check(transform.views_of(images), expected)
        check(transform.shifted_views_of(images), {0.25: four})
        assert Transform.from_dict(json.loads(json.dumps(transform.to_dict()))) == transform
    one = in_memory(Arrays(np.zeros((1, 1, 4, 3), np.uint8), np.zeros(1, np.int64), ("a",)))
    shifting: tuple[Literal["shifted", "unsure"], ...] = ("shifted", "unsure")
    for shifts in shifting:
        with pytest.raises(ConfigError, match="shifted views"):
            Transform.of(
                one, crop=1, pad=0, flip="none", contrast=None, standardize="image", views=shifts
            )
