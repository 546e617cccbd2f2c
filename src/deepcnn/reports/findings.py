"""What a report says about a run, found once for the page, its JSON and its CSV."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deepcnn.data.source import Source
from deepcnn.inference.answered import Answered
from deepcnn.inference.calibration import Floats, probabilities
from deepcnn.inference.trained import Trained
from deepcnn.intervals import wilson
from deepcnn.reports import measures
from deepcnn.reports.measures import AtThreshold, Bin, Bools, CrossFitted, Labels, OfClass
from deepcnn.reports.pictures import Chosen, Seen, choose, look
from deepcnn.runs.run import Run

TOP = 5  # of how many classes the label is to be one
SHAPES = (1, 3)  # channels of the images that can be shown
SAMPLES = 10  # images of all the split that are shown as the network sees them


@dataclass(frozen=True)
class Subject:
    """What a report is about: a run, its network, and the network's answers about `source`.

    `source`: the split's examples, in the order of the answers. `scored_on`: the data from which
    they come; None: the run's own. `leaked`: which of them are also in the training set, pixel for
    pixel, bool [N]; None if this was not checked.
    """

    run: Run
    trained: Trained
    answered: Answered
    source: Source
    scored_on: str | None = None
    leaked: Bools | None = field(default=None, repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.trained.trained_on.classes


@dataclass(frozen=True)
class Sureness:
    """How far probabilities can be trusted: before a temperature, and after one from other data.

    `error_before`, `error_after`: expected calibration errors. The bins are for the diagram.
    """

    error_before: float
    error_after: float | None
    before: list[Bin]
    after: list[Bin] | None
    fitted: CrossFitted | None = field(repr=False)


@dataclass(frozen=True)
class Findings:
    """The findings: counts, measures, and the choice of pictures.

    `chances`: float32 [N, classes], with the run's temperature. `predicted`, `right`: for each
    example. `ranks`: see `measures.ranks`. `not_numbers`: answers with a logit that is not a
    number. `samples`: examples from all parts of the split.
    """

    predicted: Labels = field(repr=False)
    right: Bools = field(repr=False)
    chances: Floats = field(repr=False)
    ranks: Labels = field(repr=False)
    table: Labels = field(repr=False)
    of_class: list[OfClass] = field(repr=False)
    sureness: Sureness = field(repr=False)
    thresholds: list[AtThreshold] = field(repr=False)
    chosen: Chosen = field(repr=False)
    seen: Seen = field(repr=False)
    not_numbers: int
    samples: list[int]

    @property
    def total(self) -> int:
        """The number of examples."""
        return len(self.right)

    @property
    def correct(self) -> int:
        """The number of right answers."""
        return int(self.right.sum())

    def within(self, k: int) -> int:
        """Return for how many examples the label is among the k likeliest classes."""
        return int((self.ranks < k).sum())

    def doubtful(self, kind: str) -> int:
        """Return how many answers are "error" or "unknown"."""
        return sum(doubt == kind for doubt in self.seen.doubts)


def find(subject: Subject) -> Findings:
    """Count and measure, in one pass over the examples."""
    answered, labels = subject.answered, subject.answered.labels
    finite = np.asarray(np.isfinite(answered.logits).all(1), np.bool_)
    answered = dataclasses.replace(
        answered, logits=np.where(finite[:, None], answered.logits, 0).astype(np.float32)
    )
    predicted, right = answered.predicted, answered.right & finite
    chances = answered.probabilities()
    table = measures.confusion(labels, predicted, len(subject.classes))
    sureness = _sureness(answered, right)
    trusted = sureness.fitted.chances if sureness.fitted else chances
    chosen = choose(labels, predicted, chances)
    samples = np.unique(np.linspace(0, len(labels) - 1, SAMPLES).astype(np.int64)).tolist()
    shown = [*chosen.all, *samples] if subject.source.shape[2] in SHAPES else []
    return Findings(
        predicted=predicted,
        right=right,
        chances=chances,
        ranks=measures.ranks(answered.logits, labels),
        table=table,
        of_class=measures.by_class(table),
        sureness=sureness,
        thresholds=measures.over_thresholds(trusted.max(1), right),
        chosen=chosen,
        seen=look(subject.source, answered, shown),
        not_numbers=int((~finite).sum()),
        samples=samples,
    )


def _sureness(answered: Answered, right: Bools) -> Sureness:
    calibration = answered.calibration
    error = calibration.error if calibration is not None else 0.02
    raw = probabilities(answered.logits).max(1)
    fitted = measures.cross_fit(answered.logits, answered.labels, right, error)
    after = fitted.chances.max(1) if fitted else None
    return Sureness(
        error_before=measures.calibration_error(raw, right),
        error_after=None if after is None else measures.calibration_error(after, right),
        before=measures.reliability(raw, right),
        after=None if after is None else measures.reliability(after, right),
        fitted=fitted,
    )


def baseline(subject: Subject) -> tuple[int, int]:
    """Return the largest class of the training set, and how often this class alone is right.

    If the run does not know its training set, it is the largest class of the split.
    """
    given = np.bincount(subject.answered.labels, minlength=len(subject.classes))
    trained = subject.trained.trained_on.counts.get("train")
    largest = int(np.argmax(given if trained is None else trained))
    return largest, int(given[largest])


def to_dict(subject: Subject, found: Findings) -> dict[str, Any]:
    """Return the findings in a form that JSON can hold."""
    names, sureness, calibration = subject.classes, found.sureness, subject.answered.calibration
    largest, by_luck = baseline(subject)
    fitted = sureness.fitted
    return {
        "accuracy": {
            "correct": found.correct,
            "total": found.total,
            "share": found.correct / found.total,
            "interval": wilson(found.correct, found.total),
            "not_numbers": found.not_numbers,
        },
        "always_the_largest_class": {"label": names[largest], "correct": by_luck},
        "top": {str(k): found.within(k) for k in (1, TOP) if k < len(names) or k == 1},
        "classes": [
            {"label": name, **dataclasses.asdict(each)}
            for name, each in zip(names, found.of_class, strict=True)
        ],
        "confusion": found.table.tolist(),
        "calibration": {
            "stored": None if calibration is None else calibration.to_dict(),
            "error_before": sureness.error_before,
            "error_after": sureness.error_after,
            "temperatures": None if fitted is None else fitted.temperatures,
            "before": [dataclasses.asdict(each) for each in sureness.before],
            "after": sureness.after and [dataclasses.asdict(each) for each in sureness.after],
        },
        "thresholds": [dataclasses.asdict(each) for each in found.thresholds],
        "unsure": {
            "error": found.doubtful("error"),
            "unknown": found.doubtful("unknown"),
            "cross_fitted": fitted and {"answered": fitted.answered, "wrong": fitted.wrong},
        },
        "mistakes": [
            {
                "index": index,
                "given": names[int(subject.answered.labels[index])],
                "label": names[int(found.predicted[index])],
                "probability": float(found.chances[index].max()),
            }
            for index in found.chosen.mistakes
        ],
        "examples_sha256": found.seen.sha256,
    }
