"""Finds examples whose labels seem wrong: networks judge examples that they were not trained on."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from deepcnn import hashing, presets
from deepcnn.config import Config
from deepcnn.data.arrays import Arrays
from deepcnn.data.dataset import Dataset, reading
from deepcnn.data.layouts import Layout
from deepcnn.data.open import open_dataset
from deepcnn.data.shards import Shape
from deepcnn.data.source import Source, in_memory
from deepcnn.data.splits import Split
from deepcnn.devices import Place
from deepcnn.doctor import confident
from deepcnn.doctor.findings import Suspect
from deepcnn.errors import ConfigError, DataError, TrainingError
from deepcnn.events import Listener, Reading, ignore
from deepcnn.inference.scoring import blocks_to_score
from deepcnn.inference.trained import answers_of
from deepcnn.models.build import BUILDERS
from deepcnn.settings import DataSpec
from deepcnn.team.team import Team
from deepcnn.training.material import read_material
from deepcnn.training.session import FromPython, Session

FOLDS = 4
LEAST_IN_A_FOLD = 5  # examples, else a network learns from next to nothing
SMALLEST_SIDE, LARGEST_SIDE = 16, 32  # of the images that the recipe's networks see
LEAST_BATCHES, LEAST_EPOCHS = 16, 2  # batches an epoch, and epochs


def suspects(
    data: Dataset | DataSpec | str,
    *,
    config: Config | None = None,
    folds: int = FOLDS,
    emit: Listener = ignore,
) -> list[Suspect]:
    """Return the examples of all splits whose labels seem wrong, the most suspicious first.

    All splits but "extra" are joined and divided into `folds` parts, with each class in its
    proportion. A network that is trained on all other parts judges the examples of each part. Then
    confident learning tells which examples seem to have a wrong label (see `confident`).

    `config`: how to train instead of the recipe for sets of this size, with `config.seed`; its
    settings for data and scoring are not used. The same set gives the same answer, as the same
    training does. For the recipe, images above 32 pixels are made smaller, and those below 16
    larger. `emit` hears how far it is.

    Raises ConfigError for fewer than two folds. Raises DataError if there are too few examples or
    classes, or if something cannot be read.
    """
    if folds < 2:
        raise ConfigError(f"folds: expected at least 2, found {folds}")
    dataset = data if isinstance(data, Dataset) else open_dataset(data, emit=emit)
    splits = [split for split in dataset.splits if split != "extra"]
    sources = [_in_memory(dataset, split, config, emit) for split in splits]
    together = Source(tuple(s for source in sources for s in source.shards), dataset.classes)
    labels = together.labels()
    _check_size(dataset, labels, folds)
    if config is None:
        config = recipe(dataset.spec.data, len(labels) * (folds - 1) // folds)
    probabilities = out_of_fold(together, config, folds=folds, emit=emit)
    ends = list(itertools.accumulate(map(len, sources)))
    found = []
    scores = confident.suspicion(labels, probabilities)
    for index in confident.suspects(labels, probabilities).tolist():
        part = bisect.bisect_right(ends, index)
        place, given = index - (ends[part] - len(sources[part])), int(labels[index])
        others = probabilities[index].copy()
        others[given] = -1.0
        likely = int(others.argmax())
        found.append(Suspect(splits[part], place, given, likely, float(scores[index])))
    return found


def out_of_fold(
    source: Source, config: Config, *, folds: int = FOLDS, emit: Listener = ignore
) -> NDArray[np.float64]:
    """Return probabilities of all classes for each example, float64 [N, classes].

    The probabilities of an example come from a network that is trained with `config` on the other
    folds. They are a function of the set, the configuration and the number of folds. Raises
    TrainingError if a training's numbers are not finite.
    """
    fold_of = stratified_folds(source.labels(), folds, config.seed)
    found = np.empty((len(source), len(source.classes)))
    for fold in range(folds):
        left_out = fold_of == fold

        def tell(share: float, fold: int = fold) -> None:
            done = round(len(source) * (fold + share) / folds)
            emit(Reading(f"judging labels by {folds} networks", done, len(source)))

        judged = source.select(left_out)
        found[left_out] = _judged(source.select(~left_out), judged, config, tell)
    return found


def stratified_folds(labels: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each example, int64 [N], 0 to folds - 1, a function of labels and seed.

    The sizes of any two folds differ by at most one, and so do their numbers of each class.
    """
    n = len(labels)
    position = np.arange(n, dtype=np.int64)
    # Epoch 0 of this stream is for held-out splits, which are drawn apart from these.
    keys = hashing.bits(seed, hashing.SPLIT, np.ones(1, np.int64), position)
    fold_of = np.empty(n, np.int64)
    fold_of[np.lexsort((keys, labels))] = position % folds  # dealt out like cards, class by class
    return fold_of


def _judged(
    train: Source, judged: Source, config: Config, tell: Callable[[float], None]
) -> NDArray[np.float64]:
    """Train on some examples, and return the probabilities of others, float64 [k, classes].

    Nothing is written anywhere. `tell` hears the share of the training that is done.
    """
    layout = Layout(
        Path(config.data),
        "in memory",
        {"train": lambda: train.shards, "test": lambda: judged.shards},
        train.classes,
        alike=True,
    )
    alone = _alone(config)
    material = read_material(alone, Dataset(DataSpec(data=config.data), layout), None, ignore)
    name = config.model.name
    given = FromPython(model=None if name in BUILDERS else name, material=material)
    with Session.open(Team(), alone, given, ignore) as session:
        session.rehearse()
        state, steps = session.state, session.config.steps
        state.model.train()
        while state.step < steps:
            tell(session.transform.work_at(state.step / steps))
            session.fix_settled(state.step)
            session.engine.step()
            state.forget_gradients()
        session.engine.settle()
        tell(1.0)
        # in float32, as all scores of a training
        answers = answers_of(state, session.transform, Place(session.place.device, "fp32"))
        values = math.prod(session.transform.shape)
        blocks = blocks_to_score(judged, values, answers.place, session.team)
        logits = torch.cat([answers.logits(images) for images, _ in blocks])
    if not logits.isfinite().all():
        raise TrainingError(
            "A network that was to judge labels has answers that are not finite. Train with lower "
            "rates (config): deepcnn lr-find finds some."
        )
    return logits.double().softmax(1).cpu().numpy()


def _alone(config: Config) -> Config:
    """Return a configuration without its settings for a run and for held-out splits."""
    return dataclasses.replace(
        config,
        validation_size=0,
        evaluate_on=("test",),
        train_on_extra=False,
        summary_every=0,
        evaluate_every=0,
        keep_best=False,
    )


def recipe(data: str, examples: int) -> Config:
    """Return how to train on this many examples: like the preset `quick`, without mirroring.

    (It is not known here whether a set has classes that mirror each other, as arrows do.) For a
    small set, batches are smaller, so that its examples come in many combinations. Rates fall with
    the square root of the batch size, since the noise of a batch's gradient grows. A large set is
    used at least twice. This function alone decides how long the search for wrong labels takes.
    """
    preset = presets.quick()
    batch = max(1, min(preset.batch_size, examples // LEAST_BATCHES))
    factor = math.sqrt(batch / preset.batch_size)
    rates = {
        name: getattr(preset.optimizer, name) * factor
        for name in ("learning_rate", "head_learning_rate", "muon_learning_rate")
    }
    return dataclasses.replace(
        preset,
        data=data,
        inputs=dataclasses.replace(preset.inputs, flip="none"),
        optimizer=dataclasses.replace(preset.optimizer, **rates),
        steps=max(preset.steps, math.ceil(LEAST_EPOCHS * examples / batch)),
        batch_size=batch,
    )


def _in_memory(dataset: Dataset, split: Split, config: Config | None, emit: Listener) -> Source:
    """Return a split in memory; for the recipe, with images of a suitable size."""
    source = dataset.split(split)
    size = source.shape[:2] if config is not None else fit_size(source.shape)
    if size == source.shape[:2]:
        return dataset.read_whole(split, keep=True, progress=reading(split, emit))
    images = np.empty((len(source), *size, source.shape[2]), np.uint8)
    labels = np.empty(len(source), np.int64)
    place, progress = 0, reading(split, emit)
    for some, some_labels in source.blocks():
        images[place : place + len(some)] = resized(some, size)
        labels[place : place + len(some)] = some_labels
        place += len(some)
        progress(place, len(source))
    return in_memory(Arrays(images, labels, source.classes))


def fit_size(shape: Shape) -> tuple[int, int]:
    """Return the height and width that the recipe uses for images of a shape."""
    height, width, _ = shape
    factor = min(1.0, LARGEST_SIDE / max(height, width))
    if min(height, width) * factor < SMALLEST_SIDE:
        factor = SMALLEST_SIDE / min(height, width)
    return round(height * factor), round(width * factor)


def resized(images: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return images uint8 [k, *size, C]; each pixel is the mean of the area that it covers."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    resized = F.interpolate(pixels, size, mode="area")
    return resized.round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def _check_size(dataset: Dataset, labels: NDArray[np.int64], folds: int) -> None:
    """Raise DataError if there is too little to judge labels by."""
    classes = len(np.unique(labels))
    if classes < 2:
        raise DataError(
            f"{dataset.spec.data}: labels cannot be judged: expected examples of at least two "
            f"classes, found {len(labels):,} examples of {classes}"
        )
    if len(labels) < folds * LEAST_IN_A_FOLD:
        raise DataError(
            f"{dataset.spec.data}: labels cannot be judged: expected at least "
            f"{folds * LEAST_IN_A_FOLD} examples for {folds} folds, found {len(labels):,}"
        )
