"""The loop of a training, in the order of time."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path

from deepcnn.config import to_dict
from deepcnn.events import Evaluated, Finished, Interrupted, Noted
from deepcnn.inference.answered import Answered
from deepcnn.runs.run import CONFIG
from deepcnn.stopping import name_of
from deepcnn.training import opening
from deepcnn.training.checks import NotFiniteError, goes_by_share
from deepcnn.training.forecast import Forecast, guessed
from deepcnn.training.pacer import Pacer
from deepcnn.training.plan import Plan
from deepcnn.training.progress import Progress, Watcher
from deepcnn.training.rollback import go_back
from deepcnn.training.session import Session
from deepcnn.training.signals import Halted, one_of

SETTLES = 0.15  # of the steps' time: so long a change of speed takes to be believed


@dataclass(frozen=True)
class Result:
    """How a training ended.

    `scores`: one for each split that was scored. `evaluated`: the last of them, or None if the
    training was interrupted. `answered`: all answers about the split of `evaluated`, unless there
    are too many for the memory. `stopped`: the number of the signal that interrupted the training;
    None if its time was over, or if nothing interrupted it. `saved`: whether the last step has a
    checkpoint.
    """

    run: Path
    step: int
    scores: tuple[Evaluated, ...]
    answered: Answered | None = field(default=None, repr=False)
    stopped: int | None = None
    saved: bool = True

    @property
    def evaluated(self) -> Evaluated | None:
        """The score on the split that counts."""
        return self.scores[-1] if self.scores else None


def make_steps(session: Session, plan: Plan | None = None, *, report: bool = False) -> Result:
    """Make all steps that are left, then score. A signal or a time limit saves and ends sooner.

    `plan`: the plan of a training with a budget, which it keeps. `report`: whether a report will be
    written.
    """
    config, state, tell, run = session.config, session.state, session.tell, session.run
    if plan is not None and plan.told is not None:
        tell(plan.told)
    tell(opening.started(session))
    tell(session.engine.placed())
    if config.compile:
        tell(Noted("Compiling the network, which takes up to a minute for each size of images."))
    began = time.perf_counter()
    if state.step < config.steps:
        session.feed.look(state.step)
        if session.filling is not None:
            tell(session.filling)
    session.team.once(lambda: opening.trace(session))
    with session.stop.heard(patient=session.team.job() is not None):
        try:
            if session.judge.evaluation_is_due():
                session.judge.evaluate()
            _begin_with_a_checkpoint(session)
            while not _made_steps(session, plan, report=report):
                pass
            _end_with_the_feed(session)
            scores = session.judge.evaluate()
        except Halted:
            return _stopped(session)
        saved = _save(session)  # where that failed at the last step
    tell(Finished(state.step, str(run.path), time.perf_counter() - began))
    return Result(run.path, state.step, scores, session.judge.answered, saved=saved)


def _begin_with_a_checkpoint(session: Session) -> None:
    """Save the beginning of a training that may go back to it."""
    if session.config.on_nan == "rollback" and session.state.step == 0:
        session.saved_step = -1
        _save(session)


def _made_steps(session: Session, plan: Plan | None, *, report: bool) -> bool:
    """Make all steps that are left, or go back to a checkpoint; tell which of the two happened."""
    try:
        _make_steps_that_are_left(session, plan, report=report)
    except NotFiniteError as error:
        found = error
    else:
        return True
    go_back(session, found)
    return False


def _make_steps_that_are_left(session: Session, plan: Plan | None, *, report: bool) -> None:
    config, state, engine = session.config, session.state, session.engine
    team, tell = session.team, session.tell
    forecast = _forecast(session, plan, report=report)
    progress = Progress(session, forecast)
    pacer = None if plan is None else Pacer(session, plan, forecast)
    watcher = Watcher(config.summary_every if team.writes else 0, tell)
    state.model.train()
    while state.step < session.steps:  # fewer where the feed ends before
        step = state.step
        session.fix_settled(step)
        watched = watcher.wants(step)
        losses = watcher.step(engine, state) if watched else engine.step()
        state.forget_gradients()
        tell(progress.advanced())
        last = state.step == session.steps
        stop = team.any(session.stop.asked()) and not last
        if step % config.log_every == 0 or last:
            tell(progress.stepped(step, losses, engine.correct()))
            team.once(session.check)
        if state.step % config.save_every == 0 or last or stop:
            _save(session)
        if stop:
            raise Halted
        if pacer is not None:
            pacer.look()
        if config.evaluate_every and state.step % config.evaluate_every == 0 and not last:
            session.judge.evaluate()


def _save(session: Session) -> bool:
    """Save, unless this step is saved; tell whether it is."""
    if session.saved_step != session.state.step:
        session.engine.settle()
        if session.team.once(session.save):
            session.saved_step = session.state.step
    return session.saved_step == session.state.step


def _stopped(session: Session) -> Result:
    """Save at the place where the training was asked to stop, and tell the listeners."""
    saved = _save(session)
    number = one_of(session.team.gather(session.stop.number))
    step, path = session.state.step, session.run.path
    reason = "The time is over" if number is None else name_of(number)
    session.tell(Interrupted(step, str(path), reason, saved))
    return Result(path, step, (), stopped=number, saved=saved)


def _forecast(session: Session, plan: Plan | None, *, report: bool) -> Forecast:
    """Return what tells the time that is left: by measured costs, or else by the pixels."""
    if plan is not None:
        settles = min(20.0, max(2.0, SETTLES * plan.training))
        return Forecast(plan.costs, settles=settles)
    scored = session.judge.examples
    return Forecast(guessed(session.config, session.transform, scored, report=report))


def _end_with_the_feed(session: Session) -> None:
    """Store how many steps there were, if the feed ended before all were made."""
    asked, steps = session.config, session.steps
    if steps == asked.steps:
        return
    text = f"The feed ended after step {steps:,} of {asked.steps:,}."
    if goes_by_share(asked):
        text += " Rates, sizes and frozen layers went until there as if there were all of them."
    session.tell(Noted(text))
    session.config = dataclasses.replace(asked, steps=steps)
    session.team.once(lambda: session.store(CONFIG, to_dict(session.config)))
