"""Which data set lies at a path."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from deepcnn.data import layouts
from deepcnn.data.formats import cifar, idx, tfrecord
from deepcnn.data.open import load_dataset, open_dataset
from deepcnn.errors import DataError
from deepcnn.events import ignore
from deepcnn.settings import DataSpec
from tests.helpers.home_page import tiny_files
from tests.helpers.own_data import equal, images_of, write_pictures


def test_every_layout_is_recognized(tmp_path: Path) -> None:
    rgb, labels = images_of(12, 32, 32, 3)
    other, other_labels = images_of(6, 32, 32, 3, seed=1)

    def put(name: str, content: bytes) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)

    put("ten/data_batch_2.bin", cifar.TEN.encode(rgb[6:], labels[6:]))
    put("ten/data_batch_1.bin", cifar.TEN.encode(rgb[:6], labels[:6]))
    put("ten/test_batch.bin", cifar.TEN.encode(other, other_labels))
    coarse = np.zeros((12, 1), np.uint8)
    hundred = np.frombuffer(cifar.TEN.encode(rgb, labels), np.uint8).reshape(12, -1)
    put("hundred/train.bin", np.concatenate([coarse, hundred], 1).tobytes())
    put("records/train-0.tfrecords", tfrecord.encode(rgb, labels))
    put("records/validation.tfrecords", tfrecord.encode(other, other_labels))
    put("idx/train-images-idx3-ubyte.gz", gzip.compress(idx.encode_images(rgb)))
    put("idx/train-labels-idx1-ubyte", idx.encode_labels(labels))
    (tmp_path / "keras").mkdir()
    np.savez_compressed(
        tmp_path / "keras/my.npz",
        x_train=rgb,
        y_train=labels[:, None],
        x_test=other,
        y_test=other_labels,
    )
    (tmp_path / "svhn").mkdir()
    for name, x, y in (("train", rgb, labels), ("test", other, other_labels)):
        digits = np.where(y == 0, 10, y).astype(np.uint8)[:, None]
        scipy.io.savemat(
            tmp_path / f"svhn/{name}_32x32.mat", {"X": x.transpose(1, 2, 3, 0), "y": digits}
        )
    write_pictures(tmp_path / "flat", rgb, labels)
    write_pictures(tmp_path / "split/train", rgb, labels)
    write_pictures(tmp_path / "split/val", other, other_labels)
    (tmp_path / "kaggle/train").mkdir(parents=True)
    rows = ["id,label"]
    for i, (image, label) in enumerate(zip(rgb, labels, strict=True), start=1):
        Image.fromarray(image).save(tmp_path / f"kaggle/train/{i}.png")
        rows.append(f"{i},kind{label}")
    put("kaggle/trainLabels.csv", "\n".join(rows).encode())

    splits = {
        "ten": ("train", "test"),
        "hundred": ("train",),
        "records": ("train", "validation"),
        "idx": ("train",),
        "keras": ("train", "test"),
        "svhn": ("train", "test"),
        "flat": ("train",),
        "split": ("train", "validation"),
        "kaggle": ("train",),
        "ten/data_batch_1.bin": ("train",),
        "keras/my.npz": ("train", "test"),
        "records/validation.tfrecords": ("validation",),
    }
    for name, expected in splits.items():
        assert open_dataset(tmp_path / name).own_splits == expected, name
    for name in ("ten", "hundred", "records", "idx", "keras", "svhn", "flat", "split", "kaggle"):
        equal(load_dataset(tmp_path / name, "train"), rgb, labels)
    for name, split in (
        ("ten", "test"),
        ("records", "validation"),
        ("keras", "test"),
        ("svhn", "test"),
        ("split", "validation"),
    ):
        equal(load_dataset(tmp_path / name, split), other, other_labels)  # type: ignore[arg-type]
    assert load_dataset(tmp_path / "split", "validation").classes == (
        "class 0",
        "class 1",
        "class 2",
    )
    assert load_dataset(tmp_path / "kaggle", "train").classes == ("kind0", "kind1", "kind2")
    assert load_dataset(tmp_path / "records", "train").classes == ("0", "1", "2")
    assert load_dataset(tmp_path / "svhn", "test").classes == tuple("0123456789")
    with pytest.raises(DataError, match=r"expected a test split, found only train, validation"):
        load_dataset(tmp_path / "records", "test")


def test_beside_class_folders_other_files_are_something_else(tmp_path: Path) -> None:
    images, labels = images_of(6, 8, 9, 3)
    for root in ("flat", "split/train"):
        write_pictures(tmp_path / root, images, labels)
    for root in ("flat", "split"):
        for stray in ("notes.csv", "weights.npz", "model.bin", "x.mat", "cache.tfrecords"):
            (tmp_path / root / stray).write_bytes(b"something else")
        equal(load_dataset(tmp_path / root, "train"), images, labels)
    write_pictures(tmp_path / "records/previews", images, labels)
    (tmp_path / "records/train.tfrecords").write_bytes(tfrecord.encode(images, labels))
    assert open_dataset(tmp_path / "records").form == "TFRecord"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "expected a JSON list"),
        (b'{"a": 1}', "expected a JSON list"),
        (b'["a", "a"]', "2 names, of which 1 differ"),
        (b"[]", "0 names"),
        (b'["\\ud800"]', "expected a JSON list"),
        (b"[" * 100_000, "expected a JSON list"),
    ],
)
def test_a_hostile_file_of_classes(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train.tfrecords").write_bytes(tfrecord.encode(*images_of(3, 4, 4, 1)))
    (tmp_path / "classes.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path, "train")


def test_an_empty_or_unreadable_folder_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="expected a folder of class folders"):
        load_dataset(tmp_path, "train")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        load_dataset(tmp_path, "train")


def test_a_folder_of_binary_files_is_a_data_set(tmp_path: Path) -> None:
    for name, content in tiny_files().items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "batches.meta.txt").write_text("a\nb\nc\nd\n")
    arrays = load_dataset(tmp_path, "train")
    assert len(arrays) == 20
    assert arrays.classes == ("a", "b", "c", "d")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"expected a folder of class folders"):
        load_dataset(empty, "train")


def test_the_word_that_says_the_split_may_stand_anywhere_in_a_name(tmp_path: Path) -> None:
    images, labels = images_of(12, 8, 9, 3)
    for name, part in (("mnist_train", slice(0, 8)), ("mnist_test", slice(8, 12))):
        np.savez(tmp_path / f"{name}.npz", images=images[part], labels=labels[part])
    assert open_dataset(tmp_path).own_splits == ("train", "test")
    equal(load_dataset(tmp_path, "train"), images[:8], labels[:8])
    equal(load_dataset(tmp_path, "test"), images[8:], labels[8:])


def test_emnists_own_names_are_recognized(tmp_path: Path) -> None:
    gray, labels = images_of(12, 28, 28, 1)
    labels += 1  # its letters are numbered from 1 on
    for split, part in (("train", slice(0, 8)), ("test", slice(8, 12))):
        for kind, content in (
            ("images-idx3", idx.encode_images(gray[part])),
            ("labels-idx1", idx.encode_labels(labels[part])),
        ):
            name = f"emnist-letters-{split}-{kind}-ubyte.gz"
            (tmp_path / name).write_bytes(gzip.compress(content))
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n3 67 99\n")
    dataset = open_dataset(tmp_path)
    assert (dataset.form, dataset.own_splits) == ("IDX", ("train", "test"))
    equal(load_dataset(tmp_path, "train"), gray[:8], labels[:8])
    equal(load_dataset(tmp_path, "test"), gray[8:], labels[8:])
    assert dataset.classes == ("0", "1", "2", "3")


def test_only_names_are_looked_at_to_tell_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "train.tfrecords").write_bytes(b"nothing of the kind")
    (tmp_path / "test.tfrecords").write_bytes(b"")
    found = layouts.find(tmp_path, DataSpec(data=str(tmp_path)), emit=ignore)
    assert (found.form, tuple(found.open)) == ("TFRecord", ("train", "test"))
    with pytest.raises(DataError, match=r"train\.tfrecords"):
        found.open["train"]()
