"""Label suspects: planted wrong labels are found, and the way there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import deepcnn.doctor.labels
from deepcnn.config import Config
from deepcnn.data.arrays import Arrays
from deepcnn.data.dataset import Dataset
from deepcnn.data.layouts import Layout
from deepcnn.data.source import Source, in_memory
from deepcnn.data.splits import SPLITS, Opener
from deepcnn.doctor.findings import Suspect
from deepcnn.doctor.labels import fit_size, out_of_fold, recipe, resized, stratified_folds, suspects
from deepcnn.errors import ConfigError, DataError, TrainingError
from deepcnn.events import Event, Listener, Reading
from deepcnn.presets import quick
from deepcnn.settings import DataSpec, ModelConfig
from tests.helpers.tiny import QUICK, with_inputs, with_optimizer

DIGITS = tuple("0123456789")
# The recipe for small sets, narrower and shorter.
SHORT = dataclasses.replace(
    recipe("digits", 750),
    model=ModelConfig("speednet", widths=(16, 32, 48)),
    steps=60,
    device="cpu",
    precision="fp32",
    threads=1,
)


def opened(**splits: Arrays) -> Dataset:
    """Return a data set with these splits in memory."""

    def opener(arrays: Arrays) -> Opener:
        return lambda: in_memory(arrays).shards

    there = {split: opener(splits[split]) for split in SPLITS if split in splits}
    classes = next(iter(splits.values())).classes
    layout = Layout(Path("digits"), "in memory", there, classes, alike=True)
    return Dataset(DataSpec(data="digits"), layout)


def digits() -> Arrays:
    """Return handwritten digits of 8×8 pixels as 16×16, with values 0 to 16 scaled to 0 to 255.

    The first 800 of scikit-learn's `load_digits`, which are from the test set of Alpaydin and
    Kaynak: "Optical Recognition of Handwritten Digits", UCI, 1998 (CC BY 4.0).
    """
    stored = np.load(Path(__file__).with_name("digits.npz"))
    images = np.round(stored["images"] * (255 / 16)).astype(np.uint8)[..., None]
    return Arrays(images.repeat(2, 1).repeat(2, 2), stored["labels"].astype(np.int64), DIGITS)


def with_wrong_labels(arrays: Arrays, count: int) -> tuple[Arrays, set[int]]:
    """Return the same set with so many labels replaced by other ones, and where they are."""
    random = np.random.default_rng(0)
    chosen = random.choice(len(arrays), count, replace=False)
    labels = arrays.labels.copy()
    labels[chosen] = (labels[chosen] + random.integers(1, 10, count)) % 10
    return Arrays(arrays.images, labels, arrays.classes), set(chosen.tolist())


@pytest.fixture(scope="module")
def found() -> tuple[Arrays, set[int], list[Suspect], list[Event]]:
    """A look at digits of which 40 in 800 are labeled wrongly; a quarter of them is for testing."""
    whole, wrong = with_wrong_labels(digits(), 40)
    heard: list[Event] = []
    dataset = opened(train=whole.select(slice(0, 600)), test=whole.select(slice(600, None)))
    return whole, wrong, suspects(dataset, config=SHORT, emit=heard.append), heard


Floats = NDArray[np.float64]
Found = tuple[Arrays, set[int], list[Suspect], list[Event]]


def place(suspect: Suspect) -> int:
    return suspect.index + (600 if suspect.split == "test" else 0)


def test_planted_wrong_labels_are_found_in_both_splits(found: Found) -> None:
    _, wrong, suspected, _ = found
    right = [s for s in suspected if place(s) in wrong]
    assert len(right) >= 0.45 * len(wrong)  # no network is sure of more after so few steps
    assert len(right) >= 0.85 * len(suspected)
    assert {s.split for s in right} == {"train", "test"}


def test_the_worst_come_first_with_the_given_and_the_likely_class(found: Found) -> None:
    whole, wrong, suspected, _ = found
    true = digits().labels
    scores = [s.score for s in suspected]
    assert scores == sorted(scores, reverse=True)
    assert 0 <= min(scores) <= max(scores) <= 1
    assert all(s.given == whole.labels[place(s)] != s.likely for s in suspected)
    first = suspected[: len(wrong) // 2]
    assert sum(place(s) in wrong for s in first) >= 0.9 * len(first)
    assert sum(s.likely == true[place(s)] for s in first) >= 0.75 * len(first)


def test_it_is_told_how_far_the_networks_are(found: Found) -> None:
    *_, heard = found
    told = [e for e in heard if isinstance(e, Reading) and "judging" in e.what]
    done = [e.done for e in told]
    assert done == sorted(done)
    assert (done[0], done[-1], told[0].total) == (0, 800, 800)
    assert len(heard) - len(told) <= 10  # no event of the trainings themselves


def test_the_same_set_and_seed_give_the_same_probabilities_and_another_seed_others() -> None:
    source = in_memory(digits().select(slice(0, 80)))
    config = dataclasses.replace(QUICK, steps=2)
    once = out_of_fold(source, config, folds=2)
    assert (out_of_fold(source, config, folds=2) == once).all()
    assert np.allclose(once.sum(1), 1)
    other = dataclasses.replace(config, seed=1)
    assert (out_of_fold(source, other, folds=2) != once).any()


def test_no_example_is_judged_by_a_network_that_was_trained_on_it() -> None:
    """Labels of noise can only be learned by heart; those that were not learned are guessed."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (100, 16, 16, 1), dtype=np.uint8)
    labels = random.integers(0, 2, 100)
    source = in_memory(Arrays(images, labels, ("a", "b")))
    config = dataclasses.replace(with_inputs(SHORT, pad=0, scales=()), batch_size=50, steps=40)
    judged = out_of_fold(source, config, folds=2)
    assert 0.3 < (judged.argmax(1) == labels).mean() < 0.7


def test_folds_are_of_equal_size_with_equal_shares_of_each_class() -> None:
    labels = np.random.default_rng(0).choice(5, 203, p=[0.5, 0.3, 0.1, 0.09, 0.01])
    folds = stratified_folds(labels, 4, seed=0)
    counts = np.zeros((4, 5), np.int64)
    np.add.at(counts, (folds, labels), 1)
    assert np.ptp(counts, axis=0).max() <= 1
    assert np.ptp(counts.sum(1)) <= 1
    assert (stratified_folds(labels, 4, seed=0) == folds).all()
    assert (stratified_folds(labels, 4, seed=1) != folds).any()


def test_the_recipe_is_that_of_quick_unmirrored_with_smaller_batches_for_a_smaller_set() -> None:
    preset = quick()
    assert recipe("cifar10", 45_000) == with_inputs(preset, flip="none")
    small = recipe("digits", 750)
    assert (small.batch_size, small.steps) == (46, preset.steps)
    factor = (46 / 500) ** 0.5
    assert small.optimizer.learning_rate == pytest.approx(20 * factor)
    assert small.optimizer.muon_learning_rate == pytest.approx(0.18 * factor)
    assert recipe("large", 1_000_000).steps == 4000  # two epochs


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((32, 32, 3), (32, 32)),
        ((28, 28, 1), (28, 28)),
        ((8, 8, 1), (16, 16)),
        ((100, 100, 3), (32, 32)),
        ((240, 320, 3), (24, 32)),
        ((20, 200, 1), (16, 160)),
    ],
)
def test_the_recipe_takes_images_of_16_to_32_pixels(
    shape: tuple[int, int, int], expected: tuple[int, int]
) -> None:
    assert fit_size(shape) == expected


def test_images_are_resized_by_the_mean_of_the_area_of_a_pixel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 96, 3), dtype=np.uint8)
    means = images.reshape(5, 32, 2, 32, 3, 3).mean((2, 4))
    assert np.abs(resized(images, (32, 32)) - means).max() <= 0.5
    small = images[:, :8, :8]
    assert (resized(small, (16, 16)) == small.repeat(2, 1).repeat(2, 2)).all()


def test_every_split_is_judged_and_places_are_those_in_the_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = random.integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)
    whole = Arrays(images, labels, ("a", "b", "c"))
    seen = []

    def judge(source: Source, config: Config, *, folds: int, emit: Listener) -> Floats:
        seen.append((source.shape, config, folds))
        probabilities = np.full((60, 3), 0.1)
        probabilities[np.arange(60), labels] = 0.8
        for wrong, sure in ((5, 0.85), (44, 0.95), (50, 0.97), (59, 0.9)):
            probabilities[wrong] = (1 - sure) / 2
            probabilities[wrong, (labels[wrong] + 1) % 3] = sure
        return probabilities

    monkeypatch.setattr(deepcnn.doctor.labels, "out_of_fold", judge)
    parts = {"train": slice(0, 40), "validation": slice(40, 50), "test": slice(50, 60)}
    found = suspects(opened(**{split: whole.select(part) for split, part in parts.items()}))
    assert [(s.split, s.index, s.given, s.likely, round(s.score, 6)) for s in found] == [
        ("test", 0, 2, 0, 0.985),
        ("validation", 4, 2, 0, 0.975),
        ("test", 9, 2, 0, 0.95),
        ("train", 5, 2, 0, 0.925),
    ]
    assert seen == [((32, 32, 3), recipe("digits", 45), 4)]


def test_the_likely_class_is_another_one_even_if_the_given_one_is_the_most_probable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = np.arange(60) % 3
    probabilities = np.full((60, 3), 0.25)
    probabilities[np.arange(60), labels] = 0.5
    probabilities[4] = 0.55, 0.45, 0.0  # confidently of another class, so that there is one suspect
    probabilities[8] = 0.33, 0.33, 0.34  # but this one's class is less probable still
    monkeypatch.setattr(deepcnn.doctor.labels, "out_of_fold", lambda *_, **__: probabilities)
    whole = Arrays(np.zeros((60, 16, 16, 1), np.uint8), labels, ("a", "b", "c"))
    (found,) = suspects(opened(train=whole))
    assert (found.index, found.given, found.likely) == (8, 2, 0)


def test_a_set_that_is_too_small_or_of_one_class_is_refused() -> None:
    whole = digits()
    with pytest.raises(DataError, match="at least 20 examples for 4 folds, found 19"):
        suspects(opened(train=whole.select(slice(0, 19))))
    with pytest.raises(DataError, match="at least two classes, found 82 examples of 1"):
        suspects(opened(train=whole.select(whole.labels == 3)))
    with pytest.raises(ConfigError, match="folds: expected at least 2, found 1"):
        suspects(opened(train=whole), folds=1)


def test_a_training_that_diverges_says_so() -> None:
    config = dataclasses.replace(with_optimizer(QUICK, muon_learning_rate=1e30), steps=4)
    with pytest.raises(TrainingError, match="not finite"):
        suspects(opened(train=digits().select(slice(0, 80))), config=config, folds=2)
