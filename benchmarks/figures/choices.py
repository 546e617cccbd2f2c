"""What was tried on validation splits before a preset was settled."""

from __future__ import annotations

from typing import Any

from deepcnn.runs.log import events
from figures.logged import markdown, runs

FASHION = "2026-11-30_fashion"
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


def _tried() -> list[dict[str, Any]]:
    return events(runs(FASHION)["choices"], "Tried")


def _settings(changes: dict[str, Any]) -> str:
    """Write settings as the command line has them."""
    told = []
    for name, value in changes.items():
        values = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        told.append(f"`{name.replace('_', '-')} {values}`")
    return ", ".join(told) or "nothing"
