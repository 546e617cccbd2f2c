"""Back to the last good checkpoint at half the rate, where something was not finite.

A run that is killed and resumed must go back to the very same checkpoint. So it is always one that
an uninterrupted run has too: of a multiple of `save_every` steps. How often a training went back
stands in the checkpoints that it saves from then on. Until the first of these a resumed run meets
the same step again, and goes back again.
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
    """Take on the last good checkpoint, from where the next step is made at half the rate.

    Raises the error where there is none, and where the training went back too often.
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

    From the state of that step itself the same would follow. Where there is none of a multiple of
    `save_every` any more, it is the last one before the step.
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
    """Remove the checkpoints after a step, which the training comes to with other numbers."""
    with contextlib.suppress(OSError):
        for path in checkpoint.paths(session.run.checkpoints):
            if checkpoint.step_of(path) > step:
                path.unlink()
