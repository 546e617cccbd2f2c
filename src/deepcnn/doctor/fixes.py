"""The table of fixes: what a training should leave out, and what a person should look at."""

from __future__ import annotations

import csv
import io

from deepcnn.data.exclusions import COLUMNS, EXCLUDE
from deepcnn.data.splits import Split
from deepcnn.doctor.findings import Duplicate, Findings, Place
from deepcnn.doctor.look import Seen

CHECK = "check"  # an action that `deepcnn train --exclude` passes over


def table(found: Findings, seen: Seen) -> bytes:
    """Return the table as CSV.

    These are to be left out: for a leak into the test set, the example outside the test set; of
    equal examples with the same label, all but the first; of equal examples with different labels,
    all; and images that are almost empty. Findings that may be no mistake have the action "check".
    """
    actions: dict[tuple[Split, int], tuple[str, str, str | None]] = {}

    def add(place: Place, action: str, reason: str) -> None:
        key = (place.split, place.index)
        if key not in actions or (actions[key][0] == CHECK and action == EXCLUDE):
            actions[key] = (action, reason, place.path)

    for duplicate in found.duplicates:
        for place, action in _of(duplicate):
            other = duplicate.a if place is duplicate.b else duplicate.b
            label = "" if duplicate.same_label else ", with another label"
            reason = f"{duplicate.kind} duplicate of {other.split} {other.index}{label}"
            add(place, action, reason)
    for split, looked in seen.splits.items():
        for index in looked.empty.nonzero()[0].tolist():
            path = looked.paths[index] if looked.paths is not None else None
            add(Place(split, index, path), EXCLUDE, "almost empty")
    for suspect in found.suspects:
        looked = seen.splits[suspect.split]
        path = looked.paths[suspect.index] if looked.paths is not None else None
        given, likely = found.classes[suspect.given], found.classes[suspect.likely]
        reason = f"given {given}, likely {likely}"
        add(Place(suspect.split, suspect.index, path), CHECK, reason)
    places = {split: seen.dataset.places(split).tolist() for split in seen.splits}
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    for (split, index), (action, reason, path) in actions.items():
        own, place = seen.dataset.own_split_of(split), places[split][index]
        lines.writerow([own, place, path or "", action, reason])
    return text.getvalue().encode(errors="surrogateescape")


def _of(duplicate: Duplicate) -> list[tuple[Place, str]]:
    a, b = duplicate.a, duplicate.b
    if duplicate.leaks:
        return [(b if a.split == "test" else a, EXCLUDE)]
    if duplicate.kind == "near":
        return [(b, CHECK)] if duplicate.same_label else [(a, CHECK), (b, CHECK)]
    return [(b, EXCLUDE)] if duplicate.same_label else [(a, EXCLUDE), (b, EXCLUDE)]
