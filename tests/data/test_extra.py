"""The split "extra", as SVHN has it: one of its own, trained on only where that is asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from deepcnn import presets
from deepcnn.data.arrays import Arrays
from deepcnn.data.catalog import CATALOG, Entry, File
from deepcnn.data.convert import FORMS, Form, convert
from deepcnn.data.fetch import fetch, verify
from deepcnn.data.open import load_dataset, open_dataset
from deepcnn.data.splits import Split, named_split
from deepcnn.errors import DataError
from deepcnn.inference.evaluation import evaluate
from deepcnn.runs.run import Run
from deepcnn.runs.trained_on import TrainedOn
from deepcnn.settings import DataSpec
from deepcnn.training.start import train
from tests.helpers.conversion import converted, store_npz
from tests.helpers.shards import examples

DIGITS = tuple("0123456789")
PARTS: dict[Split, slice] = {
    "train": slice(0, 40),
    "test": slice(40, 60),
    "extra": slice(60, 100),
}


def digits() -> dict[Split, Arrays]:
    images, _ = examples(100, 32, 32, 3)
    labels = np.random.default_rng(0).integers(0, 10, 100)
    labels[:10] = labels[60:70] = np.arange(10)
    return {split: Arrays(images[part], labels[part], DIGITS) for split, part in PARTS.items()}


@pytest.fixture
def svhn(tmp_path: Path) -> Path:
    """Write the three files as MATLAB would."""
    folder = tmp_path / "svhn"
    folder.mkdir()
    for split, arrays in digits().items():
        y = np.where(arrays.labels == 0, 10, arrays.labels).astype(np.uint8)[:, None]
        x = arrays.images.transpose(1, 2, 3, 0)
        scipy.io.savemat(folder / f"{split}_32x32.mat", {"X": x, "y": y}, do_compression=True)
    return folder


def opened(folder: Path, **settings: Any) -> dict[Split, Arrays]:
    dataset = open_dataset(DataSpec(data=str(folder), **settings))
    found = {split: dataset.split(split).load() for split in dataset.splits}
    for split, arrays in found.items():
        counts = dataset.counts(split)
        assert counts.tolist() == np.bincount(arrays.labels, minlength=10).tolist()
    return found


def same(found: Arrays, *expected: Arrays) -> None:
    assert np.array_equal(found.images, np.concatenate([each.images for each in expected]))
    assert np.array_equal(found.labels, np.concatenate([each.labels for each in expected]))


def test_it_is_a_split_of_its_own_and_joined_only_when_asked(svhn: Path) -> None:
    expected = digits()
    apart = opened(svhn)
    assert list(apart) == ["train", "test", "extra"]
    for split, arrays in expected.items():
        same(apart[split], arrays)
    joined = opened(svhn, train_on_extra=True)
    assert list(joined) == ["train", "test"]
    same(joined["train"], expected["train"], expected["extra"])
    same(joined["test"], expected["test"])


def test_nothing_of_it_is_held_out(svhn: Path) -> None:
    apart = opened(svhn, validation_size=12)
    joined = opened(svhn, validation_size=12, train_on_extra=True)
    assert list(joined) == ["train", "validation", "test"]
    same(joined["validation"], apart["validation"])
    same(joined["train"], apart["train"], apart["extra"])


def test_without_any_it_cannot_be_asked_for(svhn: Path) -> None:
    (svhn / "extra_32x32.mat").unlink()
    spec = DataSpec(data=str(svhn), train_on_extra=True)
    with pytest.raises(DataError, match="MATLAB: expected an extra split, found only train, test"):
        open_dataset(spec).split("train")
    same(open_dataset(spec).split("test").load(), digits()["test"])


def test_what_is_extra_is_for_training_where_there_is_nothing_else(svhn: Path) -> None:
    dataset = open_dataset(svhn / "extra_32x32.mat")
    assert dataset.own_splits == ("train",)
    same(dataset.split("train").load(), digits()["extra"])


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("extra_32x32.mat", "extra"),
        ("extraLabels.csv", "extra"),
        ("extra_train.npz", "train"),
        ("test-extra.npz", "test"),
        ("extras.npz", None),
    ],
)
def test_which_names_say_so(name: str, split: Split | None) -> None:
    assert named_split(name) == split


def test_a_class_may_be_called_extra(tmp_path: Path) -> None:
    store_npz(tmp_path / "start", {"train": digits()["train"]})
    convert(tmp_path / "start", tmp_path / "x", "folder")
    classes = tmp_path / "x/train"
    (classes / "3").rename(classes / "extra")
    (classes / "extra/deeper").mkdir()
    some = next((classes / "extra").glob("*.png"))
    some.rename(classes / "extra/deeper" / some.name)
    dataset = open_dataset(classes)
    assert dataset.own_splits == ("train",)
    assert "extra" in dataset.classes
    assert len(dataset.split("train")) == 40


@pytest.mark.parametrize("to", FORMS)
@pytest.mark.usefixtures("fast_disk")
def test_conversion_keeps_it_apart_or_joined(tmp_path: Path, svhn: Path, to: Form) -> None:
    expected = digits()
    assert convert(svhn, tmp_path / "x", to) == {"train": 40, "test": 20, "extra": 40}
    found = opened(tmp_path / "x")
    assert list(found) == ["train", "test", "extra"]
    for split, arrays in expected.items():
        same(found[split], arrays)
    assert converted(svhn, tmp_path / "y", to, train_on_extra=True) == {"train": 80, "test": 20}
    same(opened(tmp_path / "y")["train"], expected["train"], expected["extra"])


@pytest.fixture
def named(svhn: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace what is known of SVHN by the stand-in's files, with no home page."""

    def described(entry: Entry) -> Entry:
        def of(file: File) -> File:
            content = (svhn / file.name).read_bytes()
            return File(file.name, len(content), hashlib.sha256(content).hexdigest())

        files = {"train": tuple(map(of, entry.train)), "test": tuple(map(of, entry.test))}
        urls = tuple(
            (f"http://127.0.0.1:9/{file.name}", file.size) for file in (*entry.train, *entry.test)
        )
        return dataclasses.replace(entry, **files, urls=urls)  # type: ignore[arg-type]

    for name in ("svhn", "svhn_extra"):
        monkeypatch.setitem(CATALOG, name, described(CATALOG[name]))
    return svhn


def test_of_the_named_set_it_is_fetched_only_when_it_is_asked_for(
    named: Path, tmp_path: Path
) -> None:
    root, expected = tmp_path / "data", digits()
    fetch("svhn", data_dir=root, source=named)
    assert {path.name for path in (root / "svhn").iterdir()} == {
        "train_32x32.mat",
        "test_32x32.mat",
    }
    settings: dict[str, Any] = {"data_dir": str(root)}
    dataset = open_dataset(DataSpec(data="svhn", **settings))
    assert dataset.splits == ("train", "test", "extra")
    same(load_dataset("svhn", "train", **settings), expected["train"])
    with pytest.raises(DataError, match=r"svhn_extra could not be fetched[\s\S]*extra_32x32.mat"):
        load_dataset("svhn", "extra", **settings)
    fetch("svhn_extra", data_dir=root, source=named)
    same(load_dataset("svhn", "extra", **settings), expected["extra"])
    same(load_dataset("svhn_extra", "train", **settings), expected["extra"])
    joined = load_dataset("svhn", "train", train_on_extra=True, **settings)
    same(joined, expected["train"], expected["extra"])
    assert set(verify("svhn", data_dir=root).values()) == {None}
    assert set(verify("svhn_extra", data_dir=root).values()) == {None}


def test_its_preset_mirrors_no_digit_and_trains_on_what_it_is_told(
    svhn: Path, tmp_path: Path
) -> None:
    preset = presets.svhn()
    assert (preset.inputs.flip, preset.inputs.views, preset.train_on_extra) == (
        "none",
        "one",
        False,
    )
    settings: dict[str, Any] = {
        "data": str(svhn),
        "steps": 2,
        "batch_size": 16,
        "threads": 1,
        "summary_every": 0,
    }
    counts = {}
    for name, extra in (("apart", False), ("joined", True)):
        settings |= {"train_on_extra": extra, "validation_size": 10 if extra else 0}
        result = train("svhn", run_dir=tmp_path / name, **settings)
        counts[name] = sum(TrainedOn.read(Run.open(result.run)).counts["train"])
    assert counts == {"apart": 40, "joined": 70}
    scored = evaluate(tmp_path / "apart", split="extra")
    assert scored.total == 40
    moved = svhn.rename(tmp_path / "moved")
    (moved / "extra_32x32.mat").unlink()
    assert math.isfinite(evaluate(tmp_path / "joined", data=moved).loss)
