"""Data as others write them: converted without a change, streamed, resumed."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import deepcnn
from deepcnn import presets
from deepcnn.data.convert import convert
from deepcnn.runs import checkpoint
from deepcnn.settings import DataSpec
from tests.helpers import foreign
from tests.helpers.tiny import last

BASE = dataclasses.replace(
    presets.tiny(),
    summary_every=0,
    device="cpu",
    precision="fp32",
    steps=4,
    save_every=2,
    batch_size=2,
    feed="streamed",
    shuffle_buffer=4,
    image_size=(16, 16),
    validation_size=2,
)
FORMS: dict[str, Callable[[Path], Path]] = {
    "TF-Slim": lambda root: foreign.folder(root, "animals_train_00000-of-00001.tfrecord"),
    "gzip": lambda root: foreign.folder(root, "animals-train.tfrecord-00000-of-00001.gz"),
    "Parquet": lambda root: foreign.folder(root, "train-00000-of-00001.parquet"),
    "zip": lambda root: foreign.zipped(root),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_foreign_form_is_converted_streamed_and_resumed(tmp_path: Path, form: str) -> None:
    if form == "Parquet":
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    data = FORMS[form](tmp_path / "data")
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
