"""Two runs on the same images: which is better, and where they differ."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepcnn.errors import RunError
from deepcnn.intervals import described, wilson
from deepcnn.reports.against import Contender, names_of, pairs
from deepcnn.reports.comparison import Pair
from deepcnn.reports.findings import Subject
from deepcnn.reports.measures import Labels
from deepcnn.reports.write import names_of as names_of_images


@dataclass(frozen=True)
class Answering:
    """A run that is compared, with its answers.

    `answers`: int64 [N], classes. `images`: the name of each image: its path if it has one.
    """

    contender: Contender
    classes: tuple[str, ...]
    answers: Labels
    images: list[str]

    @classmethod
    def of(cls, subject: Subject) -> Answering:
        """Take what is needed from a subject, so that its images need not stay in memory."""
        images = list(names_of_images(subject.source, subject.answered.split))
        predicted = subject.answered.predicted
        return cls(Contender.of(subject), subject.classes, predicted, images)

    def told(self) -> str:
        """Return what it was scored on, in words."""
        each = self.contender
        return f"{each.run} on the {len(each.right):,} {each.split} images of {each.config.data}"


@dataclass(frozen=True)
class Difference:
    """An image about which two runs answer differently; `index`: its place in the split."""

    index: int
    image: str
    truth: str
    answers: tuple[str, str]
    right: tuple[bool, bool]


@dataclass(frozen=True)
class Compared:
    """Two runs on the same images, their names, McNemar's test, and where they differ.

    First come the images that only one run got right, which the test counts. Then come those about
    which both are wrong in different ways. Each kind is in the order of the split.
    """

    runs: tuple[Contender, Contender]
    names: tuple[str, str]
    pair: Pair
    differences: list[Difference]

    def scores(self) -> list[str]:
        """Return the accuracy of each run with its interval, in words."""
        return [
            f"{name}: "
            + described(each.correct, len(each.right), f"{each.split} images")
            + f", step {each.step:,}"
            for name, each in zip(self.names, self.runs, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all results in a form that JSON can hold."""
        runs = [
            {
                "name": name,
                "run": str(each.run),
                "split": each.split,
                "step": each.step,
                "correct": each.correct,
                "total": len(each.right),
                "interval": wilson(each.correct, len(each.right)),
                "examples_sha256": each.sha256,
            }
            for name, each in zip(self.names, self.runs, strict=True)
        ]
        return {
            "runs": runs,
            **dataclasses.asdict(self.pair),
            "words": self.pair.words,
            "differences": [dataclasses.asdict(each) for each in self.differences],
        }


def compare(first: Answering, second: Answering) -> Compared:
    """Compare two runs; raises RunError unless both answered about the same images and classes.

    Images count as the same if pixels and labels are equal, or if both runs had the same split of
    the same data, brought to different sizes.
    """
    one, other = first.contender, second.contender
    if not one.saw_the_same(other):
        raise RunError(
            f"not the same images: {first.told()}, {second.told()}. Only answers about the same "
            "images can be compared; score both on one split, as by --split test, or on one data "
            "set: --data"
        )
    if first.classes != second.classes:
        raise RunError(
            f"not the same classes: {one.run} knows {', '.join(first.classes)}; {other.run} knows "
            f"{', '.join(second.classes)}"
        )
    names = names_of([one, other])
    (pair,) = pairs([one, other], names)
    return Compared((one, other), (names[0], names[1]), pair, _differences(first, second))


def _differences(first: Answering, second: Answering) -> list[Difference]:
    one, other, classes = first.contender, second.contender, first.classes
    only_one = one.right != other.right
    both_wrong = (first.answers != second.answers) & ~only_one
    return [
        Difference(
            index=index,
            image=first.images[index],
            truth=classes[one.labels[index]],
            answers=(classes[first.answers[index]], classes[second.answers[index]]),
            right=(bool(one.right[index]), bool(other.right[index])),
        )
        for kind in (only_one, both_wrong)
        for index in np.flatnonzero(kind).tolist()
    ]
