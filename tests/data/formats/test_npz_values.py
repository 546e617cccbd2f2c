"""Arrays as people have them: floats, one-hot labels; and several sets of MNIST's form together."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepcnn.data.convert import convert
from deepcnn.data.formats import idx
from deepcnn.data.open import load_dataset, open_dataset
from deepcnn.errors import DataError
from deepcnn.events import Event, Noted
from tests.helpers.shards import RANGES, examples, read

IMAGES, LABELS = examples(7, 5, 4, 3)
IMAGES[0, 0, 0] = 0, 255, 1


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("images", "said"),
    [
        (IMAGES / 255, "float64 values of 0 to 1; read as uint8, times 255 and rounded"),
        ((IMAGES / 255).astype("<f2"), "float16 values of 0 to 1"),
        ((IMAGES / np.float32(255)).astype(">f4"), ">f4 values of 0 to 1"),
        (IMAGES.astype(np.float32), "float32 values of 0 to 255; read as uint8, rounded"),
        (IMAGES.astype(np.int64), "int64, whole numbers of 0 to 255"),
    ],
)
def test_images_of_other_numbers_become_bytes_by_the_rule(
    tmp_path: Path, save: Any, images: Any, said: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    save(data / "train.npz", images=images, labels=LABELS)
    heard: list[Event] = []
    (shard,) = open_dataset(data, emit=heard.append).split("train").shards
    for start, stop, size in RANGES:
        assert np.array_equal(read(shard, start, stop, size)[0], IMAGES[start:stop])
    (note,) = [event.text for event in heard if isinstance(event, Noted)]
    assert note.startswith(f"{data}/train.npz: 'images': {said}")
    convert(str(data), tmp_path / "again", "npz")
    assert np.array_equal(load_dataset(tmp_path / "again", "train").images, IMAGES)


def test_booleans_and_halves(tmp_path: Path) -> None:
    mask = IMAGES[..., 0] > 99
    np.savez(tmp_path / "train.npz", images=mask, labels=LABELS)
    assert np.array_equal(load_dataset(tmp_path, "train").images[..., 0], np.where(mask, 255, 0))
    halves = np.array([0.5, 1.5, 2.5, 254.5]).reshape(1, 2, 2)
    np.savez(tmp_path / "train.npz", images=halves, labels=[0])
    assert load_dataset(tmp_path, "train").images.ravel().tolist() == [0, 2, 2, 254]


@pytest.mark.parametrize(
    ("value", "found"),
    [(-0.1, r"-0\.1 to"), (255.5, r"to 255\.5"), (np.nan, "nan to nan"), (np.inf, "to inf")],
)
def test_values_that_are_no_pixels_are_refused(tmp_path: Path, value: float, found: str) -> None:
    images = IMAGES / 255
    images[6, 4, 3, 2] = value
    np.savez(tmp_path / "train.npz", images=images, labels=LABELS)
    with pytest.raises(DataError, match=rf"train\.npz: 'images': expected float64 .*{found}"):
        load_dataset(tmp_path, "train")


@pytest.mark.parametrize("kind", [float, np.float32, np.uint8, bool])
def test_one_hot_labels(tmp_path: Path, kind: Any) -> None:
    np.savez(tmp_path / "train.npz", x_train=IMAGES, y_train=np.eye(10, dtype=kind)[LABELS])
    found = load_dataset(tmp_path, "train")
    assert found.labels.tolist() == LABELS.tolist()
    assert len(found.classes) == LABELS.max() + 1


@pytest.mark.parametrize("row", [[0, 0, 0], [1, 1, 0], [0.5, 0.5, 0], [2, 0, 0], [np.nan, 1, 0]])
def test_rows_that_are_not_one_hot_are_named(tmp_path: Path, row: list[float]) -> None:
    labels = np.eye(3)[LABELS % 3]
    labels[5] = row
    np.savez(tmp_path / "train.npz", images=IMAGES, labels=labels)
    with pytest.raises(DataError, match=r"'labels' of shape \[7, 3\] as one-hot.*for example 5"):
        load_dataset(tmp_path, "train")


def test_arrays_alone_are_told_how_to_be_written(tmp_path: Path) -> None:
    np.save(tmp_path / "x_train.npy", IMAGES)
    with pytest.raises(DataError, match=r"expected images\.npy .*found x_train\.npy"):
        open_dataset(tmp_path)


def test_several_pairs_as_emnist_has_them_are_told_apart_by_name(tmp_path: Path) -> None:
    for name, part in (("digits", slice(0, 4)), ("letters", slice(4, 7))):
        for split in ("train", "test"):
            start = tmp_path / f"emnist-{name}-{split}"
            for kind, content in (
                ("images-idx3", idx.encode_images(IMAGES[part, :, :, :1])),
                ("labels-idx1", idx.encode_labels(LABELS[part])),
            ):
                path = start.with_name(f"{start.name}-{kind}-ubyte.gz")
                path.write_bytes(gzip.compress(content))
    with pytest.raises(
        DataError,
        match=r"one set, found those of emnist-digits, emnist-letters\. .*--data .*/emnist-digits$",
    ):
        open_dataset(tmp_path)
    found = open_dataset(tmp_path / "emnist-letters")
    assert found.own_splits == ("train", "test")
    assert found.split("test").load().labels.tolist() == LABELS[4:].tolist()
    with pytest.raises(DataError, match="found those of emnist-digits, emnist-letters"):
        open_dataset(tmp_path / "emnist")
    with pytest.raises(DataError, match="which is neither"):
        open_dataset(tmp_path / "mnist-letters")
