"""The scores of a training, while it goes on and at its end."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from deepcnn.data.source import Source
from deepcnn.data.splits import Split
from deepcnn.devices import Place
from deepcnn.events import Evaluated
from deepcnn.inference.answered import Answered
from deepcnn.inference.answers import Answers
from deepcnn.inference.calibration import calibrate
from deepcnn.inference.scoring import (
    Blocks,
    Kept,
    blocks_to_score,
    find_margin,
    most_blocks,
    score,
)
from deepcnn.inference.trained import Trained, answers_of
from deepcnn.inputs.transform import Transform
from deepcnn.learning.state import TrainState
from deepcnn.runs.log import events, read_log
from deepcnn.team.team import Team


class Scores:
    """Scores the network of a training on its splits, together with the other processes.

    `stay`: the scored examples stay on a GPU, like the training set. `look`: is called after each
    block of examples, equally often in all processes.
    """

    def __init__(
        self,
        to_score: dict[Split, Source],
        transform: Transform,
        place: Place,
        team: Team,
        *,
        stay: bool,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._look = look
        self._transform, self._team = transform, team
        self._place = Place(place.device, "fp32")  # so that it agrees with all later answers
        self.answered: Answered | None = None
        self._blocks = {
            split: self._blocks_of(source, stay=stay) for split, source in to_score.items()
        }

    def of(self, state: TrainState, *, last: bool = False) -> Iterator[Evaluated]:
        """Yield the score of a state on each split; the engine must have settled the state.

        The last split is the one that counts, and its margin is used for all splits. `last`: this
        is after the last step; then `answered` gets all answers about that split, unless the memory
        is too small.
        """
        answers = answers_of(state, self._transform, self._place)
        return self._score(answers, state.step, state.averages is not None, last)

    def of_trained(self, trained: Trained) -> Iterator[Evaluated]:
        """Yield a checkpoint's score on each split, and set `answered`, as `of` does."""
        answers = trained.answers(self._place)
        return self._score(answers, trained.step, trained.averaged, True)

    def _score(
        self, answers: Answers, step: int, averaged: bool, last: bool
    ) -> Iterator[Evaluated]:
        *_, counting = self._blocks
        answers.margin = find_margin(answers, self._blocks[counting], self._team)
        for split, blocks in self._blocks.items():
            keep = Kept() if last and split == counting else None
            found = score(answers, blocks, keep).over(self._team)
            evaluated = Evaluated(
                step=step,
                split=split,
                averaged=averaged,
                correct=found.correct,
                total=found.total,
                loss=found.loss,
            )
            if keep is not None:
                self.answered = self._answered(keep, evaluated, answers.margin)
            yield evaluated

    def _answered(self, kept: Kept, evaluated: Evaluated, margin: float | None) -> Answered | None:
        known = kept.over(self._team)
        if known is None:
            return None
        logits, labels, statistics = known
        step, averaged, split = evaluated.step, evaluated.averaged, evaluated.split
        calibration = calibrate(
            logits,
            labels,
            step=step,
            averaged=averaged,
            split=split,
            margin=margin,
            statistics=statistics,
        )
        return Answered(split, step, averaged, logits, labels, calibration)

    def _blocks_of(self, source: Source, *, stay: bool) -> Callable[[], Blocks]:
        values = math.prod(self._transform.shape)
        read = partial(blocks_to_score, source, values, self._place, self._team)
        most = most_blocks(source, values, self._place, self._team)
        if self._place.device.type == "cpu" or not stay:
            return partial(self._looked, read, most)
        there = [*read()]
        return partial(self._looked, lambda: there, most)

    def _looked(self, read: Callable[[], Blocks], most: int) -> Blocks:
        """Yield blocks, and look after each; a process with fewer blocks looks just as often."""
        done = 0
        for done, block in enumerate(read(), 1):  # noqa: B007
            yield block
            self._look()
        for _ in range(done, most):
            self._look()


def logged_scores(
    log: Path, *, step: int | None = None, split: str | None = None, before: int | None = None
) -> list[Evaluated]:
    """Return the scores in a log: of a step, of a split, of the steps before one."""
    fields = [field.name for field in dataclasses.fields(Evaluated)]
    found = [
        Evaluated(**{name: entry[name] for name in fields})
        for entry in events(read_log(log) if log.exists() else [], "Evaluated")
    ]
    return [
        evaluated
        for evaluated in found
        if step in (None, evaluated.step)
        and split in (None, evaluated.split)
        and (before is None or evaluated.step < before)
    ]
