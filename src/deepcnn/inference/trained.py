"""A trained network: a run's checkpoint, opened."""

from __future__ import annotations

import copy
import dataclasses
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from deepcnn.config import Config
from deepcnn.devices import Place
from deepcnn.errors import CheckpointError
from deepcnn.events import Listener, ignore
from deepcnn.inference.answers import Answers, NumpyAnswers
from deepcnn.inference.calibration import Calibration
from deepcnn.inference.classifier import Classifier
from deepcnn.inputs.transform import Transform
from deepcnn.learning.state import TrainState, check_fit
from deepcnn.models.build import Given, network
from deepcnn.runs import checkpoint
from deepcnn.runs.owner import Owner
from deepcnn.runs.run import CALIBRATION, Run
from deepcnn.runs.trained_on import TrainedOn
from deepcnn.settings import Views
from deepcnn.shown import quoted


@dataclass(frozen=True)
class Trained:
    """The network of a checkpoint, and all that is needed to ask it.

    `step`: the number of its updates. `averaged`: whether its parameters are moving averages.
    `calibration`: of exactly this network; None if there is none.
    """

    config: Config
    trained_on: TrainedOn
    model: nn.Module
    step: int
    averaged: bool
    calibration: Calibration | None

    @classmethod
    def load(
        cls, run: Run, path: Path, *, averaged: bool = True, model: Given | None = None
    ) -> Trained:
        """Open a checkpoint of a run.

        `averaged`: use the moving averages of the parameters, if the run keeps any. `model`: the
        network again, if it is not one of this package. Raises CheckpointError if the checkpoint is
        damaged or does not fit, and FileNotFoundError if it is gone.
        """
        found = checkpoint.load(path, lambda: _owner(run))
        return cls.of(run, path, found, averaged=averaged, model=model)

    @classmethod
    def open(
        cls,
        run: Run,
        step: int | None = None,
        *,
        averaged: bool = True,
        model: Given | None = None,
        emit: Listener = ignore,
    ) -> Trained:
        """Open the checkpoint of a step; None: the best one if it is kept, else the newest.

        If no step is asked for, damaged checkpoints are skipped, and `emit` hears of it; for the
        rest see `load`. Raises CheckpointError if no checkpoint is whole.
        """
        if step is None:
            path, found = best_or_newest(run, emit)
            return cls.of(run, path, found, averaged=averaged, model=model)
        path = checkpoint_of(run, step)
        try:
            return cls.load(run, path, averaged=averaged, model=model)
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{path}: a training has removed it meanwhile; leave out the step, or choose a "
                "newer one"
            ) from error

    @classmethod
    def of(
        cls,
        run: Run,
        path: Path,
        found: checkpoint.Checkpoint,
        *,
        averaged: bool,
        model: Given | None,
    ) -> Trained:
        """Return the network of a run's checkpoint that was read from a path; see `load`."""
        config, trained_on = run.config(), TrainedOn.read(run)
        net = network(
            config.model,
            copy.deepcopy(model) if isinstance(model, nn.Module) else model,
            shape=trained_on.transform.shape,
            classes=len(trained_on.classes),
        )
        step, tensors, _ = found
        check_fit(net.state_dict(), weights_in(tensors, averaged=False)[0], str(path))
        weights, averaged = weights_in(tensors, averaged=averaged)
        net.load_state_dict(weights)
        return cls(config, trained_on, net, step, averaged, calibration_of(run, step, averaged))

    def answers(self, place: Place) -> Answers:
        """Move the network to a place, and return its answers there."""
        margin = self.calibration.margin if self.calibration is not None else None
        return Answers(self.model.to(place.device), self.trained_on.transform, place, margin)

    def seen_from(self, views: Views) -> Trained:
        """Return the network with other views, for which no calibration is known.

        Raises ConfigError if its images cannot have them.
        """
        transform = self.trained_on.transform
        if views == transform.views:
            return self
        trained_on = dataclasses.replace(self.trained_on, transform=transform.seen_from(views))
        return dataclasses.replace(self, trained_on=trained_on, calibration=None)

    def classifier(self, place: Place) -> Classifier:
        """Return a classifier for pictures that computes at a place."""
        on = self.trained_on
        answers = NumpyAnswers(self.answers(place))
        shape = on.transform.image_shape
        return Classifier(answers, on.classes, shape, self.calibration, self.config.fit)


def calibration_of(run: Run, step: int, averaged: bool) -> Calibration | None:
    """Return the calibration that a run stores for the network of a checkpoint, or None."""
    if not os.path.lexists(run.path / CALIBRATION):
        return None
    found = Calibration.from_dict(run.read(CALIBRATION), str(run.path / CALIBRATION))
    return found if (found.step, found.averaged) == (step, averaged) else None


def checkpoint_of(run: Run, step: int | None) -> Path:
    """Return the checkpoint of a step; None: the best one if it is kept, else the newest.

    Raises CheckpointError if there is none.
    """
    if step is None:
        return best_or_newest(run)[0]
    every = [*checkpoint.paths(run.best), *checkpoint.paths(run.checkpoints)]
    found = {checkpoint.step_of(path): path for path in every}
    if step not in found:
        raise CheckpointError(
            f"{run.path}: expected a checkpoint of step {step:,}, found "
            f"{', '.join(f'{known:,}' for known in found) or 'none'}"
        )
    return found[step]


def best_or_newest(run: Run, emit: Listener = ignore) -> tuple[Path, checkpoint.Checkpoint]:
    """Return the best checkpoint if it is kept and whole, else the newest whole one.

    `emit` hears what is skipped. Raises CheckpointError if there is none.
    """
    if checkpoint.paths(run.best):
        with suppress(checkpoint.DamagedError):
            found = checkpoint.newest_whole(run.best, lambda: _owner(run), emit)
            if found is not None:
                return found
    return newest(run, emit)


def newest(run: Run, emit: Listener = ignore) -> tuple[Path, checkpoint.Checkpoint]:
    """Return the newest checkpoint of a run that is whole.

    `emit` hears what is skipped. Raises CheckpointError if there is none.
    """
    found = newest_or_none(run, emit)
    if found is None:
        raise CheckpointError(
            f"No checkpoint file found in {run.checkpoints}. If nobody trains this run, go on with "
            f"it: deepcnn train --resume {quoted(str(run.path))}"
        )
    return found


def newest_or_none(run: Run, emit: Listener = ignore) -> tuple[Path, checkpoint.Checkpoint] | None:
    """Return the newest checkpoint that is whole; None if there is no checkpoint at all.

    Raises DamagedError if all are damaged.
    """
    return checkpoint.newest_whole(run.checkpoints, lambda: _owner(run), emit)


def _owner(run: Run) -> Owner:
    return Owner.of(run.config(), TrainedOn.read(run))


def answers_of(state: TrainState, transform: Transform, place: Place) -> Answers:
    """Return answers by a copy of a training's present network, with averages if it keeps any."""
    model = (
        copy.deepcopy(state.model) if state.averages is None else state.averages.model(state.model)
    )
    return Answers(model.to(place.device), transform, place)


def weights_in(tensors: dict[str, Tensor], *, averaged: bool) -> tuple[dict[str, Tensor], bool]:
    """Return a network's weights from a checkpoint's tensors, and whether they are averages.

    `averaged`: use the moving averages of the parameters, if there are any.
    """
    raw, averages = _below("model.", tensors), _below("average.", tensors)
    averaged = averaged and bool(averages)
    return (raw | averages if averaged else raw), averaged


def _below(prefix: Literal["model.", "average."], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
