"""Tables of labels as people have them: lists of paths, splits in a column, Kaggle's downloads."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import deepcnn
from deepcnn.data.open import open_dataset
from deepcnn.errors import DataError
from deepcnn.events import Event, Noted
from tests.helpers import foreign
from tests.helpers.pictures import ANY, write


def table(path: Path, rows: list[list[object]], delimiter: str = ",") -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)


def notes(heard: list[Event]) -> list[str]:
    return [event.text for event in heard if isinstance(event, Noted)]


@pytest.mark.parametrize(("name", "delimiter"), [("list.csv", ","), ("pets.tsv", "\t")])
def test_a_list_of_paths_with_labels_and_splits(tmp_path: Path, name: str, delimiter: str) -> None:
    names = [foreign.NAMES[label] for label in foreign.LABELS]
    splits = ["train", "train", "val", "train", "test", "train", "Train"]
    paths = [f"shots/{i % 2}/p{i}.png" for i in range(7)]
    write(tmp_path, dict(zip(paths, foreign.FILES, strict=True)))
    rows: list[list[object]] = [["path", "label", "split"]]
    rows += [list(row) for row in zip(paths, names, splits, strict=True)]
    table(tmp_path / name, rows, delimiter)
    data = open_dataset(tmp_path / name)
    assert data.own_splits == ("train", "validation", "test")
    assert data.classes == foreign.NAMES
    for split, chosen in (("train", [0, 6, 1, 3, 5]), ("validation", [2]), ("test", [4])):
        found = data.split(split).load()  # type: ignore[arg-type]
        assert np.array_equal(found.images, foreign.expected()[chosen])
        assert found.labels.tolist() == [foreign.LABELS[i] for i in chosen]


def test_a_split_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, {"1.png": ANY, "2.png": ANY})
    table(tmp_path / "list.csv", [["path", "label", "set"], ["1", "a", "train"], ["2", "a", "3"]])
    with pytest.raises(DataError, match=r"list\.csv, row 2 on line 3: expected a split, one of tr"):
        open_dataset(tmp_path)


def test_two_tables_with_rows_of_one_split_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"1.png": ANY, "2.png": ANY})
    table(tmp_path / "train.csv", [["path", "label", "split"], ["1", "a", "test"]])
    table(tmp_path / "test.csv", [["path", "label"], ["2", "a"]])
    with pytest.raises(DataError, match=r"test\.csv: expected rows of splits that no other table"):
        open_dataset(tmp_path)


def kaggle(root: Path) -> Path:
    """Write what Kaggle's CIFAR-10 is once its archives are unpacked."""
    numbered = [10, 2, 1, 7, 3, 30, 4]
    pictures = dict(zip(numbered, foreign.FILES, strict=True))
    write(root, {f"train/{n}.png": content for n, content in pictures.items()})
    write(root, {f"test/{n}.png": ANY for n in range(1, 6)})
    write(root, {"__MACOSX/train/._1.png": b"x", "train/.ipynb_checkpoints/1.png": b"x"})
    rows = [[n, foreign.NAMES[k]] for n, k in zip(numbered, foreign.LABELS, strict=True)]
    table(root / "trainLabels.csv", [["id", "label"], *sorted(rows)])
    table(root / "sampleSubmission.csv", [["id", "label"], *[[n, "cat"] for n in range(1, 6)]])
    return root


def test_kaggles_cifar10_as_it_is_downloaded(tmp_path: Path) -> None:
    heard: list[Event] = []
    data = open_dataset(kaggle(tmp_path), emit=heard.append)
    assert (data.own_splits, data.classes) == (("train",), foreign.NAMES)
    found = data.split("train").load()
    order = [2, 1, 4, 6, 3, 0, 5]  # 1, 2, 3, 4, 7, 10, 30
    assert np.array_equal(found.images, foreign.expected()[order])
    assert found.labels.tolist() == [foreign.LABELS[i] for i in order]
    left = f"left out {tmp_path}/test: 5 pictures without a table of their labels. What is on them"
    assert notes(heard) == [
        f"left out {tmp_path}/sampleSubmission.csv: a sample of answers, which are no labels",
        f"{left}: deepcnn predict RUN FOLDER",
        f"{tmp_path}: 2 of 7 pictures have other proportions than 6×5: scaled and cut around their "
        "centre (--fit crop; pad and squeeze keep all of a picture)",
    ]


def test_what_systems_leave_behind_is_no_class(tmp_path: Path) -> None:
    write(tmp_path, {f"{name}/1.png": ANY for name in ("cat", "dog", "__MACOSX", "@eaDir/cat")})
    write(tmp_path, {".ipynb_checkpoints/1.png": ANY, "cat/__MACOSX/2.png": b"x"})
    heard: list[Event] = []
    data = open_dataset(tmp_path, emit=heard.append)
    assert data.classes == ("cat", "dog")
    assert len(data.split("train")) == 2
    assert not notes(heard)


def test_files_that_are_no_pictures_by_name_are_counted_and_named(tmp_path: Path) -> None:
    names = ["b.txt", "a.heic", "noending", *[f"{i}.npy" for i in range(4)]]
    write(tmp_path, {"cat/1.JFIF": ANY, "dog/1.png": ANY, "dog/Thumbs.db": b""})
    write(tmp_path, {f"cat/deep/{name}": b"x" for name in names})
    heard: list[Event] = []
    data = open_dataset(tmp_path, emit=heard.append)
    assert data.counts("train").tolist() == [1, 1]
    assert notes(heard) == [
        f"{tmp_path}: passed over 7 files whose names end as no picture's does: cat/deep/0.npy, "
        "cat/deep/1.npy, cat/deep/2.npy, cat/deep/3.npy, cat/deep/a.heic, …. Save .heic as JPEG "
        "first."
    ]


@pytest.mark.parametrize("place", ["", "train/", "images/"])
def test_a_flat_folder_of_pictures_says_what_to_do(tmp_path: Path, place: str) -> None:
    write(tmp_path, {f"{place}{i}.png": ANY for i in range(3)})
    if place == "images/":  # as good as a class: it may be the one of several to come
        assert deepcnn.open_dataset(tmp_path).classes == ("images",)
        return
    with pytest.raises(DataError, match=r"found 3 pictures directly in it, such as 0\.png\. Move"):
        open_dataset(tmp_path)


def test_flat_splits_without_labels_are_no_classes(tmp_path: Path) -> None:
    write(tmp_path, {"train/1.png": ANY, "test/2.png": ANY, "3.png": ANY})
    with pytest.raises(DataError, match=r"found 1 pictures directly in it"):
        open_dataset(tmp_path)
