"""What the doctor finds: the values for its JSON, its page and its table of fixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deepcnn.data.splits import Split


def counted(count: int, noun: str) -> str:
    """Return a count and its noun, as "1 file", "2,000 files" and "2 classes"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "es" if noun.endswith("s") else "s")


@dataclass(frozen=True, order=True)
class Place:
    """Where an example is: its split, its index there, and its file if it has one of its own."""

    split: Split
    index: int
    path: str | None = None


@dataclass(frozen=True)
class Duplicate:
    """Two examples that show the same picture.

    `kind`: "exact" if all pixels are equal, else "near". `similarity`: 1 if they are equal, else
    their similarity after alignment, 0 to 1, see `alignment.similarity`.
    """

    kind: Literal["exact", "near"]
    a: Place
    b: Place
    similarity: float
    same_label: bool

    @property
    def leaks(self) -> bool:
        """Whether one is a test image, and the other is used for training or for choosing."""
        return self.a.split != self.b.split and "test" in (self.a.split, self.b.split)


@dataclass(frozen=True)
class Suspect:
    """An example whose label seems wrong.

    `given`, `likely`: indices of classes. `score`: how wrong the label seems, 0 to 1; higher is
    more suspicious.
    """

    split: Split
    index: int
    given: int
    likely: int
    score: float


@dataclass(frozen=True)
class Problem:
    """Anything else: its kind (a word of `problems.KINDS`), a file or folder, and a sentence.

    `count`: the number of findings that it stands for. It is more than 1 if the rest of a kind is
    only counted, and 0 if it says something about other findings.
    """

    kind: str
    path: str | None
    detail: str
    count: int = 1


@dataclass(frozen=True)
class Findings:
    """All that was found in a data set, each list worst first.

    `counts`: the number of examples of each class in each split.
    """

    data: str
    classes: tuple[str, ...]
    counts: Mapping[Split, tuple[int, ...]]
    duplicates: tuple[Duplicate, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def leaks(self) -> int:
        """The number of duplicates between the test set and the splits for training or choosing."""
        return sum(duplicate.leaks for duplicate in self.duplicates)

    def __bool__(self) -> bool:
        """Whether anything was found."""
        return bool(self.duplicates or self.suspects or self.problems)

    @property
    def repeated(self) -> int:
        """The number of examples that are in a pair of duplicates."""
        return len({place for found in self.duplicates for place in (found.a, found.b)})

    def total(self, kind: str) -> int:
        """Return the number of problems of a kind, including those that are only counted."""
        return sum(problem.count for problem in self.problems if problem.kind == kind)

    def to_dict(self, paths: Mapping[Split, tuple[str, ...] | None]) -> dict[str, Any]:
        """Return what `deepcnn doctor --json` prints; `paths`: of each split's examples."""

        def place(place: Place) -> dict[str, Any]:
            return {"split": place.split, "index": place.index, "path": place.path}

        def path_of(suspect: Suspect) -> str | None:
            there = paths.get(suspect.split)
            return there[suspect.index] if there else None

        return {
            "duplicates": [
                {
                    "kind": found.kind,
                    "a": place(found.a),
                    "b": place(found.b),
                    "similarity": round(found.similarity, 4),
                    "same_label": found.same_label,
                }
                for found in self.duplicates
            ],
            "label_suspects": [
                {
                    "split": found.split,
                    "index": found.index,
                    "path": path_of(found),
                    "given": self.classes[found.given],
                    "likely": self.classes[found.likely],
                    "score": round(found.score, 4),
                }
                for found in self.suspects
            ],
            "problems": [
                {"kind": found.kind, "path": found.path, "detail": found.detail}
                for found in self.problems
            ],
            "splits": {
                split: dict(zip(self.classes, counts, strict=True))
                for split, counts in self.counts.items()
            },
        }
