"""The queue's order of a set in memory, and how long a training is in epochs."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deepcnn
from deepcnn import presets
from deepcnn.config import Config
from deepcnn.console import console
from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import cifar
from deepcnn.data.open import open_dataset
from deepcnn.devices import Part
from deepcnn.errors import ConfigError
from deepcnn.events import Event, Filling, Started
from deepcnn.runs import checkpoint
from deepcnn.runs.run import Run
from deepcnn.training.feeding import make_order
from deepcnn.training.material import open_material
from tests.helpers.tiny import CPU, feed_of, last, tiny

QUEUE: dict[str, Any] = {"order": "queue", "min_fraction_of_examples_in_queue": 0.3, "readers": 4}


@pytest.fixture(scope="module")
def folder(cifar10_test: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 real images in CIFAR's form, as three training files, and 100 to score on."""
    path = tmp_path_factory.mktemp("set")
    for i, (a, b) in enumerate(((0, 400), (400, 700), (700, 1000))):
        part = cifar10_test.select(slice(a, b))
        (path / f"data_batch_{i + 1}.bin").write_bytes(cifar.TEN.encode(part.images, part.labels))
    part = cifar10_test.select(slice(1000, 1100))
    (path / "test_batch.bin").write_bytes(cifar.TEN.encode(part.images, part.labels))
    return path


def configured(folder: Path, **changes: Any) -> Config:
    settings = {"data": str(folder), "steps": 40, "save_every": 10, **QUEUE} | changes
    return tiny(**settings)


@pytest.mark.parametrize("validation_size", [0, 100])
def test_a_set_in_memory_comes_in_the_queues_order_whoever_feeds_it(
    folder: Path, tmp_path: Path, validation_size: int
) -> None:
    """More than an epoch, to the same bits; and told as the reference does."""
    told = Filling(int(0.3 * (1000 - validation_size)), "CIFAR")
    for feed in ("queued", "preloaded", "fed"):
        heard: list[Event] = []
        config = configured(folder, feed=feed, validation_size=validation_size)
        deepcnn.train(config, run_dir=tmp_path / feed, emit=heard.append)
        assert [event for event in heard if isinstance(event, Filling)] == [told]
    assert last(tmp_path / "preloaded") == last(tmp_path / "queued")
    assert last(tmp_path / "fed") == last(tmp_path / "queued")
    deepcnn.train(
        configured(folder, order="epochs", validation_size=validation_size),
        run_dir=tmp_path / "epochs",
    )
    assert last(tmp_path / "epochs") != last(tmp_path / "queued")


def test_a_run_in_the_queues_order_resumes_to_the_same_bits_and_keeps_its_order(
    folder: Path, tmp_path: Path
) -> None:
    deepcnn.train(configured(folder), run_dir=tmp_path / "whole")
    for path in checkpoint.paths(tmp_path / "whole/checkpoints")[:3]:
        copy = tmp_path / path.stem
        shutil.copytree(tmp_path / "whole", copy)
        for later in checkpoint.paths(copy / "checkpoints"):
            if checkpoint.step_of(later) > checkpoint.step_of(path):
                later.unlink()
        deepcnn.resume(copy)
        assert last(copy) == last(tmp_path / "whole")
    with pytest.raises(ConfigError, match="order: cannot change when this run is resumed"):
        deepcnn.resume(copy, changes=lambda c: dataclasses.replace(c, order="epochs", steps=50))


def test_a_run_of_before_there_was_a_choice_goes_on_in_its_own_order(
    folder: Path, tmp_path: Path
) -> None:
    deepcnn.train(configured(folder, order="epochs"), run_dir=tmp_path / "run")
    expected = last(tmp_path / "run")
    checkpoint.paths(tmp_path / "run/checkpoints")[-1].unlink()
    stored = Run(tmp_path / "run").read("config.json")
    assert stored.pop("order") == "epochs"
    (tmp_path / "run/config.json").write_text(json.dumps(stored))
    deepcnn.resume(tmp_path / "run")
    assert last(tmp_path / "run") == expected


def test_the_tutorial_draws_from_20000_that_wait_read_in_16_places(cifar10_folder: Path) -> None:
    config = dataclasses.replace(presets.tutorial(), data_dir=str(cifar10_folder.parent))
    source = open_dataset(config).split("train")
    order = make_order(config, source)
    assert (order.buffer, order.readers, len(order.counts)) == (20_000 + 128, 16, 5)
    told: list[Event] = []
    assert open_material(config, None, told.append, decide=True).filling == Filling(20_000, "CIFAR")
    batch = feed_of(config).batch(0, Part(0, 1, CPU))
    assert np.array_equal(batch.index.numpy(), order.epoch(0)[:128])
    assert np.array_equal(batch.images.numpy(), source.load().images[batch.index.numpy()])
    assert np.array_equal(np.sort(order.epoch(0)), np.arange(50_000))
    assert set(order.epoch(0)[:20_000] // 10_000) == set(range(5)), "of every file"


def test_the_console_says_it_in_the_references_words(capsys: pytest.CaptureFixture[str]) -> None:
    with console(as_json=False) as tell:
        tell(Filling(20_000, "CIFAR"))
        tell(Filling(400))
    assert capsys.readouterr().out.splitlines() == [
        "Filling queue with 20000 CIFAR images before starting to train.",
        "Filling queue with 400 images before starting to train.",
    ]


# Epochs


def test_epochs_are_stored_as_steps_and_told_as_both(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(folder, epochs=1.5)
    result = deepcnn.train(config, run_dir=tmp_path / "run", progress=True)
    assert result.step == 46  # 1,500 / 32
    first = capsys.readouterr().out.splitlines()[0]
    assert " steps 0 to 46 of batch 32, 1.47 epochs, on cpu" in first
    stored = json.loads((tmp_path / "run/config.json").read_text())
    assert (stored["steps"], stored["epochs"]) == (46, None)
    deepcnn.train(configured(folder, steps=46), run_dir=tmp_path / "steps")
    assert last(tmp_path / "steps") == last(tmp_path / "run")
    on = deepcnn.resume(tmp_path / "run", changes=lambda c: dataclasses.replace(c, epochs=2))
    assert on.step == 62
    with pytest.raises(ConfigError, match="steps and epochs both say how long"):
        deepcnn.resume(
            tmp_path / "run", changes=lambda c: dataclasses.replace(c, epochs=3, steps=99)
        )


def test_epochs_count_the_examples_that_are_left_to_train_on(folder: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    deepcnn.train(
        "tiny",
        data=str(folder),
        epochs=1,
        validation_size=500,
        summary_every=0,
        run_dir=tmp_path / "run",
        emit=heard.append,
    )
    (started,) = [event for event in heard if isinstance(event, Started)]
    assert (started.steps, started.examples) == (15, 500)


def test_schedules_by_shares_of_the_training_follow_epochs(folder: Path, tmp_path: Path) -> None:
    runs = {}
    for name, length in (("epochs", 1.0), ("steps", 31)):
        config = configured(folder, **{name: length})
        linear = dataclasses.replace(config.optimizer, schedule="linear", momentum=0.0)
        config = dataclasses.replace(config, optimizer=linear)
        deepcnn.train(config, run_dir=tmp_path / name)
        runs[name] = last(tmp_path / name)
    assert runs["epochs"] == runs["steps"]


def test_from_python_steps_and_epochs_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="steps and epochs both say how long to train"):
        deepcnn.train("tiny", steps=3, epochs=2)
    with pytest.raises(ConfigError, match="steps and epochs both say how long to train"):
        deepcnn.train(dataclasses.replace(presets.tiny(), epochs=2), steps=3)
