"""How a training takes over what another one has learned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from deepcnn.config import Config
from deepcnn.errors import RunError
from deepcnn.inference.parent import New, Parent, fit, open_parent
from deepcnn.learning.state import TrainState
from deepcnn.runs.beginning import Beginning


class Inheritance:
    """What a training takes from the run or file in its configuration; one process reads it.

    `began`: what a resumed run took before. The same is expected again, from the same file.
    """

    def __init__(self, start_from: str, began: Beginning | None) -> None:
        self._path, self._began = start_from, began
        self._parent: Parent | None = None
        self._weights: dict[str, Tensor] = {}

    def fitting(self, config: Config, channels: int) -> Config:
        """Return the configuration with a network that can take the weights."""
        widths = self._open().widths_for(config.model, channels)
        model = dataclasses.replace(config.model, widths=widths)
        return dataclasses.replace(config, model=model)

    def fit(self, new: New) -> Beginning:
        """Return what a network takes; raises as `open_parent` and `fit` do.

        Raises RunError if this is not what was taken before.
        """
        self._weights, found = fit(self._open(), new)
        if self._began is not None and self._began.sha256 != found.sha256:
            raise RunError(
                f"{found.file}: changed since this run began with it: expected weights with the "
                f"SHA-256 {self._began.sha256}, found {found.sha256}. Bring it back, or start a "
                "new run."
            )
        return dataclasses.replace(found, path=self._path)

    def take(self, state: TrainState) -> None:
        """Set the weights that were found to fit. This works only once, and frees their memory."""
        state.begin_with(self._weights, self._path)
        self._parent, self._weights = None, {}

    def _open(self) -> Parent:
        if self._parent is None:
            self._parent = open_parent(Path(self._began.file if self._began else self._path))
        return self._parent
