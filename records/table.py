"""Recomputes a record's table from its logs, so that no figure is typed by hand.

    python records/table.py records/2026-11-21_quick

A record's folder holds, for each seed, `seed-N.jsonl`, the log of its run, and `seed-N.txt`, what
the program printed, with the whole process's wall time in its last line.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """Print the table."""
    rows = []
    for path in sorted(folder.glob("seed-*.jsonl"), key=lambda p: int(p.stem.split("-")[1])):
        events = [json.loads(line) for line in path.read_text().splitlines()]
        score = next(event for event in events if event["event"] == "Evaluated")
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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
