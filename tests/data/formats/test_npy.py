"""Images and labels in .npy files of their own, as numpy.save writes them."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import deepcnn
from deepcnn.data.formats import npy
from deepcnn.data.formats.npz import NpzShard
from deepcnn.data.splits import SPLITS
from deepcnn.errors import DataError
from deepcnn.events import Event, Noted
from tests.helpers.shards import RANGES, check_early_closing, examples, read

IMAGES, LABELS = examples(7, 5, 4, 3)


def save(folder: Path, **arrays: NDArray[Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    return folder


def opened(folder: Path) -> NpzShard:
    dataset = deepcnn.open_dataset(folder)
    (shard,) = dataset.split(dataset.own_splits[0]).shards
    assert isinstance(shard, NpzShard)
    return shard


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_any_range_of_what_numpy_saved(tmp_path: Path, channels: int) -> None:
    images, labels = examples(7, *(5, 4, channels)[: 3 if channels else 2])
    shard = opened(save(tmp_path, images=images, labels=labels % 3))
    assert (len(shard), shard.shape, shard.seekable) == (7, (5, 4, channels or 1), True)
    for start, stop, size in RANGES:
        some, numbers = read(shard, start, stop, size)
        assert np.array_equal(some, images[start:stop].reshape(-1, *shard.shape))
        assert np.array_equal(numbers, labels[start:stop] % 3)


@pytest.mark.parametrize(
    "names",
    [
        ("{}_images", "{}_labels", "val"),
        ("x_{}", "y_{}", "validation"),
        ("X_{}", "y_{}", "val"),
    ],
)
def test_splits_by_the_names_that_people_give(tmp_path: Path, names: tuple[str, str, str]) -> None:
    of_images, of_labels, validation = names
    for i, split in enumerate(("train", validation, "test")):
        arrays = {of_images.format(split): IMAGES[i:] / 255, of_labels.format(split): LABELS[i:]}
        save(tmp_path, **arrays)
    save(tmp_path, classes=np.array([f"number {i}" for i in range(256)]), mean=IMAGES.mean(0))
    heard: list[Event] = []
    data = deepcnn.open_dataset(tmp_path, emit=heard.append)
    assert data.own_splits == ("train", "validation", "test")
    assert data.classes[255] == "number 255"
    for i, split in enumerate(SPLITS[:3]):
        found = data.split(split).load()
        assert np.array_equal(found.images, IMAGES[i:])
        assert np.array_equal(found.labels, LABELS[i:])
    said = [event.text for event in heard if isinstance(event, Noted)]
    assert said[0] == f"{tmp_path}: left out mean.npy: arrays that are no images with labels"
    assert "float64 values of 0 to 1; read as uint8" in said[1]


def test_labels_may_be_one_hot_or_a_column(tmp_path: Path) -> None:
    column = save(tmp_path / "column", images=IMAGES, labels=(LABELS % 3)[:, None])
    one_hot = save(tmp_path / "one_hot", images=IMAGES, labels=np.eye(3)[LABELS % 3])
    for folder in (column, one_hot):
        assert read(opened(folder))[1].tolist() == (LABELS % 3).tolist()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"images": IMAGES}, "expected images.npy and labels.npy, or .* found images.npy. Rename"),
    ({"x_train": IMAGES, "y_test": LABELS}, "found x_train.npy, y_test.npy. Rename"),
    (
        {"images": IMAGES, "labels": LABELS, "x_train": IMAGES, "y_train": LABELS},
        "found x_train.npy and images.npy, each of which may be meant",
    ),
    (
        {"train_images": IMAGES, "train_labels": LABELS, "x_train": IMAGES, "y_train": LABELS},
        "found train_images.npy and x_train.npy, each of which may be meant",
    ),
    ({"images": IMAGES, "labels": LABELS[1:]}, r"labels 'labels' as integers \[7\]"),
    ({"images": IMAGES, "labels": np.array([*"abcdefg"])}, "found <U1"),
    (
        {"images": IMAGES.astype(object), "labels": LABELS},
        "images.npy: expected plain values, found object, Python objects, which are pickles",
    ),
    ({"images": np.asfortranarray(IMAGES), "labels": LABELS}, "Fortran's order"),
    ({"images": IMAGES - 300.0, "labels": LABELS}, "values of 0 to 1 or 0 to 255"),
]


@pytest.mark.parametrize(("arrays", "message"), REFUSED, ids=[text for _, text in REFUSED])
def test_what_does_not_belong_together_is_refused(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        opened(save(tmp_path, **arrays))


def test_arrays_beside_an_archive_of_arrays_are_refused_and_others_are_not(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", images=IMAGES, labels=LABELS)
    save(tmp_path, mean=IMAGES.mean(0))
    assert len(opened(tmp_path)) == 7
    save(tmp_path, images=IMAGES, labels=LABELS)
    with pytest.raises(DataError, match=r"found images.npy and train.npz, each of which"):
        deepcnn.open_dataset(tmp_path)
    with pytest.raises(DataError, match="give the folder of both"):
        deepcnn.open_dataset(tmp_path / "images.npy")


def lying(content: bytes) -> bytes:
    return content.replace(b"(7, 5, 4, 3)", b"(9, 9, 9, 3)")


DAMAGES: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda content: content[:-1], "declares uint8 .* found 547. The file is damaged"),
    (lambda content: content + b"!", "declares uint8 .* found 549. The file is damaged"),
    (lambda content: content[:60], "cannot be read as one"),
    (lambda _: b"", "cannot be read as one"),
    (lambda content: b"PK" + content, "cannot be read as one"),
    (lying, r"declares uint8 \[9, 9, 9, 3\]"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[text for _, text in DAMAGES])
def test_a_damaged_file_is_named(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    save(tmp_path, images=IMAGES, labels=LABELS)
    buffer = io.BytesIO()
    np.save(buffer, IMAGES)
    (tmp_path / "images.npy").write_bytes(damage(buffer.getvalue()))
    with pytest.raises(DataError, match=f"{tmp_path}/images.npy: .*{message}"):
        opened(tmp_path)


def test_files_that_change_or_go_away_after_they_were_opened(tmp_path: Path) -> None:
    shard = opened(save(tmp_path, images=IMAGES, labels=LABELS))
    path = tmp_path / "images.npy"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="ends 10 bytes before the end of an array"):
        read(shard)
    path.unlink()
    with pytest.raises(DataError, match=r"images\.npy: cannot be read"):
        read(shard)


def test_closing_early_closes_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, images=IMAGES, labels=LABELS)
    check_early_closing(lambda: opened(tmp_path), monkeypatch)


def test_images_are_read_in_blocks_and_never_whole(tmp_path: Path) -> None:
    images = np.zeros((2000, 64, 64, 3), np.uint8)
    shard = opened(save(tmp_path, images=images, labels=np.zeros(2000, int)))

    tracemalloc.start()
    try:
        for _ in shard.blocks(0, 2000, 10):
            pass
        assert tracemalloc.get_traced_memory()[1] < images.nbytes // 20
    finally:
        tracemalloc.stop()


def test_only_arrays_are_taken_for_arrays(tmp_path: Path) -> None:
    assert npy.recognize(tmp_path, ["a.png", "b.txt"]) == {}
