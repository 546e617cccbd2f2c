from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepcnn.data.shards import Blocks
from deepcnn.data.source import Memory, Source
from deepcnn.reports import pictures
from tests.reports.subjects import ANIMALS, subject


def answers(classes: int, examples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, examples)
    chances = generator.dirichlet([0.3] * classes, examples).astype(np.float32)
    return labels, chances.argmax(1), chances


def test_each_cell_shows_its_worst_first_and_no_more_than_may_be() -> None:
    labels, predicted, chances = answers(10, 5000)
    chosen = pictures.choose(labels, predicted, chances)
    assert sum(map(len, chosen.cells.values())) == pictures.IN_ALL
    assert len(chosen.cells) == 100  # every one shows something
    surest = chances.max(1)
    for (given, label), members in chosen.cells.items():
        assert len(members) <= pictures.IN_A_CELL
        inside = np.flatnonzero((labels == given) & (predicted == label))
        sign = 1 if given == label else -1
        expected = inside[np.argsort(sign * surest[inside], kind="stable")][: len(members)]
        assert members == expected.tolist()


def test_a_small_split_shows_twelve_of_each_cell() -> None:
    labels, predicted, chances = answers(3, 300)
    chosen = pictures.choose(labels, predicted, chances)
    assert {len(members) for members in chosen.cells.values()} == {12}


def test_the_gallery_has_the_surest_mistakes() -> None:
    labels, predicted, chances = answers(5, 400)
    wrong = np.flatnonzero(predicted != labels)
    expected = wrong[np.argsort(-chances.max(1)[wrong], kind="stable")][: pictures.MISTAKES]
    assert pictures.choose(labels, predicted, chances).mistakes == expected.tolist()
    all_right = pictures.choose(predicted, predicted, chances)
    assert all_right.mistakes == []


def test_pictures_stop_where_there_is_no_more_room(tmp_path: Path) -> None:
    about = subject(tmp_path)
    seen = pictures.look(about.source, about.answered, list(range(50)))
    whole = pictures.in_base64(seen, list(range(50)))
    assert list(whole) == list(range(50))
    first = sum(len(whole[index]) for index in range(20))
    assert list(pictures.in_base64(seen, list(range(50)), first)) == list(range(20))
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(whole[7]))))
    images, _ = next(about.source.blocks())
    assert (image == images[7]).all()


@dataclasses.dataclass(frozen=True)
class OtherBlocks(Memory):
    """The same examples in blocks of 7."""

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        yield from super().blocks(start, stop, min(size, 7))


def test_a_split_is_known_by_its_content_however_it_is_read(tmp_path: Path) -> None:
    about = subject(tmp_path)
    (shard,) = about.source.shards
    assert isinstance(shard, Memory)
    images, labels = shard.arrays.images, shard.arrays.labels
    seen = pictures.look(about.source, about.answered, [3, 299])
    expected = hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()
    assert seen.sha256 == expected
    other = Source((OtherBlocks(shard.arrays),), ANIMALS)
    again = pictures.look(other, about.answered, [3, 299])
    assert again.sha256 == expected
    assert again.doubts == seen.doubts
    assert about.answered.calibration is not None
    assert seen.doubts == about.answered.calibration.doubts(images, about.answered.logits)
    assert set(seen.doubts) == {None, "error", "unknown"}
    assert {index: p.tolist() for index, p in again.pixels.items()} == {
        index: images[index].tolist() for index in (3, 299)
    }


def test_a_sheet_lays_images_out_in_rows() -> None:
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), np.uint8)
    made = pictures.sheet(images, 3, ground=9)
    assert made.shape == (5, 11, 1)
    assert made[0, :, 0].tolist() == [0, 0, 0, 9, 1, 1, 1, 9, 2, 2, 2]
    assert made[3, :, 0].tolist() == [3, 3, 3, 9, 4, 4, 4, 9, 9, 9, 9]


def test_values_are_brought_to_what_a_screen_shows() -> None:
    values = np.array([[-1.0, 0.0, 3.0]], np.float32).reshape(1, 1, 3, 1)
    assert pictures.for_display(values).flatten().tolist() == [0, 64, 255]
    assert pictures.for_display(values, around_zero=True).flatten().tolist() == [85, 128, 255]
    assert pictures.for_display(np.zeros((1, 2, 2, 1), np.float32)).tolist() == [[[[128]] * 2] * 2]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_data_uri_holds_the_very_pixels(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 4, channels), dtype=np.uint8)
    head, content = pictures.data_uri(image).split(",")
    assert head == "data:image/png;base64"
    read = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert (read.reshape(image.shape) == image).all()
