from __future__ import annotations

import itertools
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepcnn.data.arrays import Arrays
from deepcnn.data.catalog import CIFAR10
from deepcnn.data.convert import FORMS, Form, convert
from deepcnn.data.formats import listings, tfrecord
from deepcnn.data.open import load_dataset, open_dataset
from deepcnn.data.splits import Split
from deepcnn.errors import DataError
from deepcnn.events import Event, Noted, Reading
from tests.helpers.conversion import (
    COUNTS,
    assert_same,
    contents,
    converted,
    load,
    made,
    store_npz,
)
from tests.helpers.shards import FASHION_MNIST

pytestmark = pytest.mark.usefixtures("fast_disk")

ODD_NAMES = (
    *("größe ✓", "a\nb", "c/d", "c\\d", "50%", "%41", "A", "%2541", ".hidden", "dot."),
    *(" space ", "cat", "Cat", "train", "test", "\x00nul", "no example", "{}\u2028"),
)


@pytest.mark.parametrize(("first", "second"), list(itertools.product(FORMS, FORMS)))
def test_round_trips(
    tmp_path: Path, cifar_folder: Path, real: dict[Split, Arrays], first: Form, second: Form
) -> None:
    assert convert(cifar_folder, tmp_path / "a", first) == COUNTS
    assert convert(tmp_path / "a", tmp_path / "b", second) == COUNTS
    assert_same(load(tmp_path / "a"), real)
    assert_same(load(tmp_path / "b"), real)
    convert(tmp_path / "b", tmp_path / "c", "cifar")
    for path in cifar_folder.glob("*.bin"):
        assert (tmp_path / "c" / path.name).read_bytes() == path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize("to", FORMS)
def test_the_same_data_give_the_same_bytes(tmp_path: Path, cifar_folder: Path, to: Form) -> None:
    convert(cifar_folder, tmp_path / "a", to)
    convert(cifar_folder, tmp_path / "b", to)
    convert(tmp_path / "a", tmp_path / "c", to)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")


@pytest.mark.parametrize(
    ("shape", "forms"),
    [
        ((28, 28, 1), ("tfrecord", "npz", "folder", "csv")),
        ((5, 5, 3), ("csv", "npz", "folder")),
        ((5, 7, 3), ("tfrecord", "npz", "folder")),
        ((7, 5, 1), ("tfrecord", "npz", "folder")),
        ((1, 1, 3), ("tfrecord", "npz", "folder")),
        ((4, 3, 2), ("tfrecord", "npz")),
        ((4, 3, 4), ("tfrecord", "npz")),
    ],
)
def test_images_of_any_shape(tmp_path: Path, shape: tuple[int, ...], forms: tuple[Form]) -> None:
    splits: dict[Split, Arrays] = {"train": made(30, *shape), "test": made(11, *shape)}
    before = store_npz(tmp_path / "start", splits)
    for form in (*forms, *forms[::-1]):  # each to the next, and back
        after = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        assert convert(before, after, form) == {"train": 30, "test": 11}
        assert_same(load(after), splits)
        before = after


def test_fashion_mnist(tmp_path: Path) -> None:
    convert(FASHION_MNIST, tmp_path / "npz", "npz")
    found = load(tmp_path / "npz")
    assert [len(arrays) for arrays in found.values()] == [60_000, 10_000]
    for split, arrays in found.items():
        expected = load_dataset(FASHION_MNIST, split)
        assert arrays.classes == tuple("0123456789")
        assert np.array_equal(arrays.images, expected.images)
        assert np.array_equal(arrays.labels, expected.labels)


def test_a_named_set_with_the_original_files(tmp_path: Path, cifar10_folder: Path) -> None:
    root = cifar10_folder.parent
    told: list[Event] = []
    counts = converted(
        *("cifar10", tmp_path / "x", "cifar"), shards=5, data_dir=str(root), emit=told.append
    )
    assert counts == {"train": 50_000, "test": 10_000}
    for file in CIFAR10.files:
        assert (tmp_path / "x" / file.name).read_bytes() == (
            cifar10_folder / file.name
        ).read_bytes()
    assert (tmp_path / "x/batches.meta.txt").read_text().split() == list(CIFAR10.classes)
    reading = [event for event in told if isinstance(event, Reading)]
    assert [event for event in reading if event.done == event.total] == [
        Reading("train", 50_000, 50_000),
        Reading("test", 10_000, 10_000),
    ]
    assert len(reading) > 50
    assert reading == sorted(reading, key=lambda event: (event.what == "test", event.done))


@pytest.mark.parametrize("shards", [1, 3])
def test_shards(tmp_path: Path, real: dict[Split, Arrays], shards: int) -> None:
    store_npz(tmp_path / "start", real)
    many = tuple(f"-{i:05}-of-00003" for i in range(3)) if shards > 1 else ("",)
    expected = {
        "tfrecord": {f"{split}{part}.tfrecords" for split in real for part in many},
        "npz": {f"{split}{part}.npz" for split in real for part in many},
        "csv": {f"{split}{part}.csv" for split in real for part in many},
        "cifar": {
            "test_batch.bin",
            "batches.meta.txt",
            *(f"data_batch_{i + 1}.bin" for i in range(shards)),
            *([f"validation_batch_{i}.bin" for i in (1, 2, 3)] if shards > 1 else []),
            *(["validation_batch.bin"] if shards == 1 else []),
        },
    }
    forms: tuple[Form, ...] = ("tfrecord", "npz", "cifar", "csv")
    for form in forms:
        target = tmp_path / form
        assert convert(tmp_path / "start", target, form, shards=shards) == COUNTS
        names = {path.name for path in target.iterdir()}
        index = {"index.json"} if form == "tfrecord" else set()
        assert names == expected[form] | {"classes.json"} | index
        assert_same(load(target), real)
        parts = open_dataset(target).split("train").shards
        assert [len(part) for part in parts] == ([66, 67, 67] if shards > 1 else [200])


def test_a_shard_for_each_example_and_blocks_across_shards(tmp_path: Path) -> None:
    splits: dict[Split, Arrays] = {"train": made(2500, 2, 3, 1)}
    store_npz(tmp_path / "start", splits)
    convert(tmp_path / "start", tmp_path / "x", "npz", shards=11)
    parts = open_dataset(tmp_path / "x").split("train").shards
    assert {len(part) for part in parts} == {227, 228}
    assert_same(load(tmp_path / "x"), splits)
    convert(tmp_path / "x/train-00000-of-00011.npz", tmp_path / "y", "tfrecord", shards=227)
    first: dict[Split, Arrays] = {"train": splits["train"].select(slice(0, 227))}
    assert_same(load(tmp_path / "y"), first)
    assert {len(part) for part in open_dataset(tmp_path / "y").split("train").shards} == {1}


def test_blocks_and_shards_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits: dict[Split, Arrays] = {"train": made(13, 2, 3, 1)}
    start = store_npz(tmp_path / "start", splits)
    for size, shards in itertools.product([1, 3, 4, 5, 13], [1, 2, 3, 13]):
        monkeypatch.setattr("deepcnn.data.source.BLOCK_BYTES", 6 * size)
        target = tmp_path / f"{size} {shards}"
        convert(start, target, "npz", shards=shards)
        parts = open_dataset(target).split("train").shards
        expected = {1: [13], 2: [6, 7], 3: [4, 4, 5], 13: [1] * 13}[shards]
        assert [len(part) for part in parts] == expected
        assert_same(load(target), splits)


@pytest.mark.parametrize("choice", ["first", "stratified"])
@pytest.mark.parametrize("to", FORMS)
def test_validation_from_train(
    tmp_path: Path, real: dict[Split, Arrays], to: Form, choice: Any
) -> None:
    whole = real["train"]
    start = store_npz(tmp_path / "start", {"train": whole, "test": real["test"]})
    options = {"validation_size": 30, "validation_choice": choice, "validation_seed": 7}
    counts = converted(start, tmp_path / "x", to, **options)
    assert counts == {"train": 170, "validation": 30, "test": 60}
    found = load(tmp_path / "x")
    assert_same({"test": found["test"]}, {"test": real["test"]})
    if choice == "first":
        assert_same(
            found,
            {**real, "train": whole.select(slice(30, None))}
            | {"validation": whole.select(slice(30))},
        )
        return
    place = {image.tobytes(): i for i, image in enumerate(whole.images)}
    train, validation = (
        [place[image.tobytes()] for image in found[split].images]
        for split in ("train", "validation")
    )
    assert train == sorted(train)
    assert validation == sorted(validation) != list(range(30))
    assert sorted(train + validation) == list(range(200))
    share = np.bincount(found["validation"].labels, minlength=10)
    assert np.abs(share - np.bincount(whole.labels, minlength=10) * 30 / 200).max() <= 1
    converted(start, tmp_path / "other", to, **{**options, "validation_seed": 8})
    assert contents(tmp_path / "other") != contents(tmp_path / "x")


@pytest.mark.parametrize("to", FORMS)
def test_names_of_classes(tmp_path: Path, to: Form) -> None:
    arrays = made(170, 32, 32, 3, classes=ODD_NAMES)
    without = arrays.select(arrays.labels != ODD_NAMES.index("no example"))
    splits: dict[Split, Arrays] = {"train": without, "test": without.select(slice(0, 3))}
    start = store_npz(tmp_path / "start", splits)
    convert(start, tmp_path / "x", to)
    assert_same(load(tmp_path / "x"), splits)
    convert(tmp_path / "x", tmp_path / "y", "npz")
    assert_same(load(tmp_path / "y"), splits)
    assert json.loads((tmp_path / "x/classes.json").read_bytes()) == list(ODD_NAMES)
    assert "größe ✓".encode() in (tmp_path / "x/classes.json").read_bytes()
    assert not (tmp_path / "x/batches.meta.txt").exists()
    if to == "folder":
        assert (tmp_path / "x/train/a%0Ab/003.png").is_file() == (without.labels[3] == 1)
        used = {listings.folder_name(ODD_NAMES[label]) for label in without.labels}
        assert {path.name for path in (tmp_path / "x/train").iterdir()} == used


def test_large_pictures_are_as_they_were_with_their_size(tmp_path: Path) -> None:
    splits: dict[Split, Arrays] = {"train": made(3, 20, 150, 3)}
    start = store_npz(tmp_path / "start", splits)
    told: list[Event] = []
    convert(start, tmp_path / "x", "folder", emit=told.append)
    notes = [event.text for event in told if isinstance(event, Noted)]
    assert len(notes) == 1
    assert "above 128 are scaled down" in notes[0]
    assert "20 by 150" in notes[0]
    assert load_dataset(tmp_path / "x", "train").shape == (17, 128, 3)
    sized = load_dataset(tmp_path / "x", "train", image_size=(20, 150))
    assert np.array_equal(sized.images, splits["train"].images)
    converted(tmp_path / "x", tmp_path / "y", "npz", image_size=(20, 150))
    assert_same(load(tmp_path / "y"), splits)


def test_bad_pictures_are_left_out_and_told_once(tmp_path: Path, cifar_folder: Path) -> None:
    convert(cifar_folder, tmp_path / "x", "folder")
    bad = sorted((tmp_path / "x/train").rglob("*.png"), key=lambda path: path.name)[5]
    bad.write_bytes(bad.read_bytes()[:-100])
    with pytest.raises(DataError, match="--skip-bad"):
        convert(tmp_path / "x", tmp_path / "y", "tfrecord")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    told: list[Event] = []
    counts = converted(tmp_path / "x", tmp_path / "y", "npz", skip_bad=True, emit=told.append)
    assert counts == {**COUNTS, "train": 199}
    (note,) = [event.text for event in told if isinstance(event, Noted)]
    assert note.startswith(f"left out {bad}: ")


@pytest.mark.parametrize(
    ("shape", "count", "forms"),
    [
        ((32, 32, 3), 4000, ("tfrecord", "npz", "cifar", "csv")),
        ((512, 512, 3), 16, ("tfrecord", "npz", "folder")),
    ],
)
def test_memory_is_bounded(
    tmp_path: Path, shape: tuple[int, int, int], count: int, forms: tuple[Form]
) -> None:
    """Five shards, in all 60 MB, are one file under five names."""
    (tmp_path / "start").mkdir()
    images = np.arange(count * np.prod(shape), dtype=np.uint32).astype(np.uint8)
    labels = np.arange(count, dtype=np.int64) % 10
    first = tmp_path / "start/train-0.tfrecords"
    first.write_bytes(tfrecord.encode(images.reshape(count, *shape), labels))
    assert 5 * first.stat().st_size > 60e6
    for i in range(1, 5):
        os.link(first, tmp_path / f"start/train-{i}.tfrecords")
    (tmp_path / "start/classes.json").write_text(json.dumps(CIFAR10.classes))
    del images
    for form in forms:
        tracemalloc.start()
        try:
            assert convert(tmp_path / "start", tmp_path / form, form) == {"train": 5 * count}
            assert tracemalloc.get_traced_memory()[1] < 20e6
        finally:
            tracemalloc.stop()
