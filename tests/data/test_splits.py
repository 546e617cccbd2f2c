from __future__ import annotations

from pathlib import Path

import pytest

from deepcnn.data.splits import Split, named_split, only_one, split_of
from deepcnn.errors import DataError


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-images-idx3-ubyte", "train"),
        ("t10k-images-idx3-ubyte.gz", "test"),
        ("data_batch_3.bin", "train"),
        ("test_batch.bin", "test"),
        ("validation_batch_1.bin", "validation"),
        ("val.tfrecords", "validation"),
        ("test-00001-of-00004.tfrecords", "test"),
        ("train_32x32.mat", "train"),
        ("testing.npz", "test"),
        ("cats.tfrecords", "train"),
        ("tests are fun.npz", "train"),
        ("1.bin", "train"),
        ("mnist_test.npz", "test"),
        ("mnist_train.npz", "train"),
        ("emnist-letters-test-images-idx3-ubyte.gz", "test"),
        ("emnist-letters-train-images-idx3-ubyte.gz", "train"),
        ("emnist-byclass-t10k-labels-idx1-ubyte", "test"),
        ("my-dev-set.tfrecords", "validation"),
        ("testLabels.csv", "test"),
        ("TRAIN-of-test.npz", "train"),
        ("test_of_train.npz", "test"),
        ("latest-contest.npz", "train"),
    ],
)
def test_the_split_is_told_by_the_first_word_of_a_name_that_is_one(name: str, split: str) -> None:
    assert split_of(name) == split


def test_a_name_without_such_a_word_says_no_split() -> None:
    assert named_split("cats.npz") is None
    assert named_split("data_batch_1.bin") is None
    assert named_split("cats_train.npz") == "train"


def test_two_of_one_split_are_refused_naming_both() -> None:
    found: dict[Split, Path] = {}
    only_one(found, "test", Path("set/t10k.csv"), "table")
    only_one(found, "train", Path("set/train.csv"), "table")
    with pytest.raises(
        DataError,
        match=r"^set: expected one table for the test split, found t10k\.csv and test\.csv\. Name",
    ):
        only_one(found, "test", Path("set/test.csv"), "table")
    assert found == {"test": Path("set/t10k.csv"), "train": Path("set/train.csv")}
