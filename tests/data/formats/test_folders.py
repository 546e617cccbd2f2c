from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deepcnn.data.formats import folders
from deepcnn.data.open import load_dataset, open_dataset
from deepcnn.data.splits import Split
from deepcnn.errors import DataError
from deepcnn.events import Event, Noted
from tests.helpers.own_data import images_of, write_pictures
from tests.helpers.pictures import ANY


def test_pictures_of_other_splits_take_the_form_of_the_training_split(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", *images_of(6, 20, 30, 3))
    write_pictures(tmp_path / "test", *images_of(3, 40, 60, 1))
    assert load_dataset(tmp_path, "test").images.shape == (3, 20, 30, 3)


def test_bad_pictures_are_named_and_skipped_only_when_asked(tmp_path: Path) -> None:
    write_pictures(tmp_path, *images_of(6, 8, 8, 3))
    (tmp_path / "class 1" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1 of 7 files .*broken\.png.*--skip-bad"):
        load_dataset(tmp_path, "train")
    heard: list[Event] = []
    assert len(load_dataset(tmp_path, "train", skip_bad=True, emit=heard.append)) == 6
    assert any(isinstance(e, Noted) and "broken.png" in e.text for e in heard)


@pytest.mark.parametrize(
    ("one", "other", "split"),
    [
        ("train", "training", "train"),
        ("data", "train", "train"),
        ("dev", "val", "validation"),
        ("valid", "validation", "validation"),
        ("Test", "eval", "test"),
    ],
)
def test_two_folders_of_one_split_are_refused_naming_both(
    tmp_path: Path, one: str, other: str, split: str
) -> None:
    for name in {"train", one, other}:
        write_pictures(tmp_path / name, *images_of(3, 4, 4, 3))
    with pytest.raises(
        DataError, match=f"expected one folder for the {split} split, found {one} and {other}\\."
    ):
        open_dataset(tmp_path)
    shutil.rmtree(tmp_path / other)
    assert split in open_dataset(tmp_path).own_splits


def test_two_tables_of_one_split_are_refused_naming_both(tmp_path: Path) -> None:
    for name in ("train.csv", "trainLabels.csv"):
        (tmp_path / name).write_text("id,label\n1,a\n")
    with pytest.raises(
        DataError,
        match=r"expected one table for the train split, found train\.csv and trainLabels\.csv",
    ):
        open_dataset(tmp_path)


@pytest.mark.parametrize("place", ["val", "validation", "images", ""])
def test_the_pictures_of_a_table_lie_in_a_folder_of_its_split(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "1.png").write_bytes(ANY)
    (tmp_path / "valLabels.csv").write_text("id,label\n1,a\n")
    dataset = open_dataset(tmp_path)
    assert dataset.own_splits == ("validation",)
    assert dataset.split("validation").shards[0].name == str(tmp_path / place)


@pytest.mark.parametrize("names", [("val", "test"), ("test",), ("dev",)])
def test_folders_of_splits_without_one_for_training_are_refused(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        write_pictures(tmp_path / name, *images_of(3, 4, 4, 3))
    listed = ", ".join(f"{name}/" for name in names)
    with pytest.raises(DataError, match=f"expected a folder train/ beside {listed}, found none"):
        open_dataset(tmp_path)
    # As classes they would have been joined: "val" with "test".
    assert load_dataset(tmp_path / names[0], "train").classes == ("class 0", "class 1", "class 2")


def test_a_note_tells_which_classes_pictures_in_deeper_folders_count_to(tmp_path: Path) -> None:
    images, labels = images_of(6, 4, 4, 3)
    for kingdom in ("animals", "plants"):
        write_pictures(tmp_path / kingdom, images, labels)
    heard: list[Event] = []
    dataset = open_dataset(tmp_path, emit=heard.append)
    (noted,) = [event.text for event in heard if isinstance(event, Noted)]
    assert noted.startswith(
        f"{tmp_path}: found pictures in 6 folders below the class folders, such as animals/class 0."
    )
    assert "count to the 2 classes of the first level" in noted
    assert dataset.classes == ("animals", "plants")
    assert dataset.counts("train").tolist() == [6, 6]
    assert len([event for event in heard if isinstance(event, Noted)]) == 1, "told once"


def test_class_folders_that_are_not_nested_need_no_note(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_pictures(tmp_path / split, *images_of(6, 4, 4, 3))
    heard: list[Event] = []
    open_dataset(tmp_path, emit=heard.append).split("test")
    assert not [event for event in heard if isinstance(event, Noted)]


def test_classes_that_the_training_split_has_not_are_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", *images_of(6, 4, 4, 3))
    write_pictures(tmp_path / "test", *images_of(8, 4, 4, 3, classes=4))
    with pytest.raises(DataError, match=r"test/class 3: expected a folder of one of the 3 classes"):
        open_dataset(tmp_path)


def test_pictures_cannot_hold_splits_of_different_shapes() -> None:
    shapes: dict[Split, tuple[int, int, int]] = {"train": (32, 32, 3), "validation": (32, 31, 3)}
    assert folders.why_not(shapes, ("a",)) == (
        "expected images of one shape in all splits, found 32×32×3 and, in validation, 32×31×3"
    )
    assert folders.why_not({"train": (32, 31, 1)}, ("a",)) is None
