from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from deepcnn.data.arrays import Arrays
from deepcnn.data.catalog import CATALOG, File
from deepcnn.data.formats import cifar, idx
from deepcnn.data.open import load_dataset
from deepcnn.errors import DataError
from tests.helpers.own_data import equal, images_of


def test_the_real_cifar10(cifar10_train: Arrays, cifar10_test: Arrays) -> None:
    for arrays, count in ((cifar10_train, 50_000), (cifar10_test, 10_000)):
        assert arrays.images.shape == (count, 32, 32, 3)
        assert np.bincount(arrays.labels).tolist() == [count // 10] * 10
        assert arrays.classes[6] == "frog"
    assert cifar10_train.labels[:5].tolist() == [6, 9, 9, 4, 1]
    assert cifar10_test.labels[:5].tolist() == [3, 8, 8, 0, 6]


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"cifar10, .*synthetic or a path.*Did you mean cifar10\?"):
        load_dataset("cifar-10", "train")


def test_all_names_open_from_files_of_their_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins with the sizes and hashes of their own show that every name's reader is right."""
    rgb, labels = images_of(12, 32, 32, 3)
    gray, _ = images_of(12, 28, 28, 1)
    ten = np.frombuffer(cifar.TEN.encode(rgb, labels), np.uint8).reshape(12, -1)
    hundred = np.concatenate([(labels + 7).astype(np.uint8)[:, None], ten], 1).tobytes()
    mat = tmp_path / "x.mat"
    digits = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
    scipy.io.savemat(mat, {"X": rgb.transpose(1, 2, 3, 0), "y": digits}, do_compression=True)
    contents = {
        "bin": hundred,
        "mat": mat.read_bytes(),
        "images": idx.encode_images(gray),
        "labels": idx.encode_labels(labels),
    }

    def content_of(name: str) -> bytes:
        (found,) = [content for key, content in contents.items() if key in name]
        return found

    for name in ("cifar100", "cifar100_coarse", "mnist", "fashion_mnist", "svhn"):
        entry = CATALOG[name]

        def describe(file: File) -> File:
            content = content_of(file.name)
            return File(file.name, len(content), hashlib.sha256(content).hexdigest())

        stand_in = dataclasses.replace(
            entry,
            train=tuple(map(describe, entry.train)),
            test=tuple(map(describe, entry.test)),
        )
        monkeypatch.setitem(CATALOG, name, stand_in)
        folder = tmp_path / entry.folder
        folder.mkdir(exist_ok=True)
        for file in entry.files:
            (folder / file.name).write_bytes(content_of(file.name))
        found = load_dataset(name, "test", data_dir=tmp_path)
        expected = labels + 7 if name == "cifar100_coarse" else labels
        equal(found, gray if "mnist" in name else rgb, expected)
        assert len(found.classes) == {"cifar100": 100, "cifar100_coarse": 20}.get(name, 10)


def test_a_mistyped_path_is_answered_with_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"which is neither\. Did you mean .*photos\?"):
        load_dataset(tmp_path / "fotos", "train")
    with pytest.raises(DataError, match=r"which is neither\.$"):
        load_dataset(tmp_path / "none" / "fotos", "train")
