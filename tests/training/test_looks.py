"""What is told from a set's images: whether they may be mirrored, whether they are mostly blank."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.training.looks import SEEN, may_mirror, mostly_blank, some_of


def drawn(texts: str, count: int, side: int = 24, *, turned: bool = False) -> Arrays:
    """Draw so many images of each text, moved and blurred a little; perhaps half of them turned."""
    rng = np.random.default_rng(0)
    font = ImageFont.load_default(size=side * 2 // 3)
    labels = np.arange(count * len(texts)) % len(texts)
    images = np.empty((len(labels), side, side, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        picture = Image.new("L", (side, side))
        x, y = side / 2 + rng.uniform(-side / 12, side / 12, 2)
        ImageDraw.Draw(picture).text((x, y), texts[label], font=font, fill=200, anchor="mm")
        pixels = np.asarray(picture) + rng.integers(0, 56, (side, side))
        image[..., 0] = pixels[:, ::-1] if turned and rng.random() < 0.5 else pixels
    return Arrays(images, labels.astype(np.int64), tuple(texts))


def test_letters_that_read_otherwise_in_the_mirror_are_not_mirrored() -> None:
    assert not may_mirror(drawn("bdpq", 40))


def test_letters_that_are_their_own_mirror_images_are_mirrored() -> None:
    assert may_mirror(drawn("AHOTX", 40))


def test_letters_of_which_half_are_turned_over_are_mirrored() -> None:
    assert may_mirror(drawn("FGLR", 60, turned=True))


@pytest.mark.parametrize(("count", "allowed"), [(6, True), (12, False)])
def test_what_few_examples_leave_open_is_mirrored(count: int, allowed: bool) -> None:
    """All mirror images are like the other class: that is 2.4 deviations of 6, and 3.5 of 12."""
    images = np.zeros((count, 9, 9, 1), np.uint8)
    images[::2, :, :3] = 200
    images[1::2, :, 6:] = 200
    assert may_mirror(Arrays(images, np.arange(count) % 2, ("left", "right"))) is allowed


@pytest.mark.parametrize("side", [8, 70, 100])
def test_images_of_any_size_are_compared(side: int) -> None:
    assert not may_mirror(drawn("bd", 40, side))


def test_images_of_one_colour_tell_nothing() -> None:
    blank = Arrays(np.full((50, 9, 9, 3), 7, np.uint8), np.arange(50) % 5, tuple("abcde"))
    assert may_mirror(blank)


def test_drawings_are_mostly_blank_and_noise_is_not() -> None:
    drawn_on_white = np.full((9, 20, 20, 3), 255, np.uint8)
    drawn_on_white[:, 5:15, 5:15] -= 2  # a scan's white is not quite white
    drawn_on_white[:, 8:12] = 0
    labels = np.zeros(9, np.int64)
    assert mostly_blank(Arrays(drawn_on_white, labels, ("a",)))
    noise = np.random.default_rng(0).integers(0, 256, (9, 20, 20, 3)).astype(np.uint8)
    assert not mostly_blank(Arrays(noise, labels, ("a",)))
    half = drawn_on_white.copy()
    half[:, 8:16] = 0
    assert not mostly_blank(Arrays(half, labels, ("a",)))


def test_a_look_is_spread_evenly_over_a_set() -> None:
    count = 3 * SEEN
    images = np.zeros((count, 1, 1, 1), np.uint8)
    few = some_of(in_memory(Arrays(images, np.arange(count), tuple(map(str, range(count))))))
    assert len(few) == SEEN
    assert few.labels[0] == 0
    assert few.labels[-1] == count - 1
    assert np.diff(few.labels).max() <= 4
