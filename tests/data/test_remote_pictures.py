"""Shards of encoded pictures elsewhere: listed where they are, and read as the files would be."""

from __future__ import annotations

import dataclasses
import gzip
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
from deepcnn.data.convert import convert
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
from tests.helpers.shards import read
from tests.helpers.tiny import last, last_values

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


def packed(form: str, folder: Path) -> Path:
    """Put shards of one form into a folder, with an index: "zlib", "gzip", "parquet" or pixels."""
    names = {
        "zlib": "animals_train_00000-of-00001.tfrecord.zlib",
        "gzip": "animals-train.tfrecord-00000-of-00001.gz",
        "parquet": "train-00000-of-00001.parquet",
    }
    if form in names:
        if form == "parquet":
            pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
        root = foreign.folder(folder / "set", names[form])
    else:
        root = folder / "set"
        source = store_npz(folder / "source", splits_of(made(40, 16, 16, 3), made(5, 16, 16, 3)))
        convert(source, root, "tfrecord", shards=2)
        (root / "index.json").unlink()
        for path in sorted(root.glob("train*")):
            path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))  # under a plain name
    index(root)
    return root


@pytest.mark.parametrize("form", ["zlib", "gzip", "parquet", "pixels"])
def test_compressed_shards_and_parquet_elsewhere_are_read_and_resumed_as_here(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "WAITS", (0.0, 0.01))
    root = packed(form, tmp_path)
    here = open_dataset(root)
    config = dataclasses.replace(foreign.TRAINING, image_size=None, data=str(root), feed="streamed")
    config = dataclasses.replace(config, readers=3, shuffle_buffer=4, evaluate_on=())
    if form != "pixels":
        config = dataclasses.replace(config, image_size=(16, 16), validation_size=2)
    train(config, run_dir=tmp_path / "here")
    with elsewhere.serving(root) as server:
        names = [path.name for path in root.iterdir()]
        server.answers = {name: [elsewhere.breaking_off, elsewhere.other_bytes] for name in names}
        server.answers.pop("index.json")
        found = there(server)
        assert (found.own_splits, found.classes) == (here.own_splits, here.classes)
        for split in here.own_splits:
            shards, same = (each.split(split).shards for each in (found, here))
            assert [s.seekable for s in shards] == [s.seekable for s in same]
            load_both = (each.split(split).load() for each in (found, here))
            assert_same({split: next(load_both)}, {split: next(load_both)})
            for shard, other in zip(shards, same, strict=True):
                for start, stop in ((1, 2), (0, len(other)), (2, 2)):
                    mine, theirs = (read(each, start, stop, 2) for each in (shard, other))
                    assert np.array_equal(mine[0], theirs[0])
                    assert np.array_equal(mine[1], theirs[1])
        elsewhere_too = dataclasses.replace(config, data=server.url, data_dir=str(tmp_path / "a"))
        train(elsewhere_too, run_dir=tmp_path / "there")
        assert last_values(tmp_path / "there") == last_values(tmp_path / "here")
        for path in checkpoint.paths(tmp_path / "there" / "checkpoints")[1:]:
            path.unlink()
        data_dir = str(tmp_path / "b")
        resume(tmp_path / "there", changes=lambda c: dataclasses.replace(c, data_dir=data_dir))
    assert last_values(tmp_path / "there") == last_values(tmp_path / "here")


@pytest.mark.parametrize("form", ["zlib", "pixels"])
def test_an_index_that_lies_about_compression_is_refused(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = packed(form, tmp_path)
    content = json.loads((root / "index.json").read_bytes())
    entry = content["splits"]["train"][0]
    assert entry["compressed"] is True
    for value, message in (
        (False, r"expected a file that is plain, as index\.json says, found the contrary"),
        ("yes", r"compressed: expected true or false, found 'yes'"),
    ):
        entry["compressed"] = value
        (root / "index.json").write_text(json.dumps(content))
        with elsewhere.serving(root) as server, pytest.raises(DataError, match=message):
            there(server).split("train").load()


def test_shards_below_the_folder_are_listed_where_they_lie(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    (tmp_path / "set").mkdir()
    foreign.folder(tmp_path / "set" / "data", "train-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"found them below it.*data index .*set/data"):
        index(tmp_path / "set")
    assert index(tmp_path / "set" / "data") == {"train": 7}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("written_by_tensorflow.npz", "expected TFRecord or Parquet files, found NumPy"),
    ],
)
def test_what_cannot_be_read_from_elsewhere_is_not_listed(
    tmp_path: Path, name: str, message: str
) -> None:
    root = foreign.folder(tmp_path / "set", name)
    with pytest.raises(DataError, match=message):
        index(root)
    assert not (root / "index.json").exists()
    with pytest.raises(DataError, match="expected a folder of TFRecord or Parquet files"):
        index(tmp_path / "nowhere")
