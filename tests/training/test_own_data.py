"""Training on data of one's own: other sizes, other classes, other splits."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import deepcnn
from deepcnn import presets
from deepcnn.data.arrays import Arrays
from deepcnn.data.fetch import fetch
from deepcnn.data.formats.decoding import encode
from deepcnn.data.open import load_dataset, open_dataset
from deepcnn.devices import Place
from deepcnn.events import Event, Noted
from deepcnn.inference.trained import Trained, newest
from deepcnn.runs.run import Run
from deepcnn.training.start import resume
from tests.helpers.own_data import images_of, write_pictures
from tests.helpers.shards import FASHION_MNIST
from tests.helpers.tiny import tiny

SHAPES = [(28, 28, 1), (20, 36, 3), (40, 24, 4)]
# The network of speedrun96 is that of speedrun94, wider and residual: one shape takes ten seconds.
PRESETS = [name for name in presets.PRESETS if name != "speedrun96"]


@pytest.mark.parametrize(
    ("preset", "shape"), [*itertools.product(PRESETS, SHAPES), ("speedrun96", SHAPES[1])]
)
def test_other_sizes_flow_through_every_preset(
    tmp_path: Path, preset: str, shape: tuple[int, int, int]
) -> None:
    images, labels = images_of(60, *shape, classes=4)
    np.savez(tmp_path / "train.npz", images=images, labels=labels)
    np.savez(tmp_path / "test.npz", images=images, labels=labels)
    config = dataclasses.replace(
        presets.PRESETS[preset](),
        data=str(tmp_path),
        steps=2,
        batch_size=10,
        validation_size=0,
        evaluate_on=(),
        summary_every=1,
        device="cpu",
        precision="fp32",
    )
    result = deepcnn.train(config, run_dir=tmp_path / "run")
    assert result.evaluated is not None
    assert (result.evaluated.split, result.evaluated.total) == ("test", 60)
    assert deepcnn.evaluate(tmp_path / "run") == result.evaluated


def test_a_folder_without_splits_trains_and_is_scored_on_held_out_examples(
    tmp_path: Path,
) -> None:
    images, labels = images_of(300, 16, 16, 3)
    write_pictures(tmp_path / "set", images, labels)
    heard: list[Event] = []
    config = dataclasses.replace(
        presets.quick(), data=str(tmp_path / "set"), steps=40, batch_size=30, summary_every=0
    )
    result = deepcnn.train(config, run_dir=tmp_path / "run", emit=heard.append)
    assert any(isinstance(e, Noted) and "30 of its examples are held out" in e.text for e in heard)
    assert result.evaluated is not None
    assert (result.evaluated.split, result.evaluated.total) == ("validation", 30)
    assert result.evaluated.accuracy == 1.0
    assert deepcnn.evaluate(tmp_path / "run", "validation") == result.evaluated


def test_copies_of_an_image_are_held_out_together_and_counted(tmp_path: Path) -> None:
    """Each of 30 images is there four times: a tenth at random would have copies of most."""
    images, labels = four_times(*images_of(30, 8, 8, 3))
    write_pictures(tmp_path / "set", images, labels)
    heard: list[Event] = []
    config = tiny(data=str(tmp_path / "set"), steps=4)
    result = deepcnn.train(config, run_dir=tmp_path / "run", emit=heard.append)
    (told,) = [e.text for e in heard if isinstance(e, Noted) and "held out" in e.text]
    assert "12 of its examples are held out to score on" in told
    assert "90 images are copies of another one; copies are held out together" in told
    stored = Run.open(result.run).config()
    assert (stored.validation_size, stored.copies_together) == (12, True)
    train, held = (
        {image.tobytes() for image in open_dataset(stored).split(split).load().images}
        for split in ("train", "validation")
    )
    assert (len(train), len(held), len(train & held)) == (27, 3, 0)
    assert deepcnn.evaluate(tmp_path / "run", "validation") == result.evaluated
    deepcnn.train(dataclasses.replace(stored, steps=2), run_dir=tmp_path / "half")
    again = resume(tmp_path / "half", changes=lambda c: dataclasses.replace(c, steps=4))
    assert again.evaluated == result.evaluated


def test_a_held_out_size_of_ones_own_keeps_its_examples_unless_asked(tmp_path: Path) -> None:
    images, labels = four_times(*images_of(30, 8, 8, 3))
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    config = tiny(data=str(tmp_path / "set.npz"), steps=1, validation_size=12)
    for together, told in ((False, 0), (True, 1)):
        heard: list[Event] = []
        chosen = dataclasses.replace(config, copies_together=together)
        result = deepcnn.train(chosen, run_dir=tmp_path / f"{together}", emit=heard.append)
        assert sum(isinstance(e, Noted) and "90 images are copies" in e.text for e in heard) == told
        assert Run.open(result.run).config().copies_together == together


def four_times(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[Any, Any]:
    return np.repeat(images, 4, axis=0), np.repeat(labels, 4)


def test_balanced_weights_help_the_rare_class(tmp_path: Path) -> None:
    """Nine in ten are of one class; the other one differs little, under much noise."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 1500), ("test", 600)):
        labels = (np.arange(count) % 10 == 0).astype(np.int64)
        images = rng.integers(0, 200, (count, 12, 12, 1))
        images[:, :3] += (labels * 25)[:, None, None, None]
        np.savez(tmp_path / f"{split}.npz", images=images.astype(np.uint8), labels=labels)
    test = load_dataset(tmp_path, "test")
    recall = {}
    for weights in ("none", "balanced"):
        config = dataclasses.replace(
            presets.mnist(),
            data=str(tmp_path),
            validation_size=0,
            evaluate_on=("test",),
            steps=200,
            class_weights=weights,
            summary_every=0,
        )
        heard: list[Event] = []
        deepcnn.train(config, run_dir=tmp_path / weights, emit=heard.append)
        recall[weights] = recall_of_rare(tmp_path / weights, test)
    assert recall["balanced"] > recall["none"] + 0.3, recall


def recall_of_rare(run: Path, test: Arrays) -> float:
    opened = Run.open(run)
    trained = Trained.load(opened, newest(opened)[0], averaged=False)
    answers = trained.answers(Place.choose("cpu", "fp32"))
    rare = test.select(test.labels == 1)
    found = answers.logits(torch.from_numpy(rare.images)).argmax(1)
    return float((found == 1).float().mean())


def test_the_mnist_program_on_real_data(tmp_path: Path) -> None:
    fetched = fetch("fashion_mnist", data_dir=tmp_path, source=FASHION_MNIST)
    config = dataclasses.replace(
        presets.mnist(), data="fashion_mnist", data_dir=str(fetched.parent), steps=600
    )
    assert (config.model.widths, config.batch_size) == ((128, 32), 100)
    result = deepcnn.train(config, run_dir=tmp_path / "run")
    assert [(s.split, s.total) for s in result.scores] == [
        ("train", 55_000),
        ("validation", 5_000),
        ("test", 10_000),
    ]
    assert 0.68 < result.scores[2].accuracy < 0.78  # 2,000 steps give about 0.80


def test_pictures_of_all_sizes_are_brought_to_one_in_the_middle_of_them(tmp_path: Path) -> None:
    """Not to that of a few, by which most of the others would lose half of what they show."""
    sizes = [(20, 60), (20, 60), *((24 + i, 22 + i % 5) for i in range(18))]  # height, width
    for index, (height, width) in enumerate(sizes):
        path = tmp_path / "set" / "ab"[index % 2] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)
        path.write_bytes(encode(pixels))
    heard: list[Event] = []
    config = tiny(data=str(tmp_path / "set"), steps=2, batch_size=4)
    deepcnn.train(config, run_dir=tmp_path / "run", emit=heard.append)
    run = Run(tmp_path / "run")
    proportion = np.median([height / width for height, width in sizes])
    area = np.median([height * width for height, width in sizes])
    height, width = np.sqrt(area * proportion), np.sqrt(area / proportion)
    assert run.config().image_size == (round(height), round(width))
    notes = [event.text for event in heard if isinstance(event, Noted)]
    told = f"all are brought to {round(height)}×{round(width)}, in the middle of them"
    assert sum(told in note for note in notes) == 1
    assert not any("20×60" in note for note in notes)
    resume(tmp_path / "run", changes=lambda config: dataclasses.replace(config, steps=3))
    # What was trained before, at the commonest size, goes on with that.
    assert load_dataset(tmp_path / "set", "train").images.shape[1:3] == (20, 60)
