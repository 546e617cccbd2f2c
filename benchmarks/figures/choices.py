"""What was tried on validation splits before a preset was settled."""

from __future__ import annotations

import statistics
from typing import Any

from deepcnn.runs.log import events
from figures.logged import link, markdown, results, rounded, runs

FASHION = "2026-11-30_fashion"
STARTS = {
    "scratch": "from scratch",
    "rate 1.0": "from CIFAR-10",
    "rate 0.3": "old layers at 0.3 of the rates",
    "rate 0.1": "at 0.1",
    "rate 0.3, its statistics": "at 0.3, standardized by CIFAR-10's statistics",
}
RIGHT = "right of 10000 over six views"


def fashion_tried() -> str:
    """Return what each setting of `fashion` that was tried came to, and what it cost."""
    rows = [
        (_settings(tried["changes"]), f"{tried[RIGHT]:,}", f"{tried['cpu seconds']:.0f}")
        for tried in _tried()
        if tried["split"] == "validation"
    ]
    return markdown(("changed from `quick`", "right of 10,000", "seconds of one core"), rows)


def fashion_on_the_test_set() -> str:
    """Return how many test images the one network was right about that was tried on them."""
    (right,) = (tried[RIGHT] for tried in _tried() if tried["split"] == "test")
    return f"{right:,}"


def start_from() -> str:
    """Return what beginning with a run of CIFAR-10 came to on each set."""
    rows = []
    for remark, result in results("start_from").items():
        tried = {each["start"]: each for each in result["tried"]}
        about = f"{remark.replace('_', '-')}, {result['each']} of each of {result['classes']}"
        rows.append((about, *(_percent(tried[start]) for start in STARTS)))
    return markdown((f"accuracy in % {link('start_from')}", *STARTS.values()), rows)


def _percent(tried: dict[str, Any]) -> str:
    """Return the mean and the standard deviation over the seeds."""
    shares = [100 * right / tried["of"] for right in tried["right"]]
    return f"{rounded(statistics.mean(shares), 1)} ± {rounded(statistics.stdev(shares), 1)}"


def _tried() -> list[dict[str, Any]]:
    return events(runs(FASHION)["choices"], "Tried")


def _settings(changes: dict[str, Any]) -> str:
    """Write settings as the command line has them."""
    told = []
    for name, value in changes.items():
        values = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        told.append(f"`{name.replace('_', '-')} {values}`")
    return ", ".join(told) or "nothing"
