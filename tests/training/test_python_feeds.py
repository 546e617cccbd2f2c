"""What Python feeds may be: pipelines, images that are prepared, and sources that end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deepcnn
from deepcnn import presets
from deepcnn.config import Config
from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import npz
from deepcnn.data.open import open_dataset
from deepcnn.data.shards import ToWrite
from deepcnn.devices import Part
from deepcnn.errors import ConfigError, DataError, RunError
from deepcnn.events import Event, Noted, Stepped
from deepcnn.inputs import Fed, Stream
from deepcnn.inputs.loader import Loader
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.runs import checkpoint
from deepcnn.settings import ModelConfig
from tests.helpers.stored import change
from tests.helpers.tiny import (
    CPU,
    Stateful,
    feed_of,
    last,
    logged,
    saved,
    tiny,
    transform_of,
    with_inputs,
    with_optimizer,
)


@pytest.fixture(scope="module")
def folder(cifar10_test: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 real images to train on, and 50 to score on."""
    path = tmp_path_factory.mktemp("set")
    for name, a, b in (("train", 0, 300), ("test", 300, 350)):
        part = cifar10_test.select(slice(a, b))
        with (path / f"{name}.npz").open("wb") as file:
            npz.write(file, ToWrite(b - a, part.shape, part.classes, [(part.images, part.labels)]))
    return path


def configured(folder: Path, **changes: Any) -> Config:
    return tiny(**({"data": str(folder), "steps": 12, "save_every": 4} | changes))


def batches(folder: Path, count: int) -> list[tuple[Any, Any]]:
    arrays = deepcnn.load_dataset(folder, "train")
    return [
        (arrays.images[i : i + 32], arrays.labels[i : i + 32]) for i in range(0, 32 * count, 32)
    ]


def stopped_at(run: Path, step: int, copy: Path, steps: int) -> Path:
    """Copy a run as it was behind a step, when it was to have so many."""
    shutil.copytree(run, copy)
    for path in checkpoint.paths(copy / "checkpoints"):
        if checkpoint.step_of(path) > step:
            path.unlink()
    change(copy, steps=steps)
    return copy


# Sources that end


class Ending(Stateful):
    """An iterator that can tell where it is, and ends."""

    def __next__(self) -> Any:
        if self._at == len(self._items):
            raise StopIteration
        return super().__next__()


def ends_by_none(items: list[Any]) -> Callable[[int], Any]:
    return lambda step: items[step] if step < len(items) else None


@pytest.mark.parametrize("make", [iter, list, ends_by_none, Ending])
@pytest.mark.parametrize("towers", [0, 2])
def test_a_training_ends_where_its_feed_does_as_if_its_steps_had_been_so_many(
    folder: Path, tmp_path: Path, make: Callable[[Any], Any], towers: int
) -> None:
    items, heard = batches(folder, 6), list[Event]()
    config = configured(folder, towers=towers)
    few = [(images[:5], labels[:5]) for images, labels in items[:1]]
    result = deepcnn.train(
        config,
        run_dir=tmp_path / "run",
        feed=Fed(make(items + few), ends=True),
        emit=heard.append,
    )
    assert (result.step, result.evaluated is not None) == (6, True)
    assert checkpoint.step_of(saved(tmp_path / "run")[-1]) == 6
    assert [event["step"] for event in logged(tmp_path / "run", "Stepped")] == [0, 5]
    assert json.loads((tmp_path / "run/config.json").read_text())["steps"] == 6
    assert any(
        isinstance(event, Noted) and event.text == "The feed ended after step 6 of 12."
        for event in heard
    )
    if make is ends_by_none:
        short = configured(folder, towers=towers, steps=6)
        deepcnn.train(short, run_dir=tmp_path / "short", feed=make(items))
        assert last(tmp_path / "run") == last(tmp_path / "short")


@pytest.mark.parametrize("make", [ends_by_none, Ending])
@pytest.mark.parametrize("step", [4, 6])
def test_a_run_whose_feed_ends_resumes_to_the_same_end(
    folder: Path, tmp_path: Path, make: Callable[[Any], Any], step: int
) -> None:
    """Also where it was killed between its last checkpoint and the note of its end."""
    items = batches(folder, 6)
    config = with_optimizer(configured(folder), schedule="linear")
    deepcnn.train(config, run_dir=tmp_path / "run", feed=Fed(make(items), ends=True))
    copy = stopped_at(tmp_path / "run", step, tmp_path / "copy", config.steps)
    result = deepcnn.resume(copy, feed=Fed(make(items), ends=True))
    assert (result.step, result.evaluated is not None) == (6, True)
    assert last(copy) == last(tmp_path / "run")
    assert json.loads((copy / "config.json").read_text())["steps"] == 6
    if make is Ending:
        with pytest.raises(RunError, match="expected a stateful, ends source"):
            deepcnn.resume(copy, feed=Stateful(items))


def test_what_goes_by_shares_is_told_to_have_gone_by_all_steps(
    folder: Path, tmp_path: Path
) -> None:
    heard: list[Event] = []
    config = with_optimizer(configured(folder), schedule="linear")
    feed = Fed(batches(folder, 3), ends=True)
    deepcnn.train(config, run_dir=tmp_path / "run", feed=feed, emit=heard.append)
    text = "The feed ended after step 3 of 12. Rates, sizes and frozen layers went"
    assert any(event.text.startswith(text) for event in heard if isinstance(event, Noted))
    rates = [event.learning_rate for event in heard if isinstance(event, Stepped)]
    assert rates[-1] == pytest.approx(0.02 * (1 - 2 / 12))


def test_a_feed_without_a_batch_is_an_error_and_one_that_lasts_longer_is_not_asked_more(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"step 0: .*found the end of the feed"):
        deepcnn.train(configured(folder), run_dir=tmp_path / "none", feed=Fed([], ends=True))
    asked: list[int] = []

    def source() -> Iterator[Any]:
        for i, batch in enumerate(batches(folder, 9)):
            asked.append(i)
            yield batch

    config = configured(folder, steps=5)
    result = deepcnn.train(config, run_dir=tmp_path / "run", feed=Fed(source(), ends=True))
    assert result.step == 5
    assert len(asked) == 6


# Pipelines


def pipeline(folder: Path) -> Stream:
    """Every step: one class less, and the others twice, mirrored."""
    source = open_dataset(folder).split("train")

    def both(image: Any, label: Any) -> tuple[Any, Any]:
        return np.stack([image, image[:, ::-1]]), np.array([label, label])

    first = Stream.of(source, seed=1, readers=4, buffer=100).filter(lambda b: b[1] != 3)
    other = Stream.of(source, seed=2, buffer=50).shuffle().take(40).cache()
    return first.shuffle().flat_map(both).interleave(other, length=3)


def test_a_pipeline_with_a_state_resumes_to_the_same_bits_and_ends_after_its_epochs(
    folder: Path, tmp_path: Path
) -> None:
    feed = pipeline(folder)
    result = deepcnn.train(configured(folder), run_dir=tmp_path / "run", feed=feed)
    assert result.step == 12
    for step in (4, 8):
        copy = stopped_at(tmp_path / "run", step, tmp_path / f"from {step}", 12)
        deepcnn.resume(copy, feed=pipeline(folder))
        assert last(copy) == last(tmp_path / "run")
    labels = deepcnn.load_dataset(folder, "train").labels
    count = 2 * int((labels != 3).sum()) + 40
    result = deepcnn.train(
        configured(folder, steps=100), run_dir=tmp_path / "ends", feed=feed.repeat(2)
    )
    assert result.step == 2 * count // 32


def test_batches_of_a_pipeline_are_a_feed_too(folder: Path, tmp_path: Path) -> None:
    def whole() -> Any:
        return pipeline(folder).batch(32, remainder="drop")

    deepcnn.train(configured(folder), run_dir=tmp_path / "run", feed=whole())
    copy = stopped_at(tmp_path / "run", 4, tmp_path / "copy", 12)
    deepcnn.resume(copy, feed=whole())
    assert last(copy) == last(tmp_path / "run")


# Prepared images


def prepared(config: Config) -> Callable[[int], Any]:
    """The network's input that a training in memory has."""
    loader = Loader(
        feed_of(config), transform_of(config), seed=config.seed, training_steps=config.steps
    )
    return lambda step: loader.load(step, Part(0, 1, CPU))


def test_prepared_images_train_to_the_bits_of_those_that_are_prepared_here(
    folder: Path, tmp_path: Path
) -> None:
    config = configured(folder)
    expected = deepcnn.train(config, run_dir=tmp_path / "memory")
    feed = Fed(prepared(config), prepared=True)
    result = deepcnn.train(config, run_dir=tmp_path / "run", feed=feed)
    assert last(tmp_path / "run") == last(tmp_path / "memory")
    assert result.evaluated == expected.evaluated, "scored by the run's own transform"
    images = deepcnn.load_dataset(folder, "test").images[:3]
    one, other = (deepcnn.load(tmp_path / name, device="cpu") for name in ("run", "memory"))
    assert np.array_equal(one.probabilities(images), other.probabilities(images))
    copy = stopped_at(tmp_path / "run", 4, tmp_path / "copy", 12)
    with pytest.raises(RunError, match="expected a function, prepared source"):
        deepcnn.resume(copy, feed=prepared(config))
    deepcnn.resume(copy, feed=feed)
    assert last(copy) == last(tmp_path / "memory")


def test_rows_of_pixels_are_the_input_of_the_fully_connected_network(
    folder: Path, tmp_path: Path
) -> None:
    """As the reference's placeholder of floats takes them; other networks refuse them."""
    config = with_inputs(
        configured(folder, model=ModelConfig("mlp", (16, 8))),
        crop=1.0,
        flip="none",
        contrast=None,
        standardize="unit",
    )
    arrays, order = deepcnn.load_dataset(folder, "train"), Shuffle.full(0, 300)

    def rows(step: int) -> Any:
        index, _, _ = order.batch(step, 32)
        return arrays.images[index].reshape(32, -1).astype(np.float32) / 255, arrays.labels[index]

    deepcnn.train(config, run_dir=tmp_path / "memory")
    deepcnn.train(config, run_dir=tmp_path / "run", feed=Fed(rows, prepared=True))
    tensors = [checkpoint.load(saved(tmp_path / name)[-1])[1] for name in ("run", "memory")]
    for name, tensor in tensors[0].items():  # 1/255 is rounded once more there
        assert torch.allclose(tensor, tensors[1][name], rtol=1e-4, atol=1e-6), name
    with pytest.raises(DataError, match=r"expected \(images float32 \[32, 3, 24, 24\], labels"):
        deepcnn.train(configured(folder), run_dir=tmp_path / "other", feed=Fed(rows, prepared=True))


@pytest.mark.parametrize(
    ("name", "value"), [("scales", ((0.0, 0.5),)), ("mixup", 1.0), ("cutmix", 1.0)]
)
def test_prepared_images_do_not_grow_and_are_not_mixed(
    folder: Path, tmp_path: Path, name: str, value: Any
) -> None:
    config = with_inputs(presets.quick(), **({"scales": ()} | {name: value}))
    with pytest.raises(ConfigError, match=rf"inputs.{name}: images of a prepared feed are trained"):
        deepcnn.train(
            config, data=str(folder), run_dir=tmp_path / "run", feed=Fed(iter([]), prepared=True)
        )
    assert not (tmp_path / "run").exists()
