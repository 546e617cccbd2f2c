"""What is checked while a training goes on, and before one is resumed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deepcnn.config import Config, changed_fields
from deepcnn.errors import ConfigError, RunError, TrainingError
from deepcnn.learning.assembly import Schedule
from deepcnn.learning.state import TrainState
from deepcnn.runs import checkpoint
from deepcnn.runs.owner import FREE_TO_CHANGE
from deepcnn.runs.run import Run


def check_changes(old: Config, new: Config) -> None:
    """Raise ConfigError for a change with which a resumed run would give other numbers.

    `steps` may change only where nothing happens at a share of them: nothing of the learning rate,
    no growing images, no layers that stop learning.
    """
    free = [name for name in FREE_TO_CHANGE if name != "steps" or not goes_by_share(old)]
    if refused := [name for name in changed_fields(old, new) if name not in free]:
        raise ConfigError(
            f"{refused[0]}: cannot change when this run is resumed, since its numbers would; what "
            f"can: {', '.join(free)}. Start a new run for the rest."
        )


def goes_by_share(config: Config) -> bool:
    """Tell whether anything happens at a share of a training's steps."""
    wanted = config.optimizer
    if wanted.drops or wanted.warm_up or wanted.freeze or config.inputs.scales:
        return True
    return wanted.schedule not in ("staircase", "constant")


def check_feed(run: Run, fed_by: str | None, *, is_given: bool) -> None:
    """Raise RunError unless a run that was fed from Python is so again, and no other."""
    if is_given and fed_by is None:
        raise RunError(f"{run.path}: this run was not fed from Python. Resume it without a feed.")
    if not is_given and fed_by is not None:
        raise RunError(
            f"{run.path}: this run was fed from Python. Resume it there: "
            "deepcnn.resume(run, feed=…)"
        )


def check_keep_best(config: Config, to_score: Sequence[str]) -> None:
    """Raise ConfigError where the best checkpoint would be chosen on what is only reported."""
    if config.keep_best and to_score[-1] != "validation":
        raise ConfigError(
            f"keep_best: expected to be scored on a validation split, found {to_score[-1]}, which "
            "is for reporting. Hold some training examples out: --validation-size 5000"
        )


def check_finite(state: TrainState, schedule: Schedule, config: Config, run: Run) -> None:
    """Raise TrainingError if the loss of any step so far was not finite, or the weights are not.

    The loss of a step is that before its update, so it does not tell of the newest weights.
    """
    step = int(state.failed)
    if step < 0:
        if torch.stack([p.isfinite().all() for p in state.model.parameters()]).all():
            return
        step = state.step - 1
    rate = schedule(step) * config.optimizer.learning_rate
    lower = config.optimizer.learning_rate / 3
    found = checkpoint.paths(run.checkpoints)
    kept = f"The last good checkpoint is {found[-1]}." if found else "There is no checkpoint yet."
    raise TrainingError(
        f"The loss or the weights were not finite at step {step}, at learning rate {rate:g}. "
        f"{kept} Train with a lower rate, for example --optimizer.learning-rate {lower:.2g}"
    )
