"""Training through each feed, and resuming it."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import deepcnn
from deepcnn import presets
from deepcnn.config import Config
from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import tfrecord
from deepcnn.data.open import open_dataset
from deepcnn.data.shards import Block
from deepcnn.errors import DataError, RunError
from deepcnn.events import Event, Filling, Noted
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import Stream
from deepcnn.runs import checkpoint
from tests.helpers.tiny import Stateful, last, last_values

BASE = dataclasses.replace(
    presets.tiny(), summary_every=0, device="cpu", precision="fp32", steps=30, save_every=10
)


@pytest.fixture(scope="module")
def folder(cifar10_test: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 real images as three training shards, and 100 to score on."""
    path = tmp_path_factory.mktemp("set")
    for i, (a, b) in enumerate(((0, 400), (400, 700), (700, 1000))):
        content = tfrecord.encode(cifar10_test.images[a:b], cifar10_test.labels[a:b])
        (path / f"train-{i}.tfrecords").write_bytes(content)
    content = tfrecord.encode(cifar10_test.images[1000:1100], cifar10_test.labels[1000:1100])
    (path / "test.tfrecords").write_bytes(content)
    return path


def configured(folder: Path, **changes: Any) -> Config:
    return dataclasses.replace(BASE, data=str(folder), **changes)


def test_a_full_queue_a_full_buffer_and_feeding_train_to_the_same_bits(
    folder: Path, tmp_path: Path
) -> None:
    full: dict[str, dict[str, Any]] = {
        "preloaded": {},
        "fed": {},
        "queued": {"min_fraction_of_examples_in_queue": 1.0},
        "streamed": {"shuffle_buffer": 1000},
    }
    for feed, settings in full.items():
        deepcnn.train(configured(folder, feed=feed, **settings), run_dir=tmp_path / feed)
    assert len({last_values(tmp_path / feed) for feed in full}) == 1


@pytest.mark.parametrize("validation", [0, 100])
def test_queued_and_streamed_with_the_same_buffer_train_to_the_same_bits(
    folder: Path, tmp_path: Path, validation: int
) -> None:
    heard: list[Event] = []
    config = configured(folder, validation_size=validation, readers=4)
    queued = dataclasses.replace(config, feed="queued", min_fraction_of_examples_in_queue=0.3)
    n = 1000 - validation
    buffer = int(0.3 * n) + config.batch_size
    streamed = dataclasses.replace(config, feed="streamed", shuffle_buffer=buffer)
    deepcnn.train(queued, run_dir=tmp_path / "queued", emit=heard.append)
    deepcnn.train(streamed, run_dir=tmp_path / "streamed")
    assert last_values(tmp_path / "queued") == last_values(tmp_path / "streamed")
    assert [event for event in heard if isinstance(event, Filling)] == [Filling(int(0.3 * n))]


@pytest.mark.parametrize("feed", ["fed", "queued", "streamed"])
def test_each_feed_resumes_to_the_same_bits(folder: Path, tmp_path: Path, feed: str) -> None:
    config = configured(folder, feed=feed, shuffle_buffer=300, steps=40)  # more than an epoch
    deepcnn.train(config, run_dir=tmp_path / "whole")
    for start in (10, 20):
        copy = tmp_path / f"from{start}"
        shutil.copytree(tmp_path / "whole", copy)
        for path in checkpoint.paths(copy / "checkpoints"):
            if checkpoint.step_of(path) > start:
                path.unlink()
        deepcnn.resume(copy)
        assert last(copy) == last(tmp_path / "whole")


def batches(folder: Path) -> list[tuple[Any, Any]]:
    arrays = deepcnn.load_dataset(folder, "train")
    return [
        (arrays.images[i : i + 32], arrays.labels[i : i + 32].astype(np.int32))
        for i in range(0, 992, 32)
    ]


@pytest.mark.parametrize("kind", ["function", "stateful"])
def test_a_run_fed_from_python_resumes_where_its_source_can(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    items = batches(folder)

    def source() -> Any:
        return Stateful(items) if kind == "stateful" else lambda step: items[step % len(items)]

    deepcnn.train(configured(folder), run_dir=tmp_path / "whole", feed=source())
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "whole", copy)
    for path in checkpoint.paths(copy / "checkpoints")[1:]:
        path.unlink()
    with pytest.raises(RunError, match=r"fed from Python\. Resume it there: deepcnn\.resume"):
        deepcnn.resume(copy)
    with pytest.raises(RunError, match=f"expected a {kind} source"):
        deepcnn.resume(copy, feed=iter(items))
    deepcnn.resume(copy, feed=source())
    assert last(copy) == last(tmp_path / "whole")
    other = [(255 - images, labels) for images, labels in items]
    deepcnn.train(configured(folder), run_dir=tmp_path / "other", feed=Stateful(other))
    assert last(copy) != last(tmp_path / "other"), "the feed's images are those that train"


def test_a_stream_of_ones_own_steps(folder: Path, tmp_path: Path) -> None:
    source = open_dataset(folder).split("train")
    shuffle = Shuffle.of(source.shards, seed=0, readers=16, buffer=300)

    def stream(function: Callable[[Block], Block]) -> Stream:
        return Stream.extract(source.shards, shuffle).map(function).shuffle()

    streamed = configured(folder, feed="streamed", shuffle_buffer=300)
    deepcnn.train(streamed, run_dir=tmp_path / "streamed")
    deepcnn.train(configured(folder), run_dir=tmp_path / "own", feed=stream(lambda block: block))
    assert last_values(tmp_path / "own") == last_values(tmp_path / "streamed")
    negative = stream(lambda block: (255 - block[0], block[1]))
    deepcnn.train(configured(folder), run_dir=tmp_path / "negative", feed=negative)
    assert last(tmp_path / "negative") != last(tmp_path / "own")
    for path in checkpoint.paths(tmp_path / "own" / "checkpoints")[1:]:
        path.unlink()
    deepcnn.resume(tmp_path / "own", feed=stream(lambda block: block))
    assert last_values(tmp_path / "own") == last_values(tmp_path / "streamed")
    with pytest.raises(DataError, match=r"step 0: expected .*found images uint8 \[32, 8, 32, 3\]"):
        deepcnn.train(
            configured(folder),
            run_dir=tmp_path / "wrong",
            feed=stream(lambda block: (block[0][:, :8].copy(), block[1])),
        )
    assert not any("batches" in thread.name for thread in threading.enumerate())


def test_torchs_own_loader_is_a_feed(folder: Path, tmp_path: Path) -> None:
    arrays = deepcnn.load_dataset(folder, "train")
    tensors = TensorDataset(torch.from_numpy(arrays.images), torch.from_numpy(arrays.labels))
    loader = DataLoader(tensors, batch_size=32, shuffle=True, drop_last=True)
    result = deepcnn.train(configured(folder, steps=40), run_dir=tmp_path / "run", feed=loader)
    assert result.step == 40, "more than the 31 batches of an epoch"


def test_a_run_fed_by_an_iterator_says_that_it_cannot_be_resumed(
    folder: Path, tmp_path: Path
) -> None:
    items = batches(folder)
    heard: list[Event] = []
    deepcnn.train(
        configured(folder, steps=20), run_dir=tmp_path / "run", feed=iter(items), emit=heard.append
    )
    noted, *_ = [event for event in heard if isinstance(event, Noted)]
    assert "cannot be resumed" in noted.text
    with pytest.raises(RunError, match="nobody knows where it stood"):
        deepcnn.resume(
            tmp_path / "run",
            changes=lambda c: dataclasses.replace(c, steps=25),
            feed=iter(items),
        )


def test_a_run_whose_data_changed_is_not_resumed(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "set"
    shutil.copytree(folder, copy)
    deepcnn.train(configured(copy, steps=10), run_dir=tmp_path / "run")
    images, labels = next(open_dataset(copy).split("test").blocks())
    few = tfrecord.encode(images[:50], labels[:50])
    for name, split in (("train-2", "train"), ("test", "test")):
        path = copy / f"{name}.tfrecords"
        content = path.read_bytes()
        path.write_bytes(few)
        with pytest.raises(
            RunError, match=f"the {split} split changed since this run began: .* examples by class"
        ):
            deepcnn.resume(tmp_path / "run", changes=lambda c: dataclasses.replace(c, steps=12))
        path.write_bytes(content)
    result = deepcnn.resume(tmp_path / "run", changes=lambda c: dataclasses.replace(c, steps=12))
    assert result.step == 12


def test_a_feed_that_ends_too_early_names_the_step(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"step 3: .*found the end of the feed"):
        deepcnn.train(configured(folder), run_dir=tmp_path / "run", feed=iter(batches(folder)[:3]))


def test_a_damaged_shard_ends_the_training_with_its_name(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "set"
    shutil.copytree(folder, copy)
    config = configured(copy, feed="queued")
    content = bytearray((copy / "train-1.tfrecords").read_bytes())
    content[len(content) // 2 + 500] ^= 1  # within an image
    (copy / "train-1.tfrecords").write_bytes(content)
    with pytest.raises(DataError, match=r"train-1.tfrecords: .*record 150"):
        deepcnn.train(config, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists(), "found before the first step"
