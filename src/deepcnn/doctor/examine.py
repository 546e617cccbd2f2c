"""The whole examination of a data set."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.splits import Split
from deepcnn.doctor import duplicates, problems
from deepcnn.doctor.findings import Duplicate, Findings, Place, Problem, Suspect, counted
from deepcnn.doctor.look import Looked, Seen, look_at
from deepcnn.errors import DataError
from deepcnn.events import Listener, Noted, Reading, ignore
from deepcnn.settings import DataSpec

SPLIT_ORDER: tuple[Split, ...] = ("train", "validation", "test", "extra")
MOST_OF_GROUP = 50  # pairs that are told of one group of equal images


def examine(
    spec: DataSpec, *, labels: bool = False, emit: Listener = ignore
) -> tuple[Findings, Seen]:
    """Read a data set once, and return what was found and what was seen.

    `labels`: also train networks, to find labels that seem wrong. Raises DataError if the set
    cannot be opened at all.
    """
    seen = look_at(spec, emit)
    classes = seen.dataset.classes
    suspects: list[Suspect] = _suspects(seen, emit) if labels else []
    counts = {
        split: tuple(np.bincount(looked.labels, minlength=len(classes)).tolist())
        for split, looked in seen.splits.items()
    }
    alike, more = _duplicates(seen.splits, emit)
    found = Findings(
        spec.data,
        classes,
        counts,
        tuple(alike),
        tuple(sorted(suspects, key=lambda suspect: -suspect.score)),
        tuple(sorted([*more, *problems.find(seen)], key=lambda p: problems.KINDS.index(p.kind))),
    )
    return found, seen


def _suspects(seen: Seen, emit: Listener) -> list[Suspect]:
    from deepcnn.doctor.labels import suspects  # which trains, and so needs torch

    try:
        return suspects(seen.dataset, emit=emit)
    except DataError as error:  # too few to judge by; all the rest was looked at
        emit(Noted(f"Labels were not judged: {error}"))
        return []


def _duplicates(
    splits: dict[Split, Looked], emit: Listener
) -> tuple[list[Duplicate], list[Problem]]:
    """Return exact and near duplicates of all splits: leaks, then different labels, then others.

    The second result is the number of pairs that are only as similar as many pairs of the set, if
    there are such pairs.
    """
    order = [split for split in SPLIT_ORDER if split in splits]
    parts = [splits[split] for split in order]
    starts = np.cumsum([0, *(len(part.labels) for part in parts)])
    labels = np.concatenate([part.labels for part in parts])
    digests = np.concatenate([part.digests for part in parts])

    def place(index: int) -> Place:
        which = int(np.searchsorted(starts, index, "right")) - 1
        paths, at = parts[which].paths, index - int(starts[which])
        return Place(order[which], at, None if paths is None else paths[at])

    def pair(kind: Literal["exact", "near"], a: int, b: int, similarity: float) -> Duplicate:
        same = bool(labels[a] == labels[b])
        return Duplicate(kind, place(a), place(b), similarity, same)

    exact: list[tuple[int, int, int]] = []
    alone = np.ones(len(labels), np.bool_)  # but one of each group of equal images
    for group in duplicates.same_pixels(digests):
        alone[group[1:]] = False
        exact += [(turn, a, b) for turn, (a, b) in enumerate(_pairs(group, starts))]
    exact.sort(key=lambda one: one[0])  # of each group one first, so that a large one hides none
    found = [pair("exact", a, b, 1.0) for _, a, b in exact]
    there = np.flatnonzero(alone)
    thumbs = np.concatenate([part.thumbs for part in parts])[there]
    pairs, similarity = duplicates.alike(
        thumbs, lambda done, total: emit(Reading("comparing", done, total))
    )
    least = duplicates.least_of(similarity, len(there))
    for (a, b), value in zip(there[pairs].tolist(), similarity.tolist(), strict=True):
        if value >= least:
            found.append(pair("near", a, b, value))
    found.sort(key=lambda d: (not d.leaks, d.same_label, d.kind != "exact", -d.similarity))
    return found, _passed_over(int((similarity < least).sum()), least)


def _passed_over(count: int, least: float) -> list[Problem]:
    if not count:
        return []
    text = (
        f"{counted(count, 'pair')} more of {duplicates.LEAST:.2f} to {least:.2f} alike among those "
        "that were compared: so many pictures of this set are that alike that it says little, and "
        "they are not listed."
    )
    return [Problem("alike", None, text)]


def _pairs(group: NDArray[np.int64], starts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return each example of a group of equal ones with the first, and across splits with all.

    The number of pairs in a group of equal images grows with its square. So only MOST_OF_GROUP
    pairs for each example are returned.
    """
    first, *rest = group.tolist()
    pairs = {(first, other) for other in rest}
    split = np.searchsorted(starts, group, "right")
    for i, b in enumerate(group.tolist()):
        others = group[:i][split[:i] != split[i]][:MOST_OF_GROUP]
        pairs |= {(a, b) for a in others.tolist()}
    return sorted(pairs)
