"""Several runs on one page: their scores, means over seeds, and the better one of each pair."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deepcnn.config import Config
from deepcnn.intervals import interval, wilson
from deepcnn.reports.commands import settings
from deepcnn.reports.comparison import Pair, Spread, holm, mcnemar, spread
from deepcnn.reports.findings import Subject
from deepcnn.reports.measures import Bools, Labels
from deepcnn.reports.pictures import look

# Settings that change no number, or only by chance.
INDIFFERENT = (
    *("seed", "device", "threads", "data_dir", "log_every", "summary_every", "save_every"),
    *("evaluate_every", "keep"),
)


@dataclass(frozen=True)
class Contender:
    """A run that is compared: which answers were right, about which images.

    `sha256`: of the images and labels; `shape`: of an image.
    """

    run: Path
    config: Config
    split: str
    step: int
    shape: tuple[int, int, int]
    sha256: str
    labels: Labels = field(repr=False)
    right: Bools = field(repr=False)

    @classmethod
    def of(cls, subject: Subject) -> Contender:
        """Take what is needed from a subject, so that its images need not stay in memory."""
        answered, source = subject.answered, subject.source
        plain = dataclasses.replace(answered, calibration=None)
        return cls(
            run=subject.run.path,
            config=subject.trained.config,
            split=answered.split,
            step=answered.step,
            shape=source.shape,
            sha256=look(source, plain, []).sha256,
            labels=answered.labels,
            right=answered.right,
        )

    @property
    def correct(self) -> int:
        """The number of right answers."""
        return int(self.right.sum())

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.correct / len(self.right)

    def saw_the_same(self, other: Contender) -> bool:
        """Tell whether both answered about the same images, perhaps brought to another size."""
        if not np.array_equal(self.labels, other.labels):
            return False
        same_data = (self.config.data, self.split) == (other.config.data, other.split)
        return self.sha256 == other.sha256 or (same_data and self.shape != other.shape)


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed; `repeated`: those with the seed of another one."""

    members: list[int]
    repeated: list[int]
    spread: Spread


def groups(contenders: list[Contender]) -> list[Group]:
    """Return the groups of two or more runs that differ only in the seed."""
    found: dict[str, list[int]] = {}
    for index, each in enumerate(contenders):
        known = [pair for pair in settings(each.config) if pair[0] not in INDIFFERENT]
        found.setdefault(repr((known, each.split, each.sha256, each.step)), []).append(index)
    result = []
    for members in found.values():
        seeds = [contenders[index].config.seed for index in members]
        first = [i for place, i in enumerate(members) if seeds.index(seeds[place]) == place]
        if len(members) > 1:
            repeated = [index for index in members if index not in first]
            means = spread([contenders[index].accuracy for index in first])
            result.append(Group(members, repeated, means))
    return result


def pairs(contenders: list[Contender], names: list[str]) -> list[Pair]:
    """Compare every two runs on the same images."""
    found = []
    for a, b in itertools.combinations(range(len(contenders)), 2):
        one, other = contenders[a], contenders[b]
        if one.saw_the_same(other):
            only_first = int((one.right & ~other.right).sum())
            only_second = int((other.right & ~one.right).sum())
            p = mcnemar(only_first, only_second)
            found.append(Pair(names[a], names[b], only_first, only_second, p, p))
    corrected = holm([pair.p for pair in found])
    return [
        dataclasses.replace(pair, corrected=value)
        for pair, value in zip(found, corrected, strict=True)
    ]


def names_of(contenders: list[Contender]) -> list[str]:
    """Return short names of runs: those of their folders, or paths if these are not unique."""
    short = [each.run.resolve().name for each in contenders]
    return [
        name if short.count(name) == 1 else str(each.run)
        for name, each in zip(short, contenders, strict=True)
    ]


def compared(contenders: list[Contender]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values for the template `comparison.html`, and the same in a form for JSON."""
    names = names_of(contenders)
    found_groups, found_pairs = groups(contenders), pairs(contenders, names)
    page = {
        "title": f"{len(contenders)} runs compared",
        "notes": _notes(contenders, names, found_groups),
        "runs": [_run(each, name) for each, name in zip(contenders, names, strict=True)],
        "groups": [_group(each, names) for each in found_groups],
        "pairs": [
            {"names": f"{pair.first} and {pair.second}", "words": pair.words}
            for pair in found_pairs
        ],
        "differences": _differences(contenders),
    }
    twin = {
        "runs": [
            {
                "name": name,
                "run": str(each.run),
                "preset": each.config.preset,
                "seed": each.config.seed,
                "step": each.step,
                "split": each.split,
                "correct": each.correct,
                "total": len(each.right),
                "interval": wilson(each.correct, len(each.right)),
                "examples_sha256": each.sha256,
            }
            for each, name in zip(contenders, names, strict=True)
        ],
        "groups": [
            {"runs": [names[i] for i in each.members], **dataclasses.asdict(each.spread)}
            for each in found_groups
        ],
        "pairs": [{**dataclasses.asdict(pair), "words": pair.words} for pair in found_pairs],
    }
    return page, twin


def _run(each: Contender, name: str) -> dict[str, Any]:
    correct, total = each.correct, len(each.right)
    return {
        "name": name,
        "preset": each.config.preset,
        "seed": each.config.seed,
        "step": each.step,
        "split": each.split,
        "correct": correct,
        "total": total,
        "accuracy": f"{100 * correct / total:.2f}\u00a0%",
        "interval": interval(correct, total),
    }


def _group(group: Group, names: list[str]) -> dict[str, str]:
    found = group.spread
    return {
        "names": ", ".join(names[index] for index in group.members),
        "count": f"{found.count}",
        "mean": f"{100 * found.mean:.2f}\u00a0%",
        "deviation": "–" if found.deviation is None else f"{100 * found.deviation:.2f}",
        "interval": "–"
        if found.interval is None
        else f"{100 * found.interval[0]:.2f} to {100 * found.interval[1]:.2f}\u00a0%",
    }


def _notes(contenders: list[Contender], names: list[str], found: list[Group]) -> list[str]:
    notes = []
    repeated = [names[index] for group in found for index in group.repeated]
    if repeated:
        notes.append(
            f"{', '.join(repeated)}: the same settings and seed as another run, so not counted in "
            "the mean."
        )
    if any(each.split == "test" for each in contenders) and len(contenders) > 2:
        notes.append(
            "Who chooses the best of several runs by the test set finds it better there than it is."
        )
    return notes


def _differences(contenders: list[Contender]) -> list[tuple[str, list[str]]]:
    """Return the settings that differ between runs, with the value of each run."""
    all_values = [dict(pair[:2] for pair in settings(each.config)) for each in contenders]
    return [
        (name, [values[name] for values in all_values])
        for name in all_values[0]
        if len({values[name] for values in all_values}) > 1
    ]
