"""The run that a checkpoint belongs to, as the checkpoint itself tells it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepcnn.config import Config
from deepcnn.errors import CheckpointError
from deepcnn.runs.trained_on import TrainedOn

# What may change when a run is resumed, since its numbers do not.
FREE_TO_CHANGE = (
    *("steps", "towers", "steps_per_plan", "log_every", "summary_every", "save_every"),
    *("evaluate_every", "keep", "keep_best"),
    "on_nan",  # what is finite is the same either way
    *("data", "data_dir", "cache_gigabytes"),  # the same data may have been moved
)
# What a checkpoint does not speak of, either: names and places, what its data tell themselves, and
# what changes numbers by their rounding at most.
_UNSAID = frozenset(
    [
        *(*FREE_TO_CHANGE, "preset", "epochs", "evaluate_on", "start_from"),
        *("train_on_extra", "image_size", "skip_bad", "exclude"),
        *("device", "threads", "deterministic", "compile"),
        "pace",  # changes on the way, as steps do
        *("seed", "feed", "order"),  # seed and order are told in words of their own
    ]
)
# What matters only where examples are drawn from a buffer.
_OF_BUFFERS = ("readers", "shuffle_buffer", "min_fraction_of_examples_in_queue")


@dataclass(frozen=True)
class Owner:
    """A run, as far as its checkpoints know it.

    `seed`: of the run. `data`: the digest of the training set; None if it is not known. `settings`:
    by dotted name, the settings that change numbers and differ from their defaults. `steps`: the
    total number of steps, which is not stored.
    """

    seed: int
    data: str | None
    settings: dict[str, Any]
    steps: int

    @classmethod
    def of(cls, config: Config, trained_on: TrainedOn) -> Owner:
        """Return what a run's checkpoints say about it."""
        order = _order(config)
        unsaid = _UNSAID if order != "epochs" else _UNSAID.union(_OF_BUFFERS)
        settings = {name: value for name, value in _changed(config, "") if name not in unsaid}
        settings |= {} if order == "epochs" else {"order": order}
        data = trained_on.content.get("train")
        return cls(config.seed, data, dict(sorted(settings.items())), config.steps)

    def to_dict(self) -> dict[str, Any]:
        """Return what `check` compares, in a form that JSON can hold."""
        return {"seed": self.seed, "data": self.data, "settings": self.settings}

    def check(self, path: Path, step: int, stored: dict[str, Any] | None) -> None:
        """Raise CheckpointError, naming field and values, unless a checkpoint is of this run.

        `step`, `stored`: what the checkpoint says about itself. None: it says nothing, as those of
        older versions.
        """
        if not 0 <= step <= self.steps:
            raise _another(path, "step", f"0 to {self.steps} (its steps)", step)
        if stored is None:
            return
        for name, own in (("seed", self.seed), ("data", self.data)):
            if stored.get(name) != own and None not in (stored.get(name), own):
                raise _another(path, name, own, stored.get(name))
        settings = stored.get("settings")
        if not isinstance(settings, dict):
            raise _another(path, "settings", "a group", settings)
        for name in sorted(self.settings.keys() | settings.keys()):
            own, found = self.settings.get(name, "the default"), settings.get(name, "the default")
            if _plain(own) != found:
                raise _another(path, name, own, found)


def _another(path: Path, field: str, own: object, found: object) -> CheckpointError:
    return CheckpointError(
        f"{path}: a whole checkpoint, but not of this run: {field}: expected {own}, found {found}. "
        "Move it to the run that it is of, or bring back this run's own files."
    )


def _order(config: Config) -> str:
    """Return the order of examples; feeds with the same order count as the same."""
    if config.feed == "streamed":
        return "streamed"
    return "queue" if config.feed == "queued" else config.order


def _changed(settings: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the settings that differ from their defaults, so that new settings change nothing."""
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        if dataclasses.is_dataclass(value):
            yield from _changed(value, f"{prefix}{each.name}.")
        elif value != each.default:
            yield prefix + each.name, value


def _plain(value: Any) -> Any:
    """Return a setting in the form in which JSON gives it back."""
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
