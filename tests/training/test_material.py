"""What a training is made of is opened and read whole before its run's directory is made."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import deepcnn
from deepcnn import presets
from deepcnn.config import Config
from deepcnn.data import layouts
from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import pictures, tfrecord
from deepcnn.data.formats.heads import Header
from deepcnn.data.formats.listings import Listing
from deepcnn.data.layouts import Layout
from deepcnn.data.open import open_dataset
from deepcnn.data.shards import Progress, Shape
from deepcnn.data.source import Source
from deepcnn.errors import DataError
from deepcnn.events import Event, Listener, Noted
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import Stream
from deepcnn.settings import DataSpec
from tests.helpers.own_data import images_of, write_pictures

FEEDS = ("preloaded", "fed", "queued", "streamed")


def tiny(folder: Path, **changes: Any) -> Config:
    """Return a training of a few steps on a folder."""
    settings: dict[str, Any] = {"steps": 3, "batch_size": 10, "summary_every": 0}
    return dataclasses.replace(
        presets.tiny(),
        data=str(folder),
        device="cpu",
        precision="fp32",
        **(settings | changes),
    )


def refused(config: Config, run: Path, message: str) -> None:
    """Check that a training is refused with this message, and leaves no directory."""
    with pytest.raises(DataError, match=message):
        deepcnn.train(config, run_dir=run)
    assert not run.exists()


def write_npz(path: Path, count: int, shape: Shape = (16, 16, 3), *, classes: int = 3) -> None:
    images, labels = images_of(count, *shape, classes=classes)
    path.parent.mkdir(exist_ok=True)
    np.savez(path, images=images, labels=labels)


def test_labels_are_checked_before_the_first_step(tmp_path: Path) -> None:
    images, labels = images_of(40, 32, 32, 3)
    labels[17] = 7
    (tmp_path / "train.tfrecords").write_bytes(tfrecord.encode(images, labels))
    (tmp_path / "test.tfrecords").write_bytes(tfrecord.encode(images, labels))
    (tmp_path / "classes.json").write_text(json.dumps(["a", "b", "c"]))
    for feed in FEEDS:
        refused(
            tiny(tmp_path, feed=feed),
            tmp_path / "run",
            r"train\.tfrecords: expected labels 0 to 2, .*found 7 for example 17",
        )


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("shape", [(16, 17, 3), (17, 16, 3), (16, 16, 1)])
def test_what_is_scored_has_images_of_the_training_sets_shape(
    tmp_path: Path, split: str, shape: Shape, feed: str
) -> None:
    write_npz(tmp_path / "set/train.npz", 30)
    write_npz(tmp_path / f"set/{split}.npz", 6, shape)
    found = "×".join(map(str, shape))
    refused(
        tiny(tmp_path / "set", feed=feed),
        tmp_path / "run",
        rf"{split}\.npz: expected images of 16×16×3, as the train split has in .*train\.npz, found "
        f"{found} in the {split} split",
    )


def test_pictures_that_are_scored_are_brought_to_the_training_sets_shape(tmp_path: Path) -> None:
    write_pictures(tmp_path / "set/train", *images_of(30, 16, 16, 3))
    write_pictures(tmp_path / "set/val", *images_of(6, 24, 16, 3))
    write_pictures(tmp_path / "set/test", *images_of(9, 16, 40, 1))
    result = deepcnn.train(
        tiny(tmp_path / "set", evaluate_on=("validation", "test")), run_dir=tmp_path / "run"
    )
    assert [(score.split, score.total) for score in result.scores] == [
        ("validation", 6),
        ("test", 9),
    ]


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_beyond_the_training_sets_classes_is_named_before_the_first_step(
    tmp_path: Path, split: str, feed: str
) -> None:
    write_npz(tmp_path / "set/train.npz", 30)
    write_npz(tmp_path / f"set/{split}.npz", 8, classes=4)
    refused(
        tiny(tmp_path / "set", feed=feed),
        tmp_path / "run",
        rf"{split}\.npz: expected labels 0 to 2, the index of a class, found 3 for example 3$",
    )


def test_a_class_of_pictures_beyond_the_training_sets_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path / "set/train", *images_of(30, 16, 16, 3))
    write_pictures(tmp_path / "set/test", *images_of(8, 16, 16, 3, classes=4))
    refused(
        tiny(tmp_path / "set"),
        tmp_path / "run",
        r"test/class 3: expected a folder of one of the 3 classes 'class 0', 'class 1', 'class 2'",
    )
    kaggle = tmp_path / "kaggle"
    (kaggle / "images").mkdir(parents=True)
    for name, labels in (("train", "ab"), ("test", "ac")):
        for i in range(len(labels)):
            Image.new("RGB", (16, 16)).save(kaggle / f"images/{name}{i}.png")
        rows = [f"{name}{i},{label}" for i, label in enumerate(labels)]
        (kaggle / f"{name}.csv").write_text("\n".join(["id,label", *rows]))
    refused(
        tiny(kaggle),
        tmp_path / "run",
        r"test\.csv, row 2 on line 3: expected one of the labels 'a', 'b', found 'c' for the id",
    )


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_truncated_picture_is_named_before_the_first_step(
    tmp_path: Path, split: str, feed: str
) -> None:
    for name in ("train", split):
        write_pictures(tmp_path / "set" / name, *images_of(30, 16, 16, 3))
    bad = tmp_path / "set" / split / "class 1/00019.png"
    bad.write_bytes(bad.read_bytes()[:-200])  # its head is whole
    refused(
        tiny(tmp_path / "set", feed=feed, validation_size=0 if split != "train" else 6),
        tmp_path / "run",
        rf"{split}/class 1/00019\.png: cannot be decoded .*--skip-bad",
    )


@dataclasses.dataclass
class Counted:
    """How often a data set was recognized, and how often each picture was inspected."""

    found: int = 0
    inspected: Counter[Path] = dataclasses.field(default_factory=Counter)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counts = Counted()
    find, inspect = layouts.find, pictures.inspect

    def counting_find(path: Path, spec: DataSpec, *, emit: Listener) -> Layout:
        counts.found += 1
        return find(path, spec, emit=emit)

    def counting_inspect(
        listing: Listing, *, decode: bool = False, progress: Progress | None = None
    ) -> tuple[Listing | pictures.Inspected, list[Header], dict[Any, str]]:
        counts.inspected.update(listing.paths)
        return inspect(listing, decode=decode, progress=progress)

    monkeypatch.setattr(layouts, "find", counting_find)
    monkeypatch.setattr(pictures, "inspect", counting_inspect)
    return counts


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize(
    ("splits", "changes"),
    [
        (("train", "test"), {}),
        (("train", "val", "test"), {"evaluate_on": ("train", "validation", "test")}),
        (("train", "test"), {"validation_size": 6, "evaluate_on": ("validation", "test")}),
        (("train",), {}),  # of which some are held out
    ],
    ids=["test", "all", "held out", "only train"],
)
def test_a_training_recognizes_its_data_once_and_inspects_each_picture_once(
    tmp_path: Path, counted: Counted, splits: tuple[str, ...], changes: dict[str, Any], feed: str
) -> None:
    for split in splits:
        write_pictures(tmp_path / "set" / split, *images_of(30, 16, 16, 3))
        (tmp_path / "set" / split / "class 2/bad.png").write_bytes(b"no picture")
    every = set((tmp_path / "set").rglob("*.png"))
    heard: list[Event] = []
    config = tiny(tmp_path / "set", feed=feed, skip_bad=True, **changes)
    deepcnn.train(config, run_dir=tmp_path / "run", emit=heard.append)
    assert counted.found == 1
    assert counted.inspected == dict.fromkeys(every, 1)
    notes = [event.text for event in heard if isinstance(event, Noted)]
    left_out = Counter(text.split(": ")[0] for text in notes if "left out" in text)
    assert left_out == dict.fromkeys(
        (f"left out {tmp_path}/set/{split}/class 2/bad.png" for split in splits), 1
    )


def a_stream(source: Source) -> Stream:
    shuffle = Shuffle.of(source.shards, seed=0, readers=2, buffer=20)
    return Stream.extract(source.shards, shuffle).shuffle()


def a_function(source: Source) -> Callable[[int], Any]:
    images, labels = next(source.blocks(10))
    return lambda _: (images, labels)


def an_iterable(source: Source) -> list[Any]:
    return [next(source.blocks(10))]


@pytest.mark.parametrize("make", [a_stream, a_function, an_iterable])
@pytest.mark.parametrize("validation_size", [0, 6])
def test_a_feed_from_python_leaves_the_training_set_on_disk(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Source], Any],
    validation_size: int,
) -> None:
    write_npz(tmp_path / "set/train.npz", 40)
    write_npz(tmp_path / "set/test.npz", 6)
    loaded: list[str] = []
    load = Source.load

    def counting(self: Source, progress: Progress | None = None) -> Arrays:
        loaded.append(self.shards[0].name)
        return load(self, progress)

    monkeypatch.setattr(Source, "load", counting)
    config = tiny(tmp_path / "set", validation_size=validation_size)
    feed = make(open_dataset(config).split("train"))
    deepcnn.train(config, run_dir=tmp_path / "run", feed=feed)
    assert loaded == []
    deepcnn.train(dataclasses.replace(config, feed="fed"), run_dir=tmp_path / "loads")
    assert loaded, "what Python does not feed is"
