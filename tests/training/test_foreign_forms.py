"""Data as others write them: converted without a change, streamed, resumed."""

from __future__ import annotations

import dataclasses
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import deepcnn
from deepcnn.data.convert import convert
from deepcnn.runs import checkpoint
from deepcnn.settings import DataSpec
from tests.helpers import foreign
from tests.helpers.tiny import last

BASE = dataclasses.replace(foreign.TRAINING, validation_size=2)
OF_TENSORFLOW = np.load(foreign.FOREIGN / "written_by_tensorflow.npz")
LABELS = np.array(foreign.LABELS)


def arrays(root: Path) -> Path:
    """Save arrays in files of their own, images as floats of 0 to 1 and labels in a column."""
    root.mkdir()
    np.save(root / "x_train.npy", foreign.expected(16, 16).astype(np.float32) / 255)
    np.save(root / "y_train.npy", LABELS[:, None])
    return root


FORMS: dict[str, Callable[[Path], Path]] = {
    "TF-Slim": lambda root: foreign.folder(root, "animals_train_00000-of-00001.tfrecord"),
    "gzip": lambda root: foreign.folder(root, "animals-train.tfrecord-00000-of-00001.gz"),
    "Parquet": lambda root: foreign.folder(root, "train-00000-of-00001.parquet"),
    "Parquet by pandas": lambda root: foreign.folder(root, "written_by_pandas_train.parquet"),
    "zip by shutil": lambda root: foreign.archived(root, "zip"),
    "tar by shutil": lambda root: foreign.archived(root, "tar"),
    "tar.gz by shutil": lambda root: foreign.archived(root, "gztar"),
    "zip by 7-zip": lambda _: foreign.FOREIGN / "written_by_7zip.zip",
    "Kaggle's CIFAR-10": foreign.kaggle,
    "TFRecord by TensorFlow": lambda root: foreign.folder(
        root, "written_by_tensorflow_train_00000-of-00001.tfrecord"
    ),
    "TFRecord packed by TensorFlow": lambda root: foreign.folder(
        root, "written_by_tensorflow-train.tfrecord-00000-of-00001.gz"
    ),
    "one-hot labels of TensorFlow": lambda root: foreign.folder(root, "written_by_tensorflow.npz"),
    "arrays by numpy.save": arrays,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_foreign_form_is_converted_streamed_and_resumed(tmp_path: Path, form: str) -> None:
    if form.startswith("Parquet"):
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    data = FORMS[form](tmp_path / "data")
    images, labels = foreign.expected(16, 16), LABELS
    if "TensorFlow" in form:
        images, labels = OF_TENSORFLOW["x_train"], OF_TENSORFLOW["y_train"].argmax(1)
    if data.suffix == ".gz":  # read as it comes
        with tarfile.open(data) as archive:
            order = [int(Path(file.name).stem) for file in archive if file.isfile()]
        images, labels = images[order], labels[order]
    whole_set = deepcnn.load_dataset(data, "train", image_size=BASE.image_size)
    assert np.array_equal(whole_set.images, images)
    assert np.array_equal(whole_set.labels, labels)
    spec = DataSpec(data=str(data), image_size=BASE.image_size, validation_size=2)
    convert(spec, tmp_path / "npz", "npz")
    for split in ("train", "validation"):
        found = deepcnn.open_dataset(spec).split(split).load()
        same = deepcnn.load_dataset(tmp_path / "npz", split)
        assert np.array_equal(found.images, same.images)
        assert np.array_equal(found.labels, same.labels)
        assert found.classes == same.classes
    config = dataclasses.replace(BASE, data=str(data))
    whole = tmp_path / "whole"
    deepcnn.train(config, run_dir=whole)
    shutil.copytree(whole, tmp_path / "resumed")
    for path in checkpoint.paths(tmp_path / "resumed" / "checkpoints"):
        if checkpoint.step_of(path) > 2:
            path.unlink()
    deepcnn.resume(tmp_path / "resumed")
    assert last(tmp_path / "resumed") == last(whole)
