from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepcnn.data.arrays import Arrays
from deepcnn.data.dataset import Dataset
from deepcnn.data.layouts import Layout
from deepcnn.data.open import load_dataset
from deepcnn.data.shards import Blocks, Shape, Shard
from deepcnn.data.source import Memory
from deepcnn.data.splits import SPLITS, Split
from deepcnn.errors import ConfigError, DataError
from deepcnn.settings import DataSpec
from tests.helpers.own_data import images_of


def test_validation_is_held_out_by_class_and_always_the_same(cifar10_folder: Path) -> None:
    root = cifar10_folder.parent
    train, held_out, again = (
        load_dataset("cifar10", split, validation_size=5000, data_dir=root)
        for split in ("train", "validation", "validation")
    )
    assert len(train) == 45_000
    assert np.bincount(held_out.labels).tolist() == [500] * 10
    assert np.array_equal(held_out.images, again.images)
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in held_out.images)


def test_without_validation_split_it_says_how_to_get_one() -> None:
    with pytest.raises(DataError, match="--validation-size 5000"):
        load_dataset("synthetic", "validation")
    with pytest.raises(ConfigError, match="validation_size: expected at least 0, found -1"):
        load_dataset("synthetic", "train", validation_size=-1)
    with pytest.raises(DataError, match="expected 0 to 8191, found 8192"):
        load_dataset("synthetic", "train", validation_size=8192)


def test_the_held_out_split_follows_its_seed_and_choice() -> None:
    def held(**settings: Any) -> bytes:
        found = load_dataset("synthetic", "validation", validation_size=100, **settings)
        assert len(found) == 100
        return found.images.tobytes()

    assert held() == held(validation_seed=0) != held(validation_seed=1)
    first = load_dataset("synthetic", "train").images[:100].tobytes()
    assert held(validation_choice="first") == first


# Layouts made by hand tell what is opened, and how often.


def made(count: int, shape: Shape = (4, 4, 3), *, classes: int = 3) -> Arrays:
    images, labels = images_of(count, *shape, classes=classes)
    return Arrays(images, labels, tuple(map(str, range(classes))))


@dataclasses.dataclass
class Shelf:
    """A shard that keeps a list of what was read of it: (start, stop)."""

    arrays: Arrays
    name: str
    reads: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    seekable: bool = True

    @property
    def shape(self) -> Shape:
        return self.arrays.shape

    def __len__(self) -> int:
        return len(self.arrays)

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        self.reads.append((start, stop))
        yield from Memory(self.arrays).blocks(start, stop, size)


class Opened:
    """A data set of these splits that keeps a list of those that were opened."""

    def __init__(self, **splits: Arrays) -> None:
        self.shelves = {
            split: Shelf(arrays, f"set/{split}.bin") for split, arrays in splits.items()
        }
        self.log: list[str] = []

    def dataset(
        self, *, classes: tuple[str, ...] | None = tuple("012"), validation_size: int = 0
    ) -> Dataset:
        openers = {split: partial(self._open, split) for split in SPLITS if split in self.shelves}
        spec = DataSpec(data="set", validation_size=validation_size)
        return Dataset(spec, Layout(Path("set"), "made", openers, classes))

    def _open(self, split: Split) -> tuple[Shard, ...]:
        self.log.append(split)
        return (self.shelves[split],)


def test_each_split_is_opened_when_it_is_asked_for_and_once() -> None:
    opened = Opened(train=made(9), test=made(6), validation=made(3))
    dataset = opened.dataset()
    assert dataset.own_splits == dataset.splits == ("train", "validation", "test")
    assert opened.log == []
    assert dataset.split("train") is dataset.split("train")
    assert opened.log == ["train"]
    dataset.split("test")
    assert dataset.counts("test").tolist() == [2, 2, 2]
    held_out = dataset.hold_out(3)
    assert [len(held_out.split(split)) for split in ("train", "validation", "test")] == [6, 3, 6]
    assert len(dataset.split("train")) == 9
    assert opened.log == ["train", "test"]


def test_what_is_held_out_is_a_split_even_where_the_set_has_its_own() -> None:
    for own in ({}, {"validation": made(3)}):
        dataset = Opened(train=made(30), test=made(6), **own).dataset(validation_size=6)
        assert dataset.own_splits == ("train", *own, "test")
        assert dataset.splits == ("train", "validation", "test")
        assert dataset.counts("train").tolist() == [8, 8, 8]
        assert dataset.counts("validation").tolist() == [2, 2, 2]


def test_a_split_that_is_not_there_is_answered_with_those_that_are() -> None:
    dataset = Opened(train=made(9)).dataset()
    with pytest.raises(
        DataError, match=r"^set: made: expected a test split, found only train\. .*: --split train$"
    ):
        dataset.split("test")
    with pytest.raises(DataError, match=r"no validation split \(found: train\); .*-size 5000$"):
        dataset.split("validation")
    with pytest.raises(DataError, match="expected train, validation, test, extra, found 'dev'"):
        dataset.split("dev")  # type: ignore[arg-type]
    only_test = Opened(test=made(6)).dataset(validation_size=2)  # of which none can be held out
    for split in ("train", "validation"):
        with pytest.raises(
            DataError, match=r"expected a train split, found only test\. .*: --split test$"
        ):
            only_test.split(split)


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("shape", [(4, 5, 3), (5, 4, 3), (4, 4, 1)])
def test_a_split_with_images_of_another_shape_is_refused_naming_both_files(
    split: Split, shape: tuple[int, int, int]
) -> None:
    dataset = Opened(train=made(9), **{split: made(3, shape)}).dataset()
    found = "×".join(map(str, shape))
    with pytest.raises(
        DataError,
        match=rf"^set/{split}\.bin: expected images of 4×4×3, as the train split has in "
        rf"set/train\.bin, found {found} in the {split} split\. Bring both",
    ):
        dataset.split(split)


def test_classes_that_nobody_names_are_numbered_up_to_the_largest_label_for_training() -> None:
    dataset = Opened(train=made(9), test=made(8, classes=4)).dataset(classes=None)
    assert dataset.classes == ("0", "1", "2")
    assert dataset.split("test").classes == ("0", "1", "2")
    with pytest.raises(
        DataError, match=r"set/test\.bin: expected labels 0 to 2, .*, found 3 for example 3"
    ):
        dataset.counts("test")


@pytest.mark.parametrize("keep", [True, False])
def test_a_split_that_was_read_whole_is_not_read_again_for_its_labels(keep: bool) -> None:
    opened = Opened(train=made(9), test=made(6000))
    dataset = opened.dataset()
    heard: list[tuple[int, int]] = []
    whole = dataset.read_whole(
        "test", keep=keep, progress=lambda done, total: heard.append((done, total))
    )
    assert heard[-1] == (6000, 6000)
    assert dataset.counts("test").tolist() == [2000] * 3
    assert dataset.split("test") is whole
    assert np.array_equal(whole.load().images, made(6000).images)
    assert opened.shelves["test"].reads == [(0, 6000)] * (1 if keep else 2)


@pytest.mark.parametrize("keep", [True, False])
def test_reading_a_split_whole_finds_a_label_that_is_no_class(keep: bool) -> None:
    labels = np.zeros(6000, np.int64)
    labels[4321] = 3
    wrong = Arrays(np.zeros((6000, 4, 4, 3), np.uint8), labels, tuple("0123"))
    dataset = Opened(train=made(9), test=wrong).dataset()
    with pytest.raises(
        DataError, match=r"set/test\.bin: expected labels 0 to 2, .* found 3 for example 4321"
    ):
        dataset.read_whole("test", keep=keep, progress=lambda *_: None)


# The digest of a split's content


def crc32c(content: bytes) -> int:
    """Compute CRC-32C by its definition (RFC 3720, appendix B.4), bit by bit."""
    found = 0xFFFFFFFF
    for byte in content:
        found ^= byte
        for _ in range(8):
            found = found >> 1 ^ (0x82F63B78 if found & 1 else 0)
    return found ^ 0xFFFFFFFF


def of_parts(arrays: Arrays, edges: list[int], **spec: Any) -> Dataset:
    def shards() -> tuple[Shard, ...]:
        parts = zip([0, *edges], [*edges, len(arrays)], strict=True)
        return tuple(Memory(arrays.select(slice(a, b))) for a, b in parts)

    layout = Layout(Path("set"), "made", {"train": shards}, arrays.classes)
    return Dataset(DataSpec(data="made", **spec), layout)


def test_the_digest_is_that_of_all_pixels_and_labels_however_they_lie() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # as the RFC has it
    arrays = made(20)
    expected = crc32c(arrays.images.tobytes() + arrays.labels.astype("<i8").tobytes())
    for edges in ([], [7], [3, 4, 19]):
        assert of_parts(arrays, edges).content("train") == f"crc32c {expected:08x}"


def test_any_other_pixel_label_or_order_gives_another_digest() -> None:
    arrays = made(20)
    found = {of_parts(arrays, []).content("train")}
    images, labels = arrays.images.copy(), arrays.labels.copy()
    images[19, 3, 3, 2] ^= 1
    labels[0] = (labels[0] + 1) % 3
    swapped = np.r_[3, 1, 2, 0, 4:20]  # 0 and 3 are of one class
    assert arrays.labels[3] == arrays.labels[0]
    for changed in (
        Arrays(images, arrays.labels, arrays.classes),
        Arrays(arrays.images, labels, arrays.classes),
        arrays.select(swapped),
    ):
        found.add(of_parts(changed, []).content("train"))
    assert len(found) == 4


def test_what_is_held_out_is_told_together_with_what_it_is_taken_from() -> None:
    arrays = made(20)
    whole = of_parts(arrays, [5]).content("train")
    held_out = of_parts(arrays, [5], validation_size=6)
    assert held_out.content("validation") == held_out.content("train") == whole
    in_memory = of_parts(arrays, [5], validation_size=6)
    in_memory.read_whole("train", keep=True, progress=lambda *_: None)
    assert in_memory.content("train") == whole
