"""Copies of an image, and on which side of a held-out split they are."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deepcnn.data.dataset import Dataset
from deepcnn.data.open import open_dataset
from deepcnn.data.source import held_out
from deepcnn.errors import DataError
from deepcnn.settings import DataSpec
from tests.helpers.own_data import images_of, write_pictures

COPIED = [*range(0, 60, 3)]  # every third image of class 0, and so on; each twice more


def with_copies() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return 60 images of three classes and 40 copies, mixed."""
    images, labels = images_of(60, 8, 8, 3)
    which = np.random.default_rng(1).permutation([*range(60), *COPIED, *COPIED])
    return images[which], labels[which]


def opened(data: Path, **settings: Any) -> Dataset:
    return open_dataset(
        DataSpec(data=str(data), validation_size=20, copies_together=True, **settings)
    )


def in_common(dataset: Dataset) -> int:
    """Count the held-out images that are in the training set, too, by their pixels."""
    train, held = (dataset.split(split).load().images for split in ("train", "validation"))
    known = {image.tobytes() for image in train}
    return sum(image.tobytes() in known for image in held)


@pytest.fixture(params=["arrays", "pictures", "archive"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    images, labels = with_copies()
    if request.param == "arrays":
        np.savez(tmp_path / "set.npz", images=images, labels=labels)
        return tmp_path / "set.npz"
    write_pictures(tmp_path / "set", images, labels)
    if request.param == "pictures":
        return tmp_path / "set"
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted((tmp_path / "set").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "set"))
    return tmp_path / "set.zip"


def test_copies_are_on_one_side_whatever_the_form(data: Path) -> None:
    assert in_common(open_dataset(DataSpec(data=str(data), validation_size=20))) > 0
    dataset = opened(data)
    assert in_common(dataset) == 0
    assert dataset.copies_held_together() == 40
    assert [len(dataset.split(split)) for split in ("train", "validation")] == [80, 20]
    again = opened(data).split("validation").load()
    assert np.array_equal(dataset.split("validation").load().images, again.images)
    other = opened(data, validation_seed=1)
    assert in_common(other) == 0
    assert not np.array_equal(other.split("validation").load().images, again.images)


def test_pictures_of_another_size_are_held_out_alike_and_not_read_again(tmp_path: Path) -> None:
    write_pictures(tmp_path / "set", *with_copies())
    dataset = opened(tmp_path / "set")
    places = dataset.places("validation")
    resized = dataset.resized((4, 4))
    assert resized is not None
    for path in (tmp_path / "set").rglob("*.png"):
        path.unlink()
    assert np.array_equal(resized.places("validation"), places)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path / "set", *with_copies())
    dataset = opened(tmp_path / "set")
    (tmp_path / "set/class 1").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"class 1/\d+\.png: cannot be read \(No such file"):
        dataset.split("train")


def test_without_copies_the_same_are_held_out_as_before() -> None:
    labels = np.random.default_rng(0).integers(0, 7, 500)
    first = np.arange(500)
    for size in (0, 1, 49, 499):
        expected = by_definition(labels, size, seed=3)
        for given in (None, first):
            found = held_out(labels, size, choice="stratified", seed=3, first=given)
            assert np.array_equal(found, expected)
            found = held_out(labels, size, choice="first", seed=3, first=given)
            assert np.flatnonzero(found).tolist() == [*range(size)]


@pytest.mark.parametrize("choice", ["stratified", "first"])
@pytest.mark.parametrize("seed", range(20))
def test_groups_are_whole_and_each_class_has_its_share(seed: int, choice: Any) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 300, 1000)  # which one an example shows
    _, place, inverse = np.unique(picture, return_index=True, return_inverse=True)
    first = place[inverse]
    labels = rng.integers(0, 4, 300)[picture]
    chosen = held_out(labels, 200, choice=choice, seed=seed, first=first)
    assert chosen.sum() == 200
    assert not set(picture[chosen]) & set(picture[~chosen])
    if choice == "stratified":
        counts, held = np.bincount(labels), np.bincount(labels[chosen])
        largest = max(Counter(picture).values())
        assert (abs(held - 0.2 * counts) <= largest).all()


def test_groups_that_are_too_large_are_passed_over_or_the_smallest_is_taken() -> None:
    labels = np.zeros(10, np.int64)

    def held(first: list[int], size: int) -> list[int]:
        chosen = held_out(labels, size, choice="first", seed=0, first=np.array(first))
        return np.flatnonzero(chosen).tolist()

    assert held([0, 0, 0, 3, 4, 4, 4, 7, 7, 7], 2) == [3]
    assert held([0, 0, 0, 3, 4, 5, 5, 5, 5, 5], 2) == [3, 4]
    assert held([0, 0, 0, 0, 4, 4, 4, 7, 7, 7], 2) == [4, 5, 6]
    assert held([0] * 10, 2) == [0, 1]  # nothing can be kept apart


def by_definition(labels: NDArray[np.int64], size: int, *, seed: int) -> NDArray[np.bool_]:
    """Choose as it was before copies were looked for."""
    from deepcnn import hashing

    position = np.arange(len(labels), dtype=np.int64)
    keys = hashing.bits(seed, hashing.SPLIT, np.zeros(1, np.int64), position)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranked = members[np.argsort(keys[members], kind="stable")]
        place[ranked] = (np.arange(len(members)) + 0.5) / len(members)
    chosen = np.zeros(len(labels), np.bool_)
    chosen[np.argsort(place, kind="stable")[:size]] = True
    return chosen
