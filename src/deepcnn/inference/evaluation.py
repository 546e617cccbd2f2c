"""Evaluation of a run: once, or of every checkpoint while it is still being trained."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepcnn.config import Config
from deepcnn.data.dataset import Dataset, reading
from deepcnn.data.open import check_still_there, open_dataset
from deepcnn.data.shards import by
from deepcnn.data.source import Source, relabeled
from deepcnn.data.splits import Split
from deepcnn.devices import Place, Precision, use_threads
from deepcnn.errors import ConfigError, DataError
from deepcnn.events import Evaluated, Event, Listener, Noted, Waiting, ignore
from deepcnn.hardware import keep_freed_memory
from deepcnn.inference.answered import Answered
from deepcnn.inference.answers import Answers
from deepcnn.inference.calibration import ERROR, Calibration, Floats, calibrate
from deepcnn.inference.scoring import (
    Kept,
    blocks_to_score,
    find_margin,
    score,
    splits_to_score,
)
from deepcnn.inference.trained import Trained, newest, newest_or_none
from deepcnn.models.build import Given
from deepcnn.runs import checkpoint, statistics
from deepcnn.runs.run import CALIBRATION, Run
from deepcnn.runs.tensorboard import TensorBoard
from deepcnn.runs.trained_on import TrainedOn
from deepcnn.settings import Views
from deepcnn.team.team import Team

LIKELIEST: tuple[Split, ...] = ("test", "validation", "train")  # to be meant of other data
_POLL_SECONDS = 0.5


def evaluate(
    run: str | Path,
    split: Split | None = None,
    *,
    averaged: bool = True,
    examples: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    precision: Precision = "fp32",
    data: str | Path | None = None,
    data_dir: str | Path | None = None,
    model: Given | None = None,
    views: Views | None = None,
    emit: Listener = ignore,
) -> Evaluated:
    """Score the newest checkpoint of a run; see `Scorer` for the arguments and the errors."""
    return Scorer(
        run,
        split,
        averaged=averaged,
        examples=examples,
        device=device,
        threads=threads,
        precision=precision,
        data=data,
        data_dir=data_dir,
        model=model,
        views=views,
        emit=emit,
    ).once()


class Scorer:
    """Scores checkpoints of a run on a whole split or its first `examples`, each counted once.

    `split`: the split to score on; None: the one that the training was scored on. `data`: another
    labelled data set, or the same one at another place. `data_dir`: the folder of all data sets;
    None: the run's own.

    `averaged`: use the moving averages of the parameters, if the run keeps any. `device`,
    `threads`, `precision`: where and how to compute; they may differ from the training's. `views`:
    the views over which the answers are averaged; None: as the run says. With other views nothing
    is written into the run, and the calibration does not hold.

    `model`: the network again, if it is not one of this package. `emit` hears if data must be
    fetched, and which damaged checkpoints are skipped. Raises RunError, ConfigError or DataError,
    which say what is missing or does not fit.

    The attribute `source` holds the examples, and `split` their name.
    """

    def __init__(
        self,
        run: str | Path,
        split: Split | None = None,
        *,
        averaged: bool = True,
        examples: int | None = None,
        device: str = "auto",
        threads: int | None = None,
        precision: Precision = "fp32",
        data: str | Path | None = None,
        data_dir: str | Path | None = None,
        model: Given | None = None,
        views: Views | None = None,
        emit: Listener = ignore,
    ) -> None:
        self._run, self._emit = Run.open(Path(run)), emit
        self._averaged = averaged
        self._model = model
        self._views = views
        self._config = config = self._run.config()
        self._own = data is None
        keep_freed_memory()
        self._place = Place.choose(device, precision)
        use_threads(threads)
        if data_dir is not None:
            config = dataclasses.replace(config, data_dir=str(data_dir))
        trained_on = TrainedOn.read(self._run)
        if data is None:
            self.split, source = _own_split(config, trained_on, split, emit)
        else:
            self.split, source = other_split(config, trained_on, str(data), split, emit)
        if examples is not None and not 1 <= examples <= len(source):
            raise ConfigError(f"examples: expected 1 to {len(source)}, found {examples}")
        self.source = _first(source, examples)
        values = math.prod(trained_on.transform.shape)
        self._blocks = partial(blocks_to_score, self.source, values, self._place, Team())

    def once(self, step: int | None = None) -> Evaluated:
        """Score the checkpoint of a step (None: the newest), and write its summaries.

        Raises CheckpointError if there is none.
        """
        evaluated, summary = self._score(self._load(step))
        if self._own and self._views is None and self._config.summary_every:
            with closing(_Board(self._run, self.split, self._emit)) as board:
                board.show(evaluated, summary)
        return evaluated

    def answered(self, step: int | None = None) -> tuple[Trained, Answered]:
        """Return the network of a checkpoint (None: the best or the newest), and all its answers.

        Raises DataError if there are too many answers for the memory.
        """
        trained = self._load(step)
        logits, labels, _ = self._all_answers(trained.answers(self._place))
        return trained, Answered(
            self.split, trained.step, trained.averaged, logits, labels, trained.calibration
        )

    def calibrate(self, step: int | None = None, *, error: float = ERROR) -> Calibration:
        """Find a temperature and thresholds on the split, and store them in the run.

        `error`: the share of the answers that may be wrong. Raises ConfigError if it is not a
        share, and DataError if there are too many examples for the memory.
        """
        if not 0 < error < 1:
            raise ConfigError(f"error: expected above 0 and below 1, found {error}")
        trained = self._load(step)
        answers = trained.answers(self._place)
        answers.margin = find_margin(answers, self._blocks, Team())
        logits, labels, statistics = self._all_answers(answers)
        found = calibrate(
            logits,
            labels,
            step=trained.step,
            averaged=trained.averaged,
            split=self.split,
            margin=answers.margin,
            statistics=statistics,
            error=error,
        )
        self._run.write(CALIBRATION, found.to_dict())
        return found

    def _load(self, step: int | None) -> Trained:
        return self._seen(
            Trained.open(
                self._run, step, averaged=self._averaged, model=self._model, emit=self._emit
            )
        )

    def _seen(self, trained: Trained) -> Trained:
        return trained if self._views is None else trained.seen_from(self._views)

    def _all_answers(
        self, answers: Answers
    ) -> tuple[Floats, NDArray[np.int64], NDArray[np.float64] | None]:
        kept = Kept()
        score(answers, self._blocks, kept)
        known = kept.over(Team())
        if known is None:
            raise DataError(
                f"{self.split}: {len(self.source):,} examples have more answers than are kept in "
                "memory. Take fewer: --examples"
            )
        return known

    def follow(self, interval: float) -> Iterator[Event]:
        """Score the newest checkpoint again and again, until the run's training ends or dies.

        Every `interval` seconds it looks for a new checkpoint. If there is one, it scores the
        newest whole one and writes summaries for a visualizer to `summaries/<split>` in the run.
        Yields an `Evaluated` for each, and a `Waiting` whenever it begins to wait.
        """
        following = Following(self._run, self._emit)
        with closing(_Board(self._run, self.split, self._emit)) as board:
            while True:
                in_training = self._run.in_training()  # asked first: what it saves last is seen
                found = following.next(in_training)
                if found is not None:
                    trained = Trained.of(
                        self._run, *found, averaged=self._averaged, model=self._model
                    )
                    evaluated, summary = self._score(self._seen(trained))
                    board.show(evaluated, summary)
                    yield evaluated
                elif not in_training:
                    return
                if in_training:
                    yield Waiting(str(self._run.path))
                    deadline = time.monotonic() + interval
                    while time.monotonic() < deadline and self._run.in_training():
                        time.sleep(min(_POLL_SECONDS, interval))

    def _score(self, trained: Trained) -> tuple[Evaluated, Event]:
        """Return the score of a network, and the summary of its first batch."""
        answers = trained.answers(self._place)
        found = score(answers, self._blocks)
        first = torch.from_numpy(self.source.first_images(128))
        images = trained.trained_on.transform.evaluate(first.to(self._place.device))
        with (
            torch.no_grad(),
            self._place.autocast(),
            statistics.capture(trained.model) as activations,
        ):
            trained.model(images)
        summary = statistics.summarize(trained.step, images=images, activations=activations)
        return (
            Evaluated(
                step=trained.step,
                split=self.split,
                averaged=trained.averaged,
                correct=found.correct,
                total=found.total,
                loss=found.loss,
            ),
            summary,
        )


class Following:
    """Knows which checkpoints of a run have been seen, while it may go on; `emit` hears of damage.

    `seen`: those of them that are still there.
    """

    def __init__(self, run: Run, emit: Listener) -> None:
        self._run, self._emit = run, emit
        self._told: set[Event] = set()
        self._looked: dict[Path, checkpoint.Version | None] = {}
        self.seen: set[tuple[Path, checkpoint.Version | None]] = set()
        self._last = (-1, -1)  # step and time of what was given last

    def next(self, in_training: bool) -> tuple[Path, checkpoint.Checkpoint] | None:
        """Return the newest whole checkpoint if it is a new one, else None.

        A checkpoint that is older than the last one is not new, even if it was never seen: it
        appears when the last one was damaged. Raises CheckpointError if there is none and none will
        come.
        """
        there = checkpoint.versions(self._run.checkpoints)
        if in_training and there == self._looked:
            return None
        self._looked = there
        self.seen = {key for key in self.seen if key[0] in there}  # a training has no end
        found = self._newest(in_training)
        if found is None:
            return None
        path, content = found
        key = path, checkpoint.version_of(path)
        now = content.step, key[1].modified if key[1] is not None else -1
        if key in self.seen or (now[0] <= self._last[0] and now[1] <= self._last[1]):
            return None
        self.seen.add(key)
        self._last = now
        return found

    def _newest(self, in_training: bool) -> tuple[Path, checkpoint.Checkpoint] | None:
        if not in_training:
            return newest(self._run, self._tell)
        with suppress(checkpoint.DamagedError):
            return newest_or_none(self._run, self._tell)
        return None

    def _tell(self, event: Event) -> None:
        if event not in self._told:
            self._told.add(event)
            self._emit(event)


class _Board:
    """The summaries of an evaluation, in a folder of its own beside those of the training.

    It is opened at the first step that is shown. What an earlier evaluation wrote for this and
    later steps is no longer shown.
    """

    def __init__(self, run: Run, split: Split, emit: Listener) -> None:
        self._emit = emit
        name = "train_evaluated" if split == "train" else split  # `train` is the trainer's
        self._folder = run.summaries / name
        self._board: TensorBoard | None = None

    def _note(self, text: str) -> None:
        self._emit(Noted(text))

    def show(self, evaluated: Evaluated, summary: Event) -> None:
        if self._board is None:
            again = self._folder.exists()
            first = evaluated.step if again else None
            self._board = TensorBoard(self._folder, self._note, first_step=first)
        self._board(evaluated)
        self._board(summary)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def _own_split(
    config: Config, trained_on: TrainedOn, split: Split | None, emit: Listener
) -> tuple[Split, Source]:
    """Read a split of the data that a run was trained on, and check that they are the same."""
    check_still_there(config.data)
    dataset = open_dataset(config, emit=emit)
    chosen: Split = split or splits_to_score(config, dataset)[-1]
    keep = config.feed in ("preloaded", "fed")
    trained_on.check_excluded(config.exclude, dataset.excluded)
    source = dataset.read_whole(chosen, keep=keep, progress=reading(chosen, emit))
    to_check: list[Split] = ["train", chosen] if config.validation_size else [chosen]
    for each in to_check:  # counts first: they say more than a digest
        trained_on.check(config.data, each, dataset.split(each), dataset.counts(each))
    for each in to_check:
        trained_on.check_content(config.data, each, dataset.content(each), emit)
    return chosen, source


def other_split(
    config: Config, trained_on: TrainedOn, data: str, split: Split | None, emit: Listener
) -> tuple[Split, Source]:
    """Read a split of other data, or of the same data at another place, with a run's labels.

    If these data have as many examples of each class as the run's data, they count as the same.
    Then the same examples are held out again, and they are scored if the training was scored on
    them. Pictures of other sizes are brought to the run's size. `split`: None for the likeliest
    one.
    """
    height, width, _ = trained_on.transform.image_shape
    moved = dataclasses.replace(config, data=data, image_size=(height, width))
    dataset = open_dataset(moved, emit=emit)
    if config.exclude is not None and not _fits(dataset, trained_on):
        dataset = open_dataset(dataclasses.replace(moved, exclude=None), emit=emit)
    likeliest = splits_to_score(config, dataset)[-1:]
    it_matters = bool(config.validation_size) or (split is None and likeliest != ("test",))
    if not it_matters or not _is_same(dataset, trained_on):
        dataset = dataset.hold_out(0)
        likeliest = ()
    likeliest = (*likeliest, *LIKELIEST)
    chosen = split if split is not None else next(s for s in likeliest if s in dataset.splits)
    keep = config.feed in ("preloaded", "fed")
    source = dataset.read_whole(chosen, keep=keep, progress=reading(chosen, emit))
    if source.shape != trained_on.transform.image_shape:
        raise DataError(
            f"{data}: expected images of {by(trained_on.transform.image_shape)}, as this run was "
            f"trained on, found {by(source.shape)}"
        )
    return chosen, relabeled(source, trained_on.classes)


def _fits(dataset: Dataset, trained_on: TrainedOn) -> bool:
    """Tell whether the examples that a run left out are left out here, as in the same data."""
    try:
        return _is_same(dataset, trained_on)
    except DataError:  # the table names examples that are not there
        return False


def _is_same(dataset: Dataset, trained_on: TrainedOn) -> bool:
    """Tell whether a training set has the classes and the counts that a run was trained on."""
    held = dataset.spec.validation_size
    if "train" not in dataset.own_splits or dataset.classes != trained_on.classes:
        return False
    if dataset.spec.train_on_extra and "extra" not in dataset.own_splits:
        return False
    if held and len(dataset.hold_out(0).split("train")) <= held:
        return False
    return trained_on.counts.get("train") == [*map(int, dataset.counts("train"))]


def _first(source: Source, examples: int | None) -> Source:
    return source if examples is None else source.select(np.arange(len(source)) < examples)
