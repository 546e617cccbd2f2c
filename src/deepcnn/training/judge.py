"""The judgement of a training: its scores, its best checkpoint, and the report at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from deepcnn.config import Config
from deepcnn.data.digests import in_both
from deepcnn.data.source import Source
from deepcnn.devices import Place
from deepcnn.engines.engine import Engine
from deepcnn.errors import DataError, DeepcnnError
from deepcnn.events import Evaluated, Event, Listener, Noted, Reported
from deepcnn.inference.answered import Answered
from deepcnn.inference.trained import Trained, checkpoint_of
from deepcnn.inputs.feeds import Feed
from deepcnn.inputs.transform import Transform
from deepcnn.learning.state import TrainState
from deepcnn.models.build import Given
from deepcnn.runs import checkpoint
from deepcnn.runs.run import CALIBRATION, Run
from deepcnn.team.team import Team
from deepcnn.training.material import Material
from deepcnn.training.scores import Scores, logged_scores


class Judged(Protocol):
    """What the judge needs from a training; its session provides it."""

    team: Team
    place: Place
    config: Config
    transform: Transform
    state: TrainState
    feed: Feed
    engine: Engine
    run: Run
    emit: Listener

    @property
    def steps(self) -> int:
        """How many steps there are."""

    def tell(self, event: Event) -> None:
        """Tell an event to all listeners."""

    def look(self) -> None:
        """Raise Halted if the training was asked to stop."""

    def save_in(self, folder: Path, keep: int) -> Path | None:
        """Write a checkpoint and return its path; None if it cannot be written."""

    def store(self, name: str, values: dict[str, Any]) -> None:
        """Write something into the run, if that can be done."""


class Judge:
    """Scores the network of a session, keeps the best checkpoint, and writes the report.

    `material`: the data that are trained on, and the splits to score on, of which the last one
    counts. `model`: a network from Python, if any.
    """

    def __init__(self, session: Judged, material: Material, model: Given | None):
        to_score = material.to_score
        self._session, self._to_score, self._model = session, to_score, model
        self._train = material.train
        self._scores = Scores(
            to_score,
            session.transform,
            session.place,
            session.team,
            stay=session.feed.in_memory,
            look=session.look,
        )
        self._earlier: list[Evaluated] | None = None  # scores of the split that counts

    def evaluate(self) -> tuple[Evaluated, ...]:
        """Score the network on every split to be scored, and tell the listeners."""
        session = self._session
        session.engine.settle()
        last = session.state.step == session.steps
        if session.config.keep_best and self._earlier is None:
            self._know_earlier()
        found = [*self._scores.of(session.state, last=last)]  # whole, or not told at all
        is_best = False
        if session.config.keep_best:
            # Saved before it is told: what is in the log is not evaluated again after a kill.
            is_best = session.team.once(lambda: self._is_best(found[-1]))
            if is_best:
                session.team.once(lambda: self._save_best(found[-1]))
        for evaluated in found:
            session.tell(evaluated)
        has_best = session.config.keep_best and session.team.once(self._has_best)
        if last and has_best and not is_best:
            found = self._score_best()
        if last:
            session.team.once(self._store_calibration)
        return tuple(found)

    def _know_earlier(self) -> None:
        """Read the earlier scores from the log; that of the best checkpoint is needed in any case.

        A power cut may have removed that score from the log. Then the checkpoint is scored again.
        """
        session, self._earlier = self._session, []
        if session.team.once(self._read_earlier):
            trained = Trained.open(session.run, model=self._model, emit=session.tell)
            *_, counting = self._scores.of_trained(trained)
            self._earlier.append(counting)

    def _read_earlier(self) -> bool:
        """Read the log, and return whether the best checkpoint's score is missing from it."""
        session, (*_, split) = self._session, self._to_score
        step = session.state.step
        self._earlier = logged_scores(session.run.log, split=split, before=step)
        best = [checkpoint.step_of(path) for path in checkpoint.paths(session.run.best)]
        return any(s < step and s not in {e.step for e in self._earlier} for s in best)

    def _is_best(self, evaluated: Evaluated) -> bool:
        """Tell whether no earlier evaluation had as many right answers, or as low a loss."""
        earlier = self._earlier or []
        best = max(((e.correct, -e.loss) for e in earlier), default=(-1, 0.0))
        return (evaluated.correct, -evaluated.loss) > best

    def _save_best(self, evaluated: Evaluated) -> None:
        """Save the best state; if this fails, a later state may become the best one."""
        if self._session.save_in(self._session.run.best, 1) and self._earlier is not None:
            self._earlier.append(evaluated)

    def _has_best(self) -> bool:
        return bool(checkpoint.paths(self._session.run.best))

    def _score_best(self) -> list[Evaluated]:
        """Score the best checkpoint, since this one answers from now on."""
        run = self._session.run
        trained = Trained.open(run, model=self._model, emit=self._session.tell)
        path = checkpoint_of(run, trained.step)
        self._session.tell(Noted(f"The best checkpoint is that of step {trained.step:,}: {path}"))
        found = []
        for evaluated in self._scores.of_trained(trained):
            self._session.tell(evaluated)
            found.append(evaluated)
        return found

    def _store_calibration(self) -> None:
        if self.answered is not None and self.answered.calibration is not None:
            self._session.store(CALIBRATION, self.answered.calibration.to_dict())

    @property
    def answered(self) -> Answered | None:
        """All answers about the split that counts, after the last step."""
        return self._scores.answered

    @property
    def scored(self) -> Source:
        """The examples of the split that counts."""
        *_, counting = self._to_score.values()
        return counting

    @property
    def examples(self) -> int:
        """The number of examples to score, in all splits together."""
        return sum(map(len, self._to_score.values()))

    def report(self) -> None:
        """Write the report about the run, after the last step; a failure is only reported."""
        try:
            path = self._session.team.once(self._write_report)
        except Exception as error:  # whatever it is, the training is done and saved
            what = error if isinstance(error, DeepcnnError) else f"{type(error).__name__}: {error}"
            self._session.emit(Noted(f"No report: {what}"))
            return
        self._session.emit(Reported(path))

    def _write_report(self) -> str:
        from deepcnn.reports.findings import Subject
        from deepcnn.reports.write import write

        if self.answered is None:
            raise DataError("the split has more answers than are kept in memory")
        # The step is the best one's, where it is kept.
        trained = Trained.open(self._session.run, self.answered.step, model=self._model)
        leaked = in_both(self.scored, self._train)
        subject = Subject(self._session.run, trained, self.answered, self.scored, leaked=leaked)
        return str(write(subject))

    def evaluation_is_due(self) -> bool:
        """Tell whether the run stopped between a checkpoint and the evaluation of the same step."""
        session = self._session
        step, every = session.state.step, session.config.evaluate_every
        if not every or step % every or not 0 < step < session.steps:
            return False
        *_, counting = self._to_score
        log = session.run.log
        return session.team.once(lambda: not logged_scores(log, step=step, split=counting))
