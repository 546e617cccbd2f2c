from __future__ import annotations

from pathlib import Path

import pytest

from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import tfrecord
from deepcnn.data.open import open_dataset
from deepcnn.data.source import in_memory
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
