"""Many trainings that differ in settings and seeds: their plan, their scores, and the choice.

A sweep is a folder:

sweep.json               the plan: every setting with its whole configuration, and the seeds
log.jsonl                how each training ended: a process, its exit status, its wall time
seed-0/ …                runs, if there is only one setting
01-rate=0.1/seed-0/ …    else the runs of each setting, scored on a validation split
final/01-rate=0.1/…      the best setting, trained on everything and scored on the test set
comparison.html, .json   the comparison of the runs
lock, children.lock      held by the process that sweeps, and by all its trainings

The logs of the runs tell which are finished, so a killed sweep can go on with its plan.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepcnn import atomic
from deepcnn.config import Config, changed_fields, from_dict, to_dict
from deepcnn.errors import DeepcnnError, RunError, storing
from deepcnn.reports.commands import flags
from deepcnn.reports.comparison import Spread, spread
from deepcnn.runs.find import is_run
from deepcnn.runs.log import events, read_log
from deepcnn.runs.run import Run

PLAN, LOG = "sweep.json", "log.jsonl"
FINAL = "final"  # the folder of the best setting's runs
# What a run settles when it begins, or may have changed since.
_SETTLED = ("steps", "epochs", "data", "data_dir", "start_from")


@dataclass(frozen=True)
class Setting:
    """A configuration; `changes`: its place in the grid; `name`: of its folder, or ""."""

    name: str
    changes: dict[str, str]
    config: Config

    def described(self) -> str:
        """Return what it is, in words."""
        changes = ", ".join(f"{name}={value}" for name, value in self.changes.items())
        return changes or self.config.preset


@dataclass(frozen=True)
class Plan:
    """What a sweep trains: each setting with the first `kept` of the seeds.

    `final_seeds`: the number of seeds with which the best setting is trained on everything.
    `budget`: seconds for the whole sweep, or None. `kept`: the number of seeds that the budget
    allows; None: not yet known.
    """

    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]
    final_seeds: int
    budget: float | None = None
    kept: int | None = None

    def tasks(self) -> list[Task]:
        """Return the runs for the choice: first one seed of each setting, then the next seed."""
        seeds = self.seeds[: self.kept]
        return [Task(each, seed, "") for seed in seeds for each in self.settings]

    def final_tasks(self, best: Setting) -> list[Task]:
        """Return the runs of the best setting on everything."""
        whole = dataclasses.replace(best, config=on_everything(best.config))
        return [Task(whole, seed, FINAL) for seed in self.seeds[: self.final_seeds]]

    def same(self, other: Plan) -> bool:
        """Tell whether both plans have the same request."""
        return dataclasses.replace(self, kept=other.kept).to_dict() == other.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in a form that JSON can hold."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        settings = [{**vars(each), "config": to_dict(each.config)} for each in self.settings]
        plain: dict[str, Any] = json.loads(json.dumps({**values, "settings": settings}))
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """Undo `to_dict`; for other values raises DeepcnnError, KeyError, TypeError, ValueError."""
        settings = tuple(
            Setting(str(each["name"]), dict(each["changes"]), from_dict(each["config"]))
            for each in values["settings"]
        )
        seeds = tuple(map(int, values["seeds"]))
        return cls(**{**values, "settings": settings, "seeds": seeds})


@dataclass(frozen=True)
class Task:
    """A run of a sweep; `parent`: the folder of its setting's folder."""

    setting: Setting
    seed: int
    parent: str

    @property
    def name(self) -> str:
        """Its path in the folder of the sweep."""
        return "/".join(filter(None, (self.parent, self.setting.name, f"seed-{self.seed}")))

    @property
    def config(self) -> Config:
        """What is trained."""
        return dataclasses.replace(self.setting.config, seed=self.seed)


@dataclass(frozen=True)
class Score:
    """How much a finished run got right, on which split, and its mean cross-entropy (NaN: none)."""

    split: str
    correct: int
    total: int
    loss: float


@dataclass(frozen=True)
class Row:
    """A setting in the table: the scores of its finished runs by seed, and the number of runs.

    `failed`: seeds whose training failed in this call.
    """

    setting: Setting
    of: int
    scores: dict[int, Score]
    failed: tuple[int, ...] = ()
    is_best: bool = field(default=False, compare=False)

    @property
    def complete(self) -> bool:
        """Whether all its runs are finished."""
        return len(self.scores) == self.of

    @property
    def spread(self) -> Spread | None:
        """Mean, deviation and interval of the accuracies; None before the first one."""
        shares = [each.correct / each.total for each in self.scores.values()]
        return spread(shares) if shares else None

    def to_dict(self) -> dict[str, Any]:
        """Return the row in a form that JSON can hold."""
        found = self.spread or Spread(0, math.nan, None, None)
        return {
            "setting": self.setting.name,
            "changes": self.setting.changes,
            "n": len(self.scores),
            "of": self.of,
            "mean": found.mean if self.scores else None,
            "deviation": found.deviation,
            "interval": found.interval,
            "split": next((each.split for each in self.scores.values()), None),
            "total": next((each.total for each in self.scores.values()), None),
            "correct": {str(seed): each.correct for seed, each in self.scores.items()},
            "failed": list(self.failed),
            "best": self.is_best,
        }


def on_everything(config: Config) -> Config:
    """Return a configuration that holds nothing out and is scored on the test set."""
    return dataclasses.replace(config, validation_size=0, evaluate_on=("test",), keep_best=False)


def folder_name(number: int, changes: dict[str, str]) -> str:
    """Return a name for a setting's folder, which names its changes as far as possible."""
    words = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in changes.items())
    return f"{number:02d}-" + re.sub(r"[^\w.=,+-]+", "_", words)[:80]


def score_of(folder: Path, task: Task) -> Score | None:
    """Return the score of a run that is finished, else None.

    Raises RunError if another run lies in its place.
    """
    path = folder / task.name
    if not is_run(path):
        return None
    different = [
        name
        for name in changed_fields(task.config, Run.open(path).config())
        if name not in _SETTLED
    ]
    if different:
        raise RunError(
            f"{path}: holds a run with another {different[0]} than this sweep would train there. "
            "Move it away, or choose another --dir."
        )
    try:
        log = read_log(Run(path).log)
    except RunError:  # none was written yet, or it is damaged: going on with the run tells
        return None
    ends = [i for i, event in enumerate(log) if event.get("event") == "Finished"]
    scored = events(log[: ends[0]], "Evaluated") if ends else []
    if not scored:
        return None
    last = scored[-1]
    loss = math.nan if last["loss"] is None else float(last["loss"])
    return Score(str(last["split"]), int(last["correct"]), int(last["total"]), loss)


def command_of(folder: Path, task: Task, model: str | None) -> list[str]:
    """Return the program that trains a run, or goes on with it, and prints its events.

    `model`: the user's own network, if the caller has named one.
    """
    path, config = folder / task.name, task.config
    if is_run(path):
        arguments = ["--resume", str(path), *([] if model is None else ["--model.name", model])]
    else:
        arguments = [config.preset, *flags(config), "--run-dir", str(path)]
    return [sys.executable, "-m", "deepcnn", "train", *arguments, "--no-report", "--json"]


def rows_of(tasks: Sequence[Task], scores: dict[str, Score], failed: Sequence[str]) -> list[Row]:
    """Return the table of some runs; `scores`: of the finished ones, by the name of the run."""
    found: dict[str, list[Task]] = {}
    for task in tasks:
        found.setdefault(task.setting.name, []).append(task)
    rows = [
        Row(
            its[0].setting,
            len(its),
            {each.seed: scores[each.name] for each in its if each.name in scores},
            tuple(each.seed for each in its if each.name in failed),
        )
        for its in found.values()
    ]
    best = best_of(rows)
    return [dataclasses.replace(row, is_best=row is best) for row in rows]


def best_of(rows: Sequence[Row]) -> Row | None:
    """Return the setting with most right answers among those whose runs are all finished.

    If there is none yet, it is the one with the best mean so far. Of equal settings it is the one
    with the lower mean loss, then the first.
    """
    candidates = [row for row in rows if row.complete] or [row for row in rows if row.scores]

    def merit(row: Row) -> tuple[float, float]:
        assert row.spread is not None
        losses = [each.loss for each in row.scores.values()]
        loss = math.fsum(losses) / len(losses)
        return row.spread.mean, -math.inf if math.isnan(loss) else -loss

    return max(candidates, key=merit, default=None)


def not_told_apart(rows: Sequence[Row]) -> list[Row]:
    """Return the settings that may be as good as the best one, judged by their seeds.

    Runs with the same seed form pairs, since they share the data and their order. A setting is
    returned if the 95 % interval of the mean difference, by Student's t, reaches 0. A single seed
    tells nothing.
    """
    best = next((row for row in rows if row.is_best), None)
    if best is None:
        return []
    found = []
    for row in rows:
        if row is best or not row.complete or not best.complete:
            continue
        differences = [
            best.scores[seed].correct / best.scores[seed].total - score.correct / score.total
            for seed, score in row.scores.items()
        ]
        interval = spread(differences).interval
        if interval is None or interval[0] <= 0:
            found.append(row)
    return found


def seeds_that_fit(plan: Plan, seconds: float, run: float, at_once: int) -> int:
    """Return for how many seeds there is time, at most those of the plan; 0: not even one.

    `seconds`: the time that is left. `run`: how long a run takes when so many are trained at once.
    """
    final = math.ceil(min(plan.final_seeds, len(plan.seeds)) / at_once) * run
    for seeds in range(len(plan.seeds), 0, -1):
        if math.ceil(seeds * len(plan.settings) / at_once) * run + final <= seconds:
            return seeds
    return 0


def why(status: int, said: Sequence[str]) -> str:
    """Return why a training ended without finishing; `said`: its last lines."""
    if status < 0:
        killed = signal.Signals(-status).name
        more = ", as by a machine without memory" if killed == "SIGKILL" else ""
        return f"killed by {killed}{more}"
    ours = [line for line in said if line.startswith("deepcnn: ")]
    return (ours or list(said) or [f"exit status {status}"])[-1].removeprefix("deepcnn: ")


def read_plan(folder: Path) -> Plan | None:
    """Return the plan of the sweep in a folder; None if there is none.

    Raises RunError if it cannot be read.
    """
    path = folder / PLAN
    if not path.is_file():
        return None
    try:
        return Plan.from_dict(json.loads(path.read_text()))
    except (DeepcnnError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path}: not the plan of a sweep as deepcnn writes it ({error})") from error


def write_plan(folder: Path, plan: Plan) -> None:
    """Store a plan in the folder of its sweep, atomically."""
    with storing(folder / PLAN):
        atomic.make_directory(folder)
        atomic.write(folder / PLAN, (json.dumps(plan.to_dict(), indent=1) + "\n").encode())


def unfinished(plan: Plan, parent: Path) -> Path | None:
    """Return the newest sweep in a folder with the same request that is not finished."""
    found = [path.parent for path in parent.glob(f"*/{PLAN}")]
    for folder in sorted(found, key=lambda path: path.name, reverse=True):
        try:
            stored = read_plan(folder)
            if stored is not None and plan.same(stored) and not is_finished(folder, stored):
                return folder
        except DeepcnnError:  # of another version, or changed by hand
            continue
    return None


def is_finished(folder: Path, plan: Plan) -> bool:
    """Tell whether all runs of a sweep are finished."""
    if plan.budget is not None and plan.kept is None:
        return False
    tasks = plan.tasks()
    scores = {task.name: score_of(folder, task) for task in tasks}
    known = {name: score for name, score in scores.items() if score is not None}
    best = best_of(rows_of(tasks, known, []))
    if len(known) < len(tasks) or best is None:
        return False
    return all(score_of(folder, task) is not None for task in plan.final_tasks(best.setting))
