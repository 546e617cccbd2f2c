"""The page about a data set: what was found, with its pictures."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.formats.decoding import encode
from deepcnn.data.shards import by
from deepcnn.data.splits import Split
from deepcnn.doctor.findings import Duplicate, Findings, Place, counted
from deepcnn.doctor.look import Seen
from deepcnn.intervals import wilson
from deepcnn.reports.page import render
from deepcnn.shown import shown

PAIRS, SUSPECTS = 60, 60  # that are shown
LARGEST = 128  # pixels a side of a picture in the page

View = dict[str, Any]


def page(found: Findings, seen: Seen) -> str:
    """Return the page as HTML, one file without any reference to another."""
    leaks = [d for d in found.duplicates if d.leaks]
    differ = [d for d in found.duplicates if not d.leaks and not d.same_label]
    rest = [d for d in found.duplicates if not d.leaks and d.same_label]
    groups = [
        ("Between the test set and others", "leaks", leaks),
        ("With different labels", "differ", differ),
        ("With one label", "same", rest),
    ]
    wanted = [place for _, _, group in groups for d in group[:PAIRS] for place in (d.a, d.b)]
    suspects = found.suspects[:SUSPECTS]
    wanted += [Place(s.split, s.index) for s in suspects]
    pictures = _pictures(seen, wanted)

    def example(place: Place) -> View:
        label = int(seen.splits[place.split].labels[place.index])
        name = place.path.rsplit("/", 1)[-1] if place.path else ""
        return {
            "png": pictures.get((place.split, place.index)),
            "where": f"{place.split} {place.index:,}",
            "label": shown(found.classes[label]),
            "name": shown(name),
        }

    view = {
        "title": shown(found.data),
        "verdict": _verdict(found),
        "shape": by(next(iter(seen.splits.values())).source.shape),
        "duplicates": [
            {
                "title": title,
                "id": name,
                "count": len(group),
                "pairs": [
                    {
                        "similarity": _likeness(d),
                        "a": example(d.a),
                        "b": example(d.b),
                        "same": d.same_label,
                    }
                    for d in group[:PAIRS]
                ],
            }
            for title, name, group in groups
            if group
        ],
        "suspects": [
            {
                **example(Place(s.split, s.index)),
                "likely": shown(found.classes[s.likely]),
                "score": f"{s.score:.2f}",
            }
            for s in suspects
        ],
        "suspects_count": len(found.suspects),
    }
    return render("doctor.html", {**view, **_tables(found)})


def _tables(found: Findings) -> View:
    return {
        "problems": [
            {"kind": p.kind, "path": shown(p.path) if p.path else "", "detail": shown(p.detail)}
            for p in found.problems
        ],
        "splits": list(found.counts),
        "classes": [
            {"name": shown(name), "counts": [counts[i] for counts in found.counts.values()]}
            for i, name in enumerate(found.classes)
        ],
        "totals": [_total(counts) for counts in found.counts.values()],
    }


def _likeness(duplicate: Duplicate) -> str:
    exact = duplicate.kind == "exact"
    return "the same pixels" if exact else f"{duplicate.similarity:.3f} alike"


def _total(counts: tuple[int, ...]) -> View:
    total = sum(counts)
    low, high = wilson(round(total / 2), total)
    return {"total": total, "within": f"±{50 * (high - low):.1f} %"}


def _verdict(found: Findings) -> str:
    if not found:
        return "Nothing was found."
    parts = []
    if found.leaks:
        lie = "lies" if found.leaks == 1 else "lie"
        duplicates = counted(found.leaks, "duplicate")
        parts.append(f"{duplicates} {lie} between the test set and other splits")
    others = len(found.duplicates) - found.leaks
    if others:
        lie = "lies" if others == 1 else "lie"
        duplicates = counted(others, "duplicate")
        parts.append(f"{duplicates} {lie} within a split or between the others")
    if found.suspects:
        seem = "seems" if len(found.suspects) == 1 else "seem"
        parts.append(f"{counted(len(found.suspects), 'label')} {seem} wrong")
    if found.problems:
        count = sum(problem.count for problem in found.problems)
        were = "was" if count == 1 else "were"
        parts.append(f"{counted(count, 'problem')} of other kinds {were} found")
    return "; ".join(parts) + "."


def _pictures(seen: Seen, wanted: list[Place]) -> dict[tuple[Split, int], str]:
    """Return the wanted pictures as data URIs, read once more from their files."""
    found: dict[tuple[Split, int], str] = {}
    for split, looked in seen.splits.items():
        indices = sorted({place.index for place in wanted if place.split == split})
        if not indices or looked.source.shape[2] not in (1, 3):
            continue
        keep = np.zeros(len(looked.source), np.bool_)
        keep[indices] = True
        images = [image for some, _ in looked.source.select(keep).blocks() for image in some]
        for index, image in zip(indices, images, strict=True):
            found[split, index] = _uri(image)
    return found


def _uri(image: NDArray[np.uint8]) -> str:
    step = -(-max(image.shape[:2]) // LARGEST)
    content = encode(np.ascontiguousarray(image[::step, ::step]))
    return "data:image/png;base64," + base64.b64encode(content).decode()
