"""Shards of encoded pictures elsewhere: listed where they are, and read as the files would be."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepcnn.cli.main import run as cli
from deepcnn.data import web
from deepcnn.data.dataset import Dataset
from deepcnn.data.indexing import index
from deepcnn.data.open import open_dataset
from deepcnn.errors import DataError
from deepcnn.runs import checkpoint
from deepcnn.settings import DataSpec, Fit
from deepcnn.training.start import resume, train
from tests.helpers import elsewhere, foreign
from tests.helpers.conversion import assert_same, load, made, splits_of, store_npz
from tests.helpers.elsewhere import Server
from tests.helpers.tiny import last

TRAIN, TEST = "animals-train.tfrecord-00000-of-00001", "animals_test_00000-of-00001.tfrecord"
SLIM = "animals_train_00000-of-00001.tfrecord"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shards of two programs, with an index."""
    monkeypatch.setattr(web, "WAITS", (0.0, 0.01))
    monkeypatch.setattr(os, "fsync", os.fstat)
    root = tmp_path / "served"
    root.mkdir()
    shutil.copy(foreign.FOREIGN / SLIM, root / TRAIN)
    shutil.copy(foreign.FOREIGN / SLIM, root / TEST)
    (root / "labels.txt").write_text("".join(f"{name}\n" for name in foreign.NAMES))
    assert cli(["data", "index", str(root), "--json"]) == 0
    return root


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with elsewhere.serving(folder) as found:
        yield found


def there(server: Server, **settings: Any) -> Dataset:
    data_dir = str(server.folder.parent / "cache")
    return open_dataset(DataSpec(data=server.url, data_dir=data_dir, **settings))


@pytest.mark.parametrize("fit", ["crop", "pad", "squeeze"])
@pytest.mark.parametrize("size", [None, (16, 12)])
def test_pictures_elsewhere_are_those_of_the_folder(
    server: Server, fit: Fit, size: tuple[int, int] | None
) -> None:
    server.answers = {name: [elsewhere.breaking_off] for name in (TRAIN, TEST)}
    dataset = there(server, image_size=size, fit=fit)
    here = open_dataset(DataSpec(data=str(server.folder), image_size=size, fit=fit))
    assert (dataset.own_splits, dataset.classes) == (("train", "test"), foreign.NAMES)
    for split in dataset.own_splits:
        found, same = dataset.split(split), here.split(split)
        assert_same({split: found.load()}, {split: same.load()})
        assert dataset.content(split) == here.content(split)
    if fit == "crop":
        expected = foreign.expected(*(size or (6, 5)))
        assert np.array_equal(dataset.split("train").load().images, expected)
    other, same_other = dataset.resized((9, 7)), here.resized((9, 7))
    assert other is not None
    assert same_other is not None
    same = same_other.split("train")
    assert_same({"train": other.split("train").load()}, {"train": same.load()})
    assert server.asked[TRAIN] == 2
    assert other.split("train").shape == (9, 7, 3)


def test_a_training_on_pictures_elsewhere_has_the_bits_of_one_here_and_resumes(
    server: Server, tmp_path: Path
) -> None:
    config = foreign.TRAINING
    train(dataclasses.replace(config, data=str(server.folder)), run_dir=tmp_path / "here")
    elsewhere_too = dataclasses.replace(config, data=server.url, data_dir=str(tmp_path / "first"))
    train(elsewhere_too, run_dir=tmp_path / "there")
    assert last(tmp_path / "there") == last(tmp_path / "here")
    for path in checkpoint.paths(tmp_path / "there" / "checkpoints"):
        if checkpoint.step_of(path) > 2:
            path.unlink()
    second = str(tmp_path / "second")
    resume(tmp_path / "there", changes=lambda c: dataclasses.replace(c, data_dir=second))
    assert last(tmp_path / "there") == last(tmp_path / "here")
    assert server.asked[TRAIN] == 2


def test_a_damaged_picture_and_a_wrong_count_are_named(folder: Path) -> None:
    content = json.loads((folder / "index.json").read_bytes())
    content["splits"]["train"][0]["examples"] = 6
    (folder / "index.json").write_text(json.dumps(content))
    with elsewhere.serving(folder) as server:
        source = there(server).split("train")
        with pytest.raises(DataError, match=rf"{TRAIN}: expected 6 pictures as index\.json says"):
            source.load()
        with pytest.raises(DataError, match="none can be left out by --skip-bad"):
            there(server, skip_bad=True)


def test_shards_of_pixels_are_listed_as_convert_lists_them(tmp_path: Path) -> None:
    source = store_npz(tmp_path / "source", splits_of(made(20, 8, 6, 3), made(5, 8, 6, 3)))
    target = tmp_path / "shards"
    assert cli(["data", "convert", str(source), str(target), "--to=tfrecord", "--shards=2"]) == 0
    written = (target / "index.json").read_bytes()
    (target / "index.json").unlink()
    assert index(target) == {"train": 20, "validation": 5}
    assert (target / "index.json").read_bytes() == written
    assert len(load(target)["train"]) == 20


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("animals-train.tfrecord-00000-of-00001.gz", "expected files that are not compressed"),
        ("animals_train_00000-of-00001.tfrecord.zlib", "expected files that are not compressed"),
        ("written_by_tensorflow.npz", "expected TFRecord files, found NumPy"),
    ],
)
def test_what_cannot_be_read_from_elsewhere_is_not_listed(
    tmp_path: Path, name: str, message: str
) -> None:
    root = foreign.folder(tmp_path / "set", name)
    with pytest.raises(DataError, match=message):
        index(root)
    assert not (root / "index.json").exists()
    with pytest.raises(DataError, match="expected a folder of TFRecord files"):
        index(tmp_path / "nowhere")
