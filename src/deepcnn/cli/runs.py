"""List the runs below runs/, newest first."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.cells import cell_len, set_cell_size

from deepcnn.console import say, say_json
from deepcnn.errors import RunError
from deepcnn.intervals import interval
from deepcnn.runs.find import Summary, all_runs, summary
from deepcnn.shown import shown

DISPENSABLE = ("size", "preset", "age", "data")  # columns that a narrow terminal does without


@dataclass(frozen=True)
class Options:
    """List the runs in a folder, newest first."""

    folder: tyro.conf.Positional[Path] = Path("runs")
    """The folder."""
    json: bool = False
    """Print one JSON object on each line."""


def run(options: Options) -> int:
    """Print a line for each run."""
    rows: list[tuple[str, ...]] = []
    for path in all_runs(options.folder):
        try:
            found = summary(path)
        except RunError as error:
            say(f"deepcnn: {shown(error)}", to="stderr")
            continue
        if options.json:
            say_json(dataclasses.asdict(found), default=str)
            continue
        rows.append(
            (
                shown(found.path),
                shown(found.preset),
                shown(found.data),
                _score(found),
                f"{found.step:,} of {found.steps:,}",
                _age(time.time() - found.changed),
                f"{found.bytes / 1e6:.1f} MB",
            )
        )
    if rows:
        _print_table(("run", "preset", "data", "accuracy", "steps", "age", "size"), rows)
    elif not options.json:
        say(f"{shown(options.folder)}: no runs. Train one: deepcnn train")
    return 0


def _score(found: Summary) -> str:
    """Return an accuracy with its interval, its examples and its split."""
    split = shown(found.split or "")
    if found.correct is None or not found.total:
        return split
    share = f"{100 * found.correct / found.total:.2f} %"
    within = interval(found.correct, found.total)
    return f"{share} {within} of {found.total:,} {split}".rstrip()


def _print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print columns side by side; on a terminal without those that it has no room for."""
    columns = list(zip(head, *rows, strict=True))
    widths = {column[0]: max(map(cell_len, column)) for column in columns}
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for name in DISPENSABLE:
        if room is not None and sum(widths.values()) + 2 * (len(widths) - 1) > room:
            del widths[name]
    kept = [column for column in columns if column[0] in widths]
    for row in zip(*kept, strict=True):
        cells = map(set_cell_size, row, widths.values())
        say("  ".join(cells).rstrip())


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, seconds):.0f} s"
