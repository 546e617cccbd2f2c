"""Recomputes a record's table from its logs, so that no figure is typed by hand.

    python records/table.py records/2026-11-21_quick

A record's folder holds, for each seed, `seed-N.jsonl`, the log of its run, and `seed-N.txt`, what
the program printed, with the whole process's wall time in its last line. A record of one run over
time holds its `log.jsonl` instead, and `evaluations.txt`, what `deepcnn evaluate` printed later.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Print the table."""
    if (folder / "log.jsonl").exists():
        print_over_time(folder)
    else:
        print_seeds(folder)


def print_seeds(folder: Path) -> None:
    """Print the score of each seed, and their mean."""
    rows = []
    for path in sorted(folder.glob("seed-*.jsonl"), key=lambda p: int(p.stem.split("-")[1])):
        score = next(event for event in events(path) if event["event"] == "Evaluated")
        wall = re.search(r"wall ([\d.]+) s", path.with_suffix(".txt").read_text())
        assert wall, f"{path}: no wall time"
        rows.append(
            (path.stem.split("-")[1], score["correct"], score["total"], float(wall.group(1)))
        )
    print("| seed | correct | of | accuracy | whole process |")
    print("|---|---|---|---|---|")
    for seed, correct, total, seconds in rows:
        print(f"| {seed} | {correct} | {total} | {correct / total:.2%} | {seconds:.1f} s |")
    accuracies = [100 * correct / total for _, correct, total, _ in rows]
    times = [seconds for *_, seconds in rows]
    if len(rows) == 1:
        print("\nn = 1: an observation, without a deviation")
        return
    mean, deviation = statistics.mean(accuracies), statistics.stdev(accuracies)
    print(
        f"\nn = {len(rows)}: mean {mean:.2f} %, standard deviation {deviation:.2f}, mean - 2 "
        f"deviations {mean - 2 * deviation:.2f} %; whole process: median "
        f"{statistics.median(times):.1f} s, maximum {max(times):.1f} s"
    )


def print_over_time(folder: Path) -> None:
    """Print the test accuracy of averaged and of raw parameters at each step where it is known."""
    averaged = {
        event["step"]: event["correct"] / event["total"]
        for event in events(folder / "log.jsonl")
        if event["event"] == "Evaluated" and event["split"] == "test" and event["averaged"]
    }
    printed = r"\((\d+) / (\d+) correct, test, step (\d+), raw parameters"
    raw = {
        int(step): int(correct) / int(total)
        for correct, total, step in re.findall(printed, (folder / "evaluations.txt").read_text())
    }
    print("| step | averaged parameters | raw |")
    print("|---|---|---|")
    for step in sorted(averaged.keys() | raw.keys()):
        cells = (f"{found[step]:.2%}" if step in found else "" for found in (averaged, raw))
        print(f"| {step:,} | {' | '.join(cells)} |")
    print("\nn = 1: an observation, without a deviation")


def events(path: Path) -> list[dict[str, Any]]:
    """Return the events of a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
