from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import tfrecord
from deepcnn.data.open import open_dataset
from deepcnn.data.shards import Blocks
from deepcnn.data.source import Memory, Source, held_out, in_memory, relabeled
from deepcnn.errors import DataError
from tests.helpers.own_data import images_of


def test_a_set_in_memory_is_loaded_without_a_copy(cifar10_test: Arrays) -> None:
    again = in_memory(cifar10_test).load()
    assert again.images is cifar10_test.images
    assert again.labels is cifar10_test.labels
    assert again.classes == cifar10_test.classes


def test_sources_of_different_shapes_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "train-1.tfrecords").write_bytes(tfrecord.encode(*images_of(3, 4, 4, 1)))
    (tmp_path / "train-2.tfrecords").write_bytes(tfrecord.encode(*images_of(3, 4, 5, 1)))
    with pytest.raises(DataError, match=r"train-2\.tfrecords: expected images of 4×4×1 .*4×5×1"):
        open_dataset(tmp_path).split("train")
    assert open_dataset(tmp_path).form == "TFRecord"


def test_a_set_larger_than_memory_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = images_of(30, 40, 40, 3)
    (tmp_path / "train.tfrecords").write_bytes(tfrecord.encode(images, labels))
    source = open_dataset(tmp_path).split("train")
    assert len(source.load()) == 30
    pages = {"SC_PHYS_PAGES": 40, "SC_PAGE_SIZE": 4096}  # 164 kB, and the images take 144
    monkeypatch.setattr("os.sysconf", pages.__getitem__)
    with pytest.raises(DataError, match=r"0\.0 GB of images\. .*--feed streamed"):
        source.load()


def test_labels_are_those_of_other_classes_by_name(cifar10_test: Arrays) -> None:
    some = cifar10_test.select(slice(0, 100))
    first, second = (in_memory(some.select(part)) for part in (slice(0, 33), slice(33, 100)))
    source = Source((*first.shards, *second.shards), some.classes)
    assert relabeled(source, some.classes) is source
    more = ("sofa", *some.classes[::-1], "table")
    found = relabeled(source, more)
    assert (found.classes, len(found), found.shape) == (more, 100, (32, 32, 3))
    assert [more[label] for label in found.labels()] == [some.classes[i] for i in some.labels]
    assert np.array_equal(found.load().images, some.images)
    assert [shard.seekable for shard in found.shards] == [True, True]
    assert [shard.name for shard in found.shards] == ["in memory", "in memory"]
    images, labels = next(found.shards[1].blocks(10, 20, 7))  # from anywhere, block by block
    assert np.array_equal(images, some.images[43:50])
    assert [more[label] for label in labels] == [some.classes[i] for i in some.labels[43:50]]
    part = found.select(some.labels == 3)
    assert set(part.labels()) == {more.index("cat")}
    assert np.array_equal(found.first_images(40), some.images[:40])


def test_blocks_of_relabeled_sets_are_those_of_the_set(cifar10_test: Arrays) -> None:
    source = in_memory(cifar10_test.select(slice(0, 50)))
    found = relabeled(source, source.classes[::-1])
    for size, count in ((7, 1), (7, 3), (100, 1)):
        for index in range(count):
            ours = list(found.blocks(size, index=index, count=count))
            theirs = list(source.blocks(size, index=index, count=count))
            for (images, labels), (same, other) in zip(ours, theirs, strict=True):
                assert np.array_equal(images, same)
                assert np.array_equal(labels, 9 - other)


def test_classes_that_are_not_there_are_named(cifar10_test: Arrays) -> None:
    source = in_memory(cifar10_test)
    with pytest.raises(
        DataError, match=r"expected classes among 9, such as 'automobile', found 'airplane' \(1 unk"
    ):
        relabeled(source, source.classes[1:])
    with pytest.raises(DataError, match=r"found 'automobile' \(9 unknown ones\)"):
        relabeled(source, ("airplane",))


def test_labels_outside_of_the_classes_are_refused_before_they_are_changed(
    tmp_path: Path,
) -> None:
    images, labels = images_of(30, 4, 4, 3)
    (tmp_path / "test.tfrecords").write_bytes(tfrecord.encode(images, labels))
    shards = open_dataset(tmp_path).split("test").shards
    found = relabeled(Source(shards, ("a", "b")), ("b", "a"))
    with pytest.raises(DataError, match=r"expected labels 0 to 1, .* found 2 for example 2"):
        found.labels()


def test_the_first_images_come_in_blocks_of_a_size_over_all_files() -> None:
    pixels = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    shards = tuple(
        Memory(Arrays(pixels[a:b], np.zeros(b - a, np.int64), ("a",)))
        for a, b in ((0, 7), (7, 8), (8, 20))
    )
    source = Source(shards, ("a",))
    blocks = [block.ravel().tolist() for block in source.first_blocks(17, 5)]
    assert blocks == [[*range(5)], [*range(5, 10)], [*range(10, 15)], [15, 16]]
    assert [len(block) for block in source.first_blocks(99, 8)] == [8, 8, 4]
    assert source.first_images(9).ravel().tolist() == [*range(9)]


@pytest.mark.parametrize("size", [1, 5, 12, 29, 60, 101])
def test_classes_share_what_is_held_out_by_the_method_of_webster(size: int) -> None:
    """Each next one goes to the class that is largest for what it would have, 2k + 1."""
    classes = np.array([7, 13, 31, 59])
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), classes))
    expected = np.zeros(4, np.int64)
    for _ in range(size):
        expected[np.argmax(classes / (2 * expected + 1))] += 1
    for seed in range(3):
        chosen = held_out(labels, size, choice="stratified", seed=seed)
        assert np.bincount(labels[chosen], minlength=4).tolist() == expected.tolist()


def test_an_error_in_one_file_ends_the_reading_of_others() -> None:
    begun = threading.Event()
    read = 0

    class Slow(Memory):
        def blocks(self, start: int, stop: int, size: int) -> Blocks:
            nonlocal read
            for block in super().blocks(start, stop, min(size, 1)):
                read += 1
                begun.set()
                time.sleep(0.001)
                yield block

    class Bad(Memory):
        def blocks(self, start: int, stop: int, size: int) -> Blocks:
            begun.wait(5)  # in vain where there is but one core: then the other one never begins
            yield from super().blocks(start, stop, size)

    images, labels = np.zeros((5000, 1, 1, 1), np.uint8), np.zeros(5000, np.int64)
    bad = Bad(Arrays(images, labels + 1, ("a", "b")))
    with pytest.raises(DataError, match="expected labels 0 to 0"):
        Source((bad, Slow(Arrays(images, labels, ("a", "b")))), ("a",)).load()
    assert read < 5000
