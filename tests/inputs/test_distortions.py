"""The distortions as the transform and the loader put them together."""

from __future__ import annotations

import colorsys
import dataclasses
import json
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.devices import Part
from deepcnn.errors import ConfigError
from deepcnn.inputs.draws import Draws
from deepcnn.inputs.fed import Expected, Fed, PythonFeed, from_arrays
from deepcnn.inputs.feeds import Feed, Preloaded, Streamed
from deepcnn.inputs.loader import Loader
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import Stream
from deepcnn.inputs.transform import Transform
from tests.helpers.distorting import EVERYTHING, turned_window

CPU = torch.device("cpu")
NEW = ("translation", "rotation", "brightness", "saturation", "hue", "erase", "mixup", "cutmix")


def transform_of(arrays: Arrays, **changes: Any) -> Transform:
    settings: dict[str, Any] = {"crop": 0.75, "pad": 1, "flip": "random", "contrast": None}
    return Transform.of(in_memory(arrays), standardize="dataset", **(settings | changes))


def draws_of(transform: Transform, count: int, epoch: int = 3, start: int = 0) -> Draws:
    position = torch.arange(start, start + count)
    return transform.draw(
        7, index=position, epoch=torch.full_like(position, epoch), position=position
    )


def some(arrays: Arrays, count: int) -> Arrays:
    return Arrays(arrays.images[:count], arrays.labels[:count], arrays.classes)


def test_all_are_off_unless_asked_for_and_change_no_choice_of_before(cifar10_test: Arrays) -> None:
    arrays = some(cifar10_test, 300)
    plain, full = transform_of(arrays), transform_of(arrays, **EVERYTHING)
    assert [*draws_of(plain, 300).made()] == ["row", "column", "flip"]
    before = transform_of(arrays, contrast=EVERYTHING["contrast"], cutout=EVERYTHING["cutout"])
    expected, found = draws_of(before, 300).made(), draws_of(full, 300).made()
    for name in ("flip", "contrast", "cut_row", "cut_column"):
        assert torch.equal(found[name], expected[name])
    old = {name: value for name, value in plain.to_dict().items() if name not in NEW}
    assert Transform.from_dict(json.loads(json.dumps(old))) == plain  # as older runs stored it
    assert Transform.from_dict(json.loads(json.dumps(full.to_dict()))) == full


def test_choices_are_even_over_their_ranges_and_independent(cifar10_test: Arrays) -> None:
    arrays = some(cifar10_test, 10)
    transform = transform_of(arrays, **EVERYTHING)
    found = draws_of(transform, 20_000).made()
    limits = {"brightness": (-60, 60), "saturation": (0.4, 1.8), "hue": (-0.15, 0.15)}
    limits |= {"angle": (-20, 20), "contrast": (0.6, 1.4)}
    for name, (low, high) in limits.items():
        law = stats.uniform(low, high - low)
        assert stats.kstest(found[name].double().numpy(), law.cdf).pvalue > 0.01, name
    plain = draws_of(dataclasses.replace(transform, translation=0), 20_000)
    shifts = [(found[n] - getattr(plain, n)).numpy() for n in ("row", "column")]
    for shift in shifts:
        assert stats.chisquare(np.bincount(shift, minlength=5)).pvalue > 0.01  # -2 to 2, with pad
    numbers = [found[name].double().numpy() for name in limits]
    numbers += [*shifts, found["share"].numpy(), found["erase_height"].numpy()]
    assert np.abs(np.corrcoef(numbers) - np.eye(len(numbers))).max() < 0.03


@pytest.mark.parametrize("crop", [0.75, 0.66])  # 24 pixels a side, and 21, which no vector divides
def test_choices_and_pictures_are_those_of_an_example_alone(
    cifar10_test: Arrays, crop: float
) -> None:
    """In batches of any size, bit for bit: they are functions of (seed, epoch, position)."""
    transform = transform_of(some(cifar10_test, 130), **EVERYTHING, crop=crop)
    images = torch.from_numpy(cifar10_test.images[:130])
    whole = draws_of(transform, 130)
    expected = transform.train(images, whole)
    for size in (1, 7, 64):
        parts = [draws_of(transform, min(size, 130 - i), start=i) for i in range(0, 130, size)]
        for name, values in whole.made().items():
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), values), name
        pieces = torch.split(images, size)
        found = [transform.train(x, part) for x, part in zip(pieces, parts, strict=True)]
        assert torch.equal(torch.cat(found), expected)
    other = draws_of(transform, 130, epoch=4)
    assert not any(torch.equal(getattr(other, n), values) for n, values in whole.made().items())


def test_the_order_is_the_one_that_is_written_down(cifar10_test: Arrays) -> None:
    """Turn, move, cut out, mirror; brightness, clipped; saturation, hue; erase; contrast."""
    count = 12
    transform = transform_of(some(cifar10_test, count), **EVERYTHING)
    images, draws = cifar10_test.images[:count], draws_of(transform, count)
    pictures = transform.pictures(torch.from_numpy(images), draws).numpy()
    made = {name: values.numpy() for name, values in draws.made().items()}
    assert set(made["flip"]) == {False, True}
    apart = []
    for i, image in enumerate(images):
        row, column = (int(made[name][i]) - 3 for name in ("row", "column"))  # pad and translation
        flip, angle = bool(made["flip"][i]), float(made["angle"][i])
        x = np.rint(turned_window(image, row, column, flip, angle, (24, 24)))
        x = np.rint(np.clip(x + made["brightness"][i], 0, 255))
        for place in np.ndindex(24, 24):
            hue, saturation, value = colorsys.rgb_to_hsv(*(x[place] / 255))
            saturation = min(1.0, saturation * made["saturation"][i])
            x[place] = colorsys.hsv_to_rgb((hue + made["hue"][i]) % 1, saturation, value)
        top, left = made["erase_row"][i], made["erase_column"][i]
        kept = np.ones((24, 24), bool)
        kept[top : top + made["erase_height"][i], left : left + made["erase_width"][i]] = False
        apart.append(np.abs(pictures[i] - 255 * x)[kept].ravel())
        assert kept.all() or (pictures[i] != np.rint(255 * x))[~kept].mean() > 0.9
    levels = np.concatenate(apart)
    assert (levels < 0.501).mean() > 0.999  # where float32 rounds a half, a level more or less
    assert levels.max() < 4
    found = transform.train(torch.from_numpy(images), draws)
    for i, picture in enumerate(pictures.astype(np.float64)):
        means = picture.mean((0, 1))
        expected = (picture - means) * made["contrast"][i] + means  # is not clipped
        expected = (expected - transform.mean) / transform.std
        top, left = made["cut_row"][i], made["cut_column"][i]
        expected[top : top + 3, left : left + 3] = 0
        np.testing.assert_allclose(found[i].permute(1, 2, 0), expected, atol=2e-5)


def test_translation_moves_by_whole_pixels_over_reflected_edges(cifar10_test: Arrays) -> None:
    arrays = some(cifar10_test, 200)
    transform = transform_of(arrays, crop=1.0, pad=0, flip="none", translation=3)
    draws = draws_of(transform, 200)
    pictures = transform.pictures(torch.from_numpy(arrays.images), draws).numpy()
    seen = set()
    wide = np.pad(arrays.images, ((0, 0), (3, 3), (3, 3), (0, 0)), "reflect")
    for i, (row, column) in enumerate(zip(draws.row.tolist(), draws.column.tolist(), strict=True)):
        np.testing.assert_array_equal(pictures[i], wide[i, row : row + 32, column : column + 32])
        seen.add((row, column))
    assert seen == {(row, column) for row in range(7) for column in range(7)}


def feed_of(kind: str, arrays: Arrays, size: int) -> Feed:
    source, shuffle = in_memory(arrays), Shuffle.full(2, len(arrays))
    if kind == "preloaded":
        return Preloaded(arrays, shuffle, batch_size=size)
    if kind == "fed":
        expected = Expected(
            batch_size=size,
            shape=source.shape,
            input_shape=(3, 32, 32),
            classes=10,
            examples=len(arrays),
        )
        return PythonFeed(Fed(from_arrays(arrays, shuffle, size)), expected)
    stream = Stream.extract(source.shards, shuffle, threads=kind == "queued").shuffle()
    return Streamed(stream, batch_size=size)


def test_feeds_and_parts_of_batches_give_what_one_device_sees(cifar10_test: Arrays) -> None:
    """Bit for bit, with images mixed across the parts, and also from a step in the middle on."""
    arrays, size = some(cifar10_test, 200), 33
    transform = transform_of(arrays, **EVERYTHING, scales=((0.0, 0.5), (0.5, 1.0)))
    steps, whole = range(14), Part(0, 1, CPU)  # more than two epochs

    def loaded(kind: str, part: Part, first: int = 0) -> list[tuple[Tensor, Tensor]]:
        with closing(feed_of(kind, arrays, size)) as feed:
            loader = Loader(feed, transform, seed=5, training_steps=14, classes=10)
            return [loader.load(step, part) for step in steps[first:]]

    expected = loaded("preloaded", whole)
    assert {images.shape for images, _ in expected} == {(33, 3, 12, 12), (33, 3, 24, 24)}
    assert {labels.shape for _, labels in expected} == {(33, 10)}
    for kind in ("preloaded", "fed", "queued", "streamed"):
        parts = [loaded(kind, Part(i, 3, CPU)) for i in range(3)]
        joined = [
            tuple(map(torch.cat, zip(*step, strict=True))) for step in zip(*parts, strict=True)
        ]
        for found in (joined, loaded(kind, whole)):
            assert all(map(same, found, expected)), kind
    assert all(map(same, loaded("preloaded", whole, first=9), expected[9:]))


def same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_each_image_is_mixed_with_the_one_before_and_the_first_with_the_last(
    cifar10_test: Arrays,
) -> None:
    arrays = some(cifar10_test, 96)
    transform = transform_of(arrays, cutmix=1.0, flip="none", pad=0, crop=1.0)
    plain = dataclasses.replace(transform, cutmix=0.0)
    feed = feed_of("preloaded", arrays, 48)
    whole = Part(0, 1, CPU)
    mixed, shares = Loader(feed, transform, seed=5, training_steps=2, classes=10).load(1, whole)
    images, labels = Loader(feed, plain, seed=5, training_steps=2).load(1, whole)
    before = images.roll(1, 0)
    assert bool(((mixed == images) | (mixed == before)).all())
    own = (mixed == images).all(1).double().mean((1, 2))
    found = shares.gather(1, labels[:, None])[:, 0]
    different = labels != labels.roll(1)
    torch.testing.assert_close(found[different].double(), own[different], rtol=0, atol=0.02)
    torch.testing.assert_close(shares.sum(1), torch.ones(48))
    assert 0.3 < float(own.mean()) < 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pad": 30, "translation": 2}, "translation: expected pad and translation of at most 31"),
        ({"hue": 0.1, "gray": True}, "expected images of red, green and blue .* found 1 channels"),
        ({"saturation": (0, 1), "gray": True}, "saturation and hue, found 1 channels"),
    ],
)
def test_what_images_cannot_have_is_refused(
    cifar10_test: Arrays, changes: dict[str, Any], message: str
) -> None:
    arrays = some(cifar10_test, 5)
    if changes.pop("gray", False):
        arrays = dataclasses.replace(arrays, images=arrays.images[..., :1])
    with pytest.raises(ConfigError, match=message):
        transform_of(arrays, **changes)
