"""Going back to the last good checkpoint, at half the rate, if something was not finite.

A run that is killed and resumed must go back to the very same checkpoint. So this is always a
checkpoint that an uninterrupted run has too, at a multiple of `save_every` steps. The checkpoints
that follow store how often the training went back. A run that is resumed before the first of these
meets the same step again, and goes back again.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from deepcnn.events import Noted, RolledBack
from deepcnn.runs import checkpoint
from deepcnn.training.checks import NotFiniteError
from deepcnn.training.session import Session

MOST = 3  # times that a training goes back


def go_back(session: Session, error: NotFiniteError) -> None:
    """Load the last good checkpoint, to go on from there at half the rate.

    Raises the error if there is no such checkpoint, or if the training went back too often.
    """
    rollbacks = session.state.rollbacks + 1
    if session.config.on_nan == "stop" or rollbacks > MOST:
        raise error
    session.engine.close()  # it reads ahead
    session.feed.close()

    def load() -> tuple[int, dict[str, Any] | None] | None:
        found = _last_good(session, error.step)
        if found is None:
            return None
        path, (step, tensors, feed) = found
        session.slow_down(rollbacks)
        session.state.load(step, tensors, str(path))
        _forget_later(session, step)
        return step, feed

    loaded = session.team.once(load)
    if loaded is None:
        raise error
    step, feed = loaded
    session.go_on_at(step, rollbacks, feed)
    rate = session.slowed.optimizer.learning_rate
    session.tell(RolledBack(error.step, error.what, step, rollbacks, rate))


def _last_good(session: Session, step: int) -> tuple[Path, checkpoint.Checkpoint] | None:
    """Return the last checkpoint before a step that an uninterrupted run has, too.

    The checkpoint of the step itself would lead to the same failure. If there is no checkpoint at a
    multiple of `save_every` any more, the last one before the step is returned.
    """
    every = session.config.save_every
    before = [p for p in checkpoint.paths(session.run.checkpoints) if checkpoint.step_of(p) < step]
    regular = [path for path in before if checkpoint.step_of(path) % every == 0]
    for path in reversed(regular if regular else before):
        try:
            return path, checkpoint.load(path, lambda: session.owner)
        except (checkpoint.DamagedError, FileNotFoundError) as error:
            session.tell(Noted(f"Passed over: {error}"))
    return None


def _forget_later(session: Session, step: int) -> None:
    """Remove the checkpoints after a step; the training reaches their steps with other numbers."""
    with contextlib.suppress(OSError):
        for path in checkpoint.paths(session.run.checkpoints):
            if checkpoint.step_of(path) > step:
                path.unlink()
