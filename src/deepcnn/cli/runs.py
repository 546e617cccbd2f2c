"""List the runs below runs/, newest first."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

ACCURACY = "accuracy (95 % interval)"
HEAD = ("run", "preset", "data", ACCURACY, "of", "steps", "age", "size")


@dataclass(frozen=True)
class Options:
    """List the runs in a folder, newest first."""

    folder: tyro.conf.Positional[Path] = Path("runs")
    """Where they are."""
    json: bool = False
    """Print one JSON object a line."""


def run(options: Options) -> int:
    """Print a line for each run."""
    from deepcnn.data.formats.listings import shown
    from deepcnn.errors import RunError
    from deepcnn.intervals import interval
    from deepcnn.runs.find import all_runs, summary

    rows: list[tuple[str, ...]] = []
    for path in all_runs(options.folder):
        try:
            found = summary(path)
        except RunError as error:
            print(f"deepcnn: {shown(error)}", file=sys.stderr)
            continue
        if options.json:
            print(json.dumps(dataclasses.asdict(found), default=str))
            continue
        score = examples = ""
        if found.correct is not None and found.total:
            share = 100 * found.correct / found.total
            score = f"{share:.2f} % {interval(found.correct, found.total)}"
            examples = f"{found.total:,} {shown(found.split or '')}".rstrip()
        rows.append(
            (
                shown(found.path),
                shown(found.preset),
                shown(found.data),
                score,
                examples,
                f"{found.step:,} of {found.steps:,}",
                _age(time.time() - found.changed),
                f"{found.bytes / 1e6:.1f} MB",
            )
        )
    if rows:
        _print_table(HEAD, rows)
    elif not options.json:
        print(f"{shown(options.folder)}: no runs. Train one: deepcnn train")
    return 0


def _print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, seconds):.0f} s"
