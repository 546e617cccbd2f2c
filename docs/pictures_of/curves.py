"""Curves of trainings, as SVG files that stand alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deepcnn.reports.svg import Axes, Point, Series, chart
from deepcnn.runs.log import events

STYLE = """
text { fill: #1f2328; font: 13px system-ui, sans-serif; }
.grid { stroke: #d0d7de; fill: none; }
.line path { fill: none; stroke: #0952a5; stroke-width: 2.25; }
.line circle { fill: #0952a5; }
.thin path { stroke: #c45400; stroke-width: 1; }
.dashed path { stroke: #c45400; stroke-dasharray: 7 4; }
.dashed circle { fill: #c45400; }
"""

Log = list[dict[str, Any]]


def make(run: Log, long_run: Log, folder: Path) -> None:
    """Write the curves; `run`: the log of the pictures' run; `long_run`: of one with scores."""
    write(losses(run), folder / "losses.svg")
    write(averages(long_run), folder / "averages.svg")


def losses(log: Log) -> str:
    """Return the losses of the last third of a run, of single steps and averaged."""
    steps = events(log, "Stepped")
    last = steps[-1]["step"] + 1
    late = [event for event in steps if event["step"] >= 2 * last // 3]
    raw, averaged = (
        [(float(event["step"]), event[kind]["total_loss"]) for event in late]
        for kind in ("losses", "averages")
    )
    heights = min(y for _, y in raw), max(y for _, y in raw)
    axes = Axes("Total loss by step", "step", "total loss", (2 * last / 3, last), heights)
    return str(
        chart(axes, [Series("of a step", raw, "thin"), Series("averaged", averaged, "strong")])
    )


def averages(log: Log) -> str:
    """Return the test accuracy with raw and with averaged parameters."""
    lines: dict[bool, dict[int, float]] = {True: {}, False: {}}
    for event in events(log, "Evaluated"):
        if event["split"] == "test":
            lines[event["averaged"]][event["step"]] = event["correct"] / event["total"]
    both = sorted(lines[True].keys() & lines[False].keys())
    raw, averaged = ([(float(step), lines[kind][step]) for step in both] for kind in (False, True))
    heights = min(y for _, y in raw), max(y for _, y in averaged)
    axes = Axes("Test accuracy by step", "step", "test accuracy", (0, both[-1]), heights, True)
    return str(chart(axes, [dotted("raw", raw, "dashed"), dotted("averaged", averaged, "strong")]))


def dotted(name: str, points: list[Point], style: Any) -> Series:
    """Return a line with a dot at each point."""
    return Series(name, points, style, [3.0] * len(points))


def write(svg: str, path: Path) -> None:
    """Write a drawing with its colours on white, which no page need give it."""
    head, body = svg.split(">", 1)
    head = head.replace('viewBox="0 0 400 250"', 'viewBox="0 0 416 250" width="640" height="385"')
    head += ' xmlns="http://www.w3.org/2000/svg"'
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    path.write_text(f"{head}><style>{STYLE}</style>{ground}{body}\n")
