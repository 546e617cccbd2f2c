from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from deepcnn.data.arrays import Arrays
from deepcnn.inference.kinds import NAMES, Kind, fit_kind, statistics_of

SHARE = 0.995
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def kind(cifar10_test: Arrays) -> Kind:
    """The kind of some thousand test images of the real CIFAR-10."""
    return fit_kind(statistics_of(cifar10_test.images[:4000]), SHARE)


def unknown(kind: Kind, images: Pixels) -> float:
    """The share of images that are not of the kind."""
    return float((kind.distances(images) > kind.most_distance).mean())


# The statistics


def in_loops(image: list[list[list[int]]]) -> list[float]:
    """The statistics of one image, pixel by pixel."""
    height, width, channels = len(image), len(image[0]), len(image[0][0])
    x = [[[value / 255 for value in pixel] for pixel in row] for row in image]
    gray = [[sum(pixel) / channels for pixel in row] for row in x]
    brightness = sum(map(sum, gray)) / (height * width)
    variance = sum((g - brightness) ** 2 for row in gray for g in row) / (height * width)
    across, down, second, colour = [], [], [], []
    for i in range(height):
        for j in range(width):
            colour.append(max(x[i][j]) - min(x[i][j]))
            for c in range(channels):
                if j + 1 < width:
                    across.append(abs(x[i][j + 1][c] - x[i][j][c]))
                if i + 1 < height:
                    down.append(abs(x[i + 1][j][c] - x[i][j][c]))
                if 0 < i < height - 1 and 0 < j < width - 1:
                    around = x[i - 1][j][c] + x[i + 1][j][c] + x[i][j - 1][c] + x[i][j + 1][c]
                    second.append(abs(4 * x[i][j][c] - around))
    means = [sum(each) / len(each) for each in (across, down, second, colour)]
    return [brightness, *(math.log(value + 1e-3) for value in (math.sqrt(variance), *means))]


@pytest.mark.parametrize("shape", [(3, 3, 1), (3, 9, 3), (7, 3, 4), (32, 32, 3)])
def test_statistics_are_what_their_definitions_say(shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    images[1] = 77  # nothing changes anywhere
    images[2, :, :, 0] //= 3
    found = statistics_of(images)
    assert found.shape == (3, len(NAMES))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [in_loops(image.tolist()) for image in images], atol=1e-4)


def test_statistics_of_an_image_do_not_depend_on_the_others(cifar10_test: Arrays) -> None:
    images = cifar10_test.images[:50]
    alone = np.concatenate([statistics_of(image[None]) for image in images])
    np.testing.assert_allclose(statistics_of(images), alone, rtol=1e-6)
    assert statistics_of(images[:0]).shape == (0, len(NAMES))


# The distance


def test_the_distance_is_mahalanobis(cifar10_test: Arrays) -> None:
    statistics = statistics_of(cifar10_test.images[:300])
    kind = fit_kind(statistics, SHARE)
    spread = np.cov(statistics.T) + 1e-4 * np.eye(len(NAMES))
    away = statistics - statistics.mean(0)
    expected = [row @ np.linalg.solve(spread, row) for row in away]
    np.testing.assert_allclose(kind.distances(cifar10_test.images[:300]), expected, rtol=1e-8)
    assert kind.most_distance == pytest.approx(np.quantile(expected, SHARE), rel=1e-8)
    assert unknown(kind, cifar10_test.images[:300]) == pytest.approx(0.005, abs=0.002)


def test_what_is_the_same_everywhere_has_a_distance_too() -> None:
    """Gray images have no colour, so its variance is 0."""
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), dtype=np.uint8)
    kind = fit_kind(statistics_of(images), SHARE)
    assert np.isfinite(kind.precision).all()
    assert unknown(kind, images) < 0.01
    assert unknown(kind, images // 4) > 0.99
    equal = np.full((300, 3, 3, 3), 9, np.uint8)
    kind = fit_kind(statistics_of(equal), SHARE)
    assert kind.distances(equal).max() < 1e-6
    assert unknown(kind, np.random.default_rng(0).integers(0, 256, (9, 3, 3, 3), np.uint8)) == 1


# What is unlike real photographs


def letters() -> Pixels:
    """Letters, black on white and white on black."""
    found = []
    for letter in "ABCDEFGHKMNPRSTXYZ":
        for ink, paper in ((0, 255), (255, 0)):
            picture = Image.new("RGB", (32, 32), (paper,) * 3)
            font = ImageFont.load_default(26)
            ImageDraw.Draw(picture).text((6, 0), letter, (ink,) * 3, font=font)
            found.append(np.asarray(picture))
    return np.stack(found)


def blobs() -> Pixels:
    """Clouds of colour without an edge."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    smooth = [Image.fromarray(image).filter(ImageFilter.GaussianBlur(6)) for image in noise]
    return np.stack([np.asarray(image) for image in smooth])


def test_noise_blobs_and_letters_are_unknown_and_other_photographs_are_not(
    kind: Kind, cifar10_test: Arrays
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    faint = np.random.default_rng(0).integers(120, 136, (50, 32, 32, 3), dtype=np.uint8)
    gray_noise = np.repeat(noise[..., :1], 3, axis=3)
    for images in (noise, faint, gray_noise, blobs(), letters(), np.zeros_like(noise[:1])):
        assert unknown(kind, images) >= 0.95
    others = cifar10_test.images[4000:8000]
    assert unknown(kind, others) < 0.011
    assert unknown(kind, others[:, :, ::-1]) < 0.011  # mirrored
