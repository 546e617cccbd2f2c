"""The data of a training, opened and checked: for training and for scoring."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepcnn.config import Config
from deepcnn.data.dataset import Dataset, reading
from deepcnn.data.open import open_dataset
from deepcnn.data.source import Source
from deepcnn.data.splits import Split
from deepcnn.events import Event, Filling, Listener, Noted
from deepcnn.inference.scoring import splits_to_score
from deepcnn.inputs.fed import Fed
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.runs.trained_on import TrainedOn
from deepcnn.training.feeding import filling_of, make_order, needs_memory

HELD_OUT = 10  # one example in so many, where the data have nothing else to be scored on


@dataclass(frozen=True)
class Material:
    """The opened data of a training.

    `config`: with the size of the validation split that was decided on, and the number of steps.
    `train`: the training set, in memory if the feed needs this. `order`: the order in which a feed
    visits it. `filling`: the event about its queue, if there is one. `to_score`: the splits to
    score, read once so that nothing fails after the last step. `counts`: for all these splits, the
    examples of each class, int64 [classes]. `content`: their digests. `excluded`: the digest of the
    table of examples that are left out.
    """

    config: Config
    train: Source
    order: Shuffle
    filling: Filling | None
    to_score: dict[Split, Source]
    counts: dict[Split, NDArray[np.int64]]
    content: dict[str, str]
    excluded: str | None = None

    def check(self, stored: TrainedOn, emit: Listener) -> None:
        """Raise RunError if the data are not those that a run was trained on before."""
        stored.check_excluded(self.config.exclude, self.excluded)
        for split, source in {**self.to_score, "train": self.train}.items():
            stored.check(self.config.data, split, source, self.counts[split])
            stored.check_content(self.config.data, split, self.content[split], emit)


def open_material(
    config: Config,
    feed: Fed | None,
    emit: Listener,
    *,
    decide: bool,
) -> Material:
    """Open and read what a training needs.

    `feed`: the source of batches from Python, if any. `decide`: decide as a new run does, see
    `open_for_new`. Raises DataError for data that cannot be used.
    """
    if decide:
        config, dataset = open_for_new(config, emit)
    else:
        dataset = open_dataset(config, emit=emit)
    return read_material(config, dataset, feed, emit)


def read_material(config: Config, dataset: Dataset, feed: Fed | None, emit: Listener) -> Material:
    """Read what a training needs from an opened data set; otherwise as `open_material`."""
    keep = needs_memory(config, feed)
    for split in dataset.own_splits:
        if text := dataset.left_out(split):
            emit(Noted(text))
    train = dataset.split("train")
    config = config.with_steps_for(len(train))
    order = make_order(config, train)  # from the files, which a set in memory has no more
    if keep:
        train = dataset.read_whole("train", keep=True, progress=reading("train", emit))
    counts: dict[Split, NDArray[np.int64]] = {}
    counts["train"] = dataset.counts("train", reading("labels", emit))
    to_score: dict[Split, Source] = {}
    for split in splits_to_score(config, dataset):
        if split == "train":
            to_score[split] = train
        else:
            progress = reading(split, emit)
            to_score[split] = dataset.read_whole(split, keep=keep, progress=progress)
        counts[split] = dataset.counts(split)
    filling = filling_of(config, feed, dataset.form, len(train))
    content: dict[str, str] = {split: dataset.content(split) for split in counts}
    return Material(config, train, order, filling, to_score, counts, content, dataset.excluded)


def open_for_new(config: Config, emit: Listener) -> tuple[Config, Dataset]:
    """Open the data of a new run, and decide what the run stores about them.

    If pictures have all kinds of sizes, they are brought to a size in the middle. If there is
    nothing else to score on, a validation split is held out.
    """
    settled = False
    notes: list[Event] = []

    def hear(event: Event) -> None:
        if isinstance(event, Noted) and not settled:
            notes.append(event)
        else:
            emit(event)

    dataset = open_dataset(config, emit=hear)
    dataset.check_size()
    size = dataset.usual_size() if config.image_size is None else None
    settled = True
    if size is None or size == dataset.split("train").shape[:2]:
        for event in notes:
            emit(event)
    else:
        config = dataclasses.replace(config, image_size=size)
        dataset = open_dataset(config, emit=emit)
        height, width = size
        emit(
            Noted(
                f"{config.data}: no size is that of half of the pictures; all are brought to "
                f"{height}×{width}, in the middle of them (--image-size)."
            )
        )
    return _with_validation(config, dataset, emit)


def _with_validation(config: Config, dataset: Dataset, emit: Listener) -> tuple[Config, Dataset]:
    """Hold out a tenth of the examples if the data have nothing else to score on.

    Copies of an image stay on the same side: an image seen in training would be known already.
    """
    if "validation" in dataset.splits or "test" in dataset.splits:
        if config.validation_size and (copies := _of_copies(dataset)):
            emit(Noted(f"{config.data}:{copies}"))
        return config, dataset
    size = max(1, round(len(dataset.split("train")) / HELD_OUT))
    config = dataclasses.replace(config, validation_size=size, copies_together=True)
    dataset = dataset.hold_out(size, copies_together=True)
    held = len(dataset.split("validation"))
    are = "is" if held == 1 else "are"
    emit(
        Noted(
            f"{config.data} has neither a validation nor a test split: {held} of its examples "
            f"{are} held out to score on, each class in its proportion (--validation-size)."
            + _of_copies(dataset)
        )
    )
    return config, dataset


def _of_copies(dataset: Dataset) -> str:
    """Return how many copies of images are kept on their side of a held-out split, or ""."""
    count = dataset.copies_held_together() if dataset.spec.copies_together else 0
    if not count:
        return ""
    there = "1 image is a copy" if count == 1 else f"{count:,} images are copies"
    return (
        f" {there} of another one; copies are held out together or not at all (--copies-together)."
    )
