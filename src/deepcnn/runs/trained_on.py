"""What a run was trained on: how images become input, the classes, and the examples' counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.formats.decoding import decoder
from deepcnn.data.source import Source
from deepcnn.errors import RunError
from deepcnn.events import Listener, Noted
from deepcnn.inputs.transform import Transform
from deepcnn.runs.beginning import Beginning
from deepcnn.runs.run import INPUTS, Run


@dataclass(frozen=True)
class TrainedOn:
    """What a run stores about its data, in `inputs.json`.

    `counts`: by split, the examples of each class, for the splits that the run is trained and
    scored on. `content`: digests of their pixels and labels, see `Dataset.content`. `decoder`: the
    one that made the pixels. Runs of older versions have neither of these two. `fed_by`: the kind
    of feed from Python, see `Fed.kind`, or None. `began_with`: what it took from another training,
    or None. `excluded`: the SHA-256 of the table of examples that were left out, or None.
    """

    transform: Transform
    classes: tuple[str, ...]
    counts: dict[str, list[int]] = field(default_factory=dict)
    fed_by: str | None = None
    began_with: Beginning | None = None
    content: dict[str, str] = field(default_factory=dict)
    decoder: str | None = None
    excluded: str | None = None

    @classmethod
    def read(cls, run: Run) -> TrainedOn:
        """Read what a run stores; raises RunError if deepcnn cannot have written it."""
        values = run.read(INPUTS)
        try:
            counts = dict(values.get("scored_on", {}))
            if values.get("examples") is not None:
                counts["train"] = list(values["examples"])
            began_with = values.get("began_with")
            return cls(
                Transform.from_dict(values["inputs"]),
                tuple(values["classes"]),
                counts,
                values.get("fed_by"),
                None if began_with is None else Beginning.from_dict(began_with),
                dict(values.get("content", {})),
                values.get("decoder"),
                values.get("excluded"),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{run.path / INPUTS}: not as deepcnn writes it ({error})") from error

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for `read`, which JSON can hold."""
        fed = {} if self.fed_by is None else {"fed_by": self.fed_by}
        began = {} if self.began_with is None else {"began_with": self.began_with.to_dict()}
        scored_on = {split: counts for split, counts in self.counts.items() if split != "train"}
        return {
            "inputs": self.transform.to_dict(),
            "classes": self.classes,
            "examples": self.counts.get("train"),
            "scored_on": scored_on,
            "content": self.content,
            "decoder": self.decoder,
            **fed,
            **began,
            **({} if self.excluded is None else {"excluded": self.excluded}),
        }

    def check_excluded(self, table: str | None, sha256: str | None) -> None:
        """Raise RunError if the table of examples to leave out is no longer the same."""
        if sha256 != self.excluded:
            raise RunError(
                f"{table}: the table of examples that are left out changed since this run began. "
                "Bring it back, or start a new run."
            )

    def check(self, data: str, split: str, source: Source, counts: NDArray[np.int64]) -> None:
        """Raise RunError if a split of `data` is no longer what this run had.

        `counts`: int64 [classes], its examples by class; random choices are made in the order of
        classes.
        """
        changed = f"{data}: the {split} split changed since this run began: expected "
        if source.classes != self.classes or source.shape != self.transform.image_shape:
            raise RunError(
                f"{changed}images {self.transform.image_shape} of {len(self.classes)} classes, "
                f"found {source.shape} of {len(source.classes)}. Start a new run."
            )
        expected = self.counts.get(split)
        if expected is not None and expected != counts.tolist():
            raise RunError(
                f"{changed}{expected} examples by class, found {counts.tolist()}. Bring the data "
                "back, or start a new run."
            )

    def check_content(self, data: str, split: str, content: str, emit: Listener) -> None:
        """Raise RunError if the pixels or labels of a split are not those that this run had.

        `content`: see `Dataset.content`. If another decoder reads pictures now, it may give other
        pixels for the same files. Then there is no error; `emit` only hears of it.
        """
        expected = self.content.get(split)
        if expected in (None, content):
            return
        text = f"{data}: the content of the {split} split changed since this run began"
        if self.decoder == decoder():
            raise RunError(
                f"{text}: expected {expected}, found {content}. Bring the data back, or start a "
                "new run."
            )
        emit(
            Noted(
                f"{text}, or is decoded otherwise: it was read by {self.decoder}, and is by "
                f"{decoder()}. Scores may differ a little."
            )
        )
