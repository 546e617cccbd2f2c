"""Makes a record of a finished sweep: packs its configuration, its environment and its logs.

    .venv/bin/deepcnn sweep quick --seeds 10 --dir runs/quick_10
    .venv/bin/python records/make.py runs/quick_10 2026-12-01_quick

The record's own runs are those that are scored for good: all of a sweep without a grid, else the
best setting trained on everything, beside which the runs of each setting are kept. What was chosen,
and with which data in view, is then to be written into the new README.md; the tables are made.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import table
from scores import HERE

from deepcnn.errors import DeepcnnError
from deepcnn.reports.commands import flags
from deepcnn.runs.log import events, read_log
from deepcnn.runs.run import CONFIG, ENVIRONMENT
from deepcnn.sweep.plan import LOG, Task, best_of, read_plan, rows_of, score_of

NAME = re.compile(r"\d{4}-\d\d-\d\d_\w+")
PAGE = """# {name}

{settings}

Made by `records/make.py` from a sweep: {what}. Each time is that of a whole process, {at_once}.

<!-- table -->
<!-- /table -->
"""


class NoRecordError(Exception):
    """What cannot become a record, and why."""


def runs_of_sweep(folder: Path) -> tuple[list[Task], list[Task]]:
    """Return the runs that the record is of, and the others, all finished."""
    plan = read_plan(folder)
    if plan is None:
        raise NoRecordError(f"{folder}: expected the folder of a sweep, with a sweep.json")
    tasks = plan.tasks()
    scores = {task.name: score for task in tasks if (score := score_of(folder, task)) is not None}
    if missing := [task.name for task in tasks if task.name not in scores]:
        raise NoRecordError(
            f"{folder}: not finished: {', '.join(missing)}. Go on: deepcnn sweep --resume {folder}"
        )
    if len(plan.settings) == 1 and not plan.settings[0].name:
        return tasks, []
    best = best_of(rows_of(tasks, scores, []))
    final = [] if best is None else plan.final_tasks(best.setting)
    if not final or any(score_of(folder, task) is None for task in final):
        raise NoRecordError(
            f"{folder}: the best setting was not trained on everything; a record needs that"
        )
    return final, tasks


def log_of_run(folder: Path, task: Task, name: str, seconds: float) -> list[dict[str, Any]]:
    """Return the events of a run under the name that it has in the record."""
    path = folder / task.name
    settings = json.loads((path / CONFIG).read_text())
    found = [{"run": name, "event": "Configured", "settings": settings}]
    for event in read_log(path / "log.jsonl"):
        if "run" in event:
            event["directory"] = name  # as it was trained, but for where
        event.pop("run", None)
        if "path" in event:
            event["path"] = event["path"].partition(f"{task.name}/")[2]
        found.append({"run": name, **event})
    return [*found, {"run": name, "event": "Process", "wall_seconds": seconds}]


def times_of(folder: Path, tasks: Sequence[Task]) -> tuple[dict[str, float], int]:
    """Return the wall time of each run's process, and how many were trained at once.

    Raises NoRecordError where a run took several processes, or not all were beside as many others.
    """
    log = events(read_log(folder / LOG), "Process")
    times, beside = {}, set()
    for task in tasks:
        its = [event for event in log if event["run"] == task.name]
        if len(its) != 1 or its[0]["resumed"]:
            raise NoRecordError(
                f"{folder / task.name}: was interrupted, so its time is not known. Move it away, "
                f"and train it anew: deepcnn sweep --resume {folder}"
            )
        times[task.name] = its[0]["wall_seconds"]
        beside.add(its[0]["at_once"])
    if len(beside) > 1:
        raise NoRecordError(f"{folder}: trained with different --jobs, so times cannot be compared")
    return times, beside.pop()


def make(folder: Path, target: Path) -> None:
    """Write the files of a record; raises NoRecordError or DeepcnnError where that cannot be."""
    if not NAME.fullmatch(target.name):
        raise NoRecordError(f"{target.name}: expected a name such as 2026-12-01_quick")
    if target.exists():
        raise NoRecordError(f"{target}: is there already")
    own, others = runs_of_sweep(folder)
    times, at_once = times_of(folder, [*own, *others])
    if own[0].seed != 0:
        raise NoRecordError(f"{folder}: expected seeds from 0 on, found {own[0].seed}")
    log = [
        event
        for task in [*own, *others]
        for event in log_of_run(folder, task, task_name(task, own), times[task.name])
    ]
    text = "".join(json.dumps(event) + "\n" for event in log)
    what = f"{len(own)} seeds" + (f"; {len(others)} runs to choose by" if others else "")
    config = own[0].config
    page = PAGE.format(
        name=target.name,
        settings=f"`{shlex.join(['deepcnn', 'train', config.preset, *flags(config)])}`, by seed.",
        what=what,
        at_once="one after the other" if at_once == 1 else f"{at_once} at once",
    )
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        new = Path(scratch) / target.name
        new.mkdir()
        for name in (CONFIG, ENVIRONMENT):
            shutil.copyfile(folder / own[0].name / name, new / name)
        (new / "logs.jsonl.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        (new / "README.md").write_text(page)
        new.rename(target)


def task_name(task: Task, own: Sequence[Task]) -> str:
    """Return what a run is called in a record."""
    return f"seed-{task.seed}" if task in own else f"{task.setting.name}/seed-{task.seed}"


def main() -> None:
    """Make a record and all tables."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog="It also makes the tables of all records.",
    )
    parser.add_argument("folder", type=Path, help="the folder of a finished sweep")
    parser.add_argument("name", help="of the record: a date and words, as 2026-12-01_quick")
    arguments = parser.parse_args()
    try:
        make(arguments.folder, HERE / arguments.name)
    except (NoRecordError, DeepcnnError) as error:
        sys.exit(f"make.py: {error}")
    sys.argv[1:] = []
    table.main()


if __name__ == "__main__":
    main()
