"""What is checked while a training goes on, and before one is resumed."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepcnn.config import Config, changed_fields
from deepcnn.errors import ConfigError, RunError, TrainingError
from deepcnn.learning import objective
from deepcnn.learning.assembly import Schedule
from deepcnn.learning.finite import not_finite
from deepcnn.learning.state import TrainState
from deepcnn.runs import checkpoint
from deepcnn.runs.owner import FREE_TO_CHANGE
from deepcnn.runs.run import Run


def check_changes(old: Config, new: Config) -> None:
    """Raise ConfigError for a change with which a resumed run would give other numbers.

    `steps` may change only if nothing happens at a share of them: the learning rate does not
    change, images do not grow, and no layer stops learning.
    """
    free = [name for name in FREE_TO_CHANGE if name != "steps" or not goes_by_share(old)]
    if refused := [name for name in changed_fields(old, new) if name not in free]:
        raise ConfigError(
            f"{refused[0]}: cannot change when this run is resumed, since its numbers would; what "
            f"can: {', '.join(free)}. Start a new run for the rest."
        )


def goes_by_share(config: Config) -> bool:
    """Tell whether anything in a training depends on a share of its steps."""
    wanted = config.optimizer
    if wanted.drops or wanted.warm_up or wanted.freeze or config.inputs.scales:
        return True
    return wanted.schedule not in ("staircase", "constant")


def check_feed(run: Run, fed_by: str | None, *, is_given: bool) -> None:
    """Raise RunError unless Python feeds exactly those runs that it fed before."""
    if is_given and fed_by is None:
        raise RunError(f"{run.path}: this run was not fed from Python. Resume it without a feed.")
    if not is_given and fed_by is not None:
        raise RunError(
            f"{run.path}: this run was fed from Python. Resume it there: "
            "deepcnn.resume(run, feed=…)"
        )


def check_keep_best(config: Config, to_score: Sequence[str]) -> None:
    """Raise ConfigError if the best checkpoint would be chosen on a split that is only for reports.

    It is also raised if that checkpoint might belong to steps that are made again.
    """
    if config.keep_best and config.on_nan == "rollback":
        raise ConfigError(
            "keep_best: a training that may go back (on_nan rollback) would make steps again that "
            "it has kept the best of. Leave out one of them."
        )
    if config.keep_best and to_score[-1] != "validation":
        raise ConfigError(
            f"keep_best: expected to be scored on a validation split, found {to_score[-1]}, which "
            "is for reporting. Hold some training examples out: --validation-size 5000"
        )


def check_parts(model: nn.Module, shape: tuple[int, int, int], config: Config, parts: int) -> None:
    """Raise ConfigError if a device gets a single image that a layer cannot normalize.

    Batch normalization needs two values for each channel. If a layer's output is a single pixel,
    one image gives only one value. `shape`: of the network's input, [C, H, W]. `parts`: into how
    many parts each batch is divided.
    """
    if config.batch_size // parts > 1 or (config.sync_batch_norm and config.batch_size > 1):
        return
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            copy.deepcopy(model).train()(torch.zeros(1, *shape, device=device))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            "batch_size: expected at least two examples for each device, since this network "
            f"normalizes batches of single pixels; found {config.batch_size} for {parts} devices. "
            "Take larger batches or larger images."
        ) from error


class NotFiniteError(TrainingError):
    """Something was not finite: `what`, in words, at a `step`."""

    step: int
    what: str


def check_finite(
    state: TrainState, images: Tensor, schedule: Schedule, config: Config, run: Run
) -> None:
    """Raise NotFiniteError if a loss or a gradient of any step so far was not finite.

    It is also raised if anything that a checkpoint would hold is not finite, since the losses and
    gradients of a step say nothing about its update. `images`: the network's input in the last
    step. `config`: with the present rates.
    """
    step = int(state.failed)
    what = _in_state(state) if step < 0 else _in_step(state, images)
    if what is None:
        return
    step = max(0, state.step - 1) if step < 0 else step
    rate = schedule(step) * config.optimizer.learning_rate
    lower = config.optimizer.learning_rate / 3
    found = checkpoint.paths(run.checkpoints)
    kept = f"The last good checkpoint is {found[-1]}." if found else "There is no checkpoint yet."
    often = f", after going back {state.rollbacks} times" if state.rollbacks else ""
    by_itself = "" if config.on_nan == "rollback" else "; or let it find one: --on-nan rollback"
    error = NotFiniteError(
        f"{what[0].upper()}{what[1:]} was not finite at step {step}, at learning rate {rate:g}"
        f"{often}. {kept} Train with a lower rate, for example --optimizer.learning-rate "
        f"{lower:.2g}{by_itself}"
    )
    error.step, error.what = step, what
    raise error


def _in_step(state: TrainState, images: Tensor) -> str | None:
    """Name what was not finite in the step that failed: the cause first, then what followed."""
    if not images.isfinite().all():
        return "the network's input"
    parameters = dict(state.model.named_parameters())
    if found := not_finite(parameters):
        return f"the parameter {_listed(found)}"
    names = objective.names(state.model)
    finite = dict(zip([*names, *parameters], state.finite.tolist(), strict=True))
    if found := [name for name in names if not finite[name]]:
        return f"the loss {_listed(found)}"
    return f"the gradient of {_listed([name for name, fine in finite.items() if not fine])}"


def _in_state(state: TrainState) -> str | None:
    """Name what is not finite in a state; None if everything is."""
    found = not_finite(state.tensors())
    if not found:
        return None
    kind, _, name = found[0].partition(".")
    names = [each.partition(".")[2] for each in found if each.startswith(f"{kind}.")]
    if kind == "model":
        own = name in dict(state.model.named_parameters())
        return f"the {'parameter' if own else 'buffer'} {_listed(names)}"
    return f"the {kind} of {_listed(names)}" if name else f"the state's {kind}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"
