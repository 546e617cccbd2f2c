"""Runs a sweep: its trainings as processes, the division of its time, and its end."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from deepcnn import atomic
from deepcnn.durations import shown
from deepcnn.errors import ConfigError, DeepcnnError, RunError, storing
from deepcnn.events import Event, Listener, Noted
from deepcnn.runs.run import LOCK
from deepcnn.sweep.jobs import Ended, Job, held_by_all, run_all
from deepcnn.sweep.plan import (
    LOG,
    PLAN,
    Plan,
    Row,
    Score,
    Task,
    best_of,
    command_of,
    read_plan,
    rows_of,
    score_of,
    seeds_that_fit,
    why,
    write_plan,
)

CHILDREN = "children.lock"
PAGE = "comparison.html"
TRIAL = 10.0  # seconds of steps by which it is told how long a run takes
TRIAL_SHARE = 0.2  # of a budget, at most, to wait for these
REST = 1.1  # times what the steps of a run take: scoring and saving come after them


@dataclass(frozen=True)
class RunBegan(Event):
    """A training of the sweep begins, or goes on."""

    run: str


@dataclass(frozen=True)
class RunAdvanced(Event):
    """A training of the sweep has done this share of its work: for progress bars."""

    run: str
    work: float


@dataclass(frozen=True)
class RunEnded(Event):
    """A training of the sweep has ended; with a score, or `failed`, which says why.

    `seconds`: of its process. `earlier`: it was finished before this sweep was started again.
    """

    run: str
    setting: str
    seed: int
    split: str | None
    correct: int | None
    total: int | None
    failed: str | None
    seconds: float
    earlier: bool


@dataclass(frozen=True)
class Swept(Event):
    """A sweep has ended. `table` and `final`: the fields of `Row`; `failed`: names of runs."""

    folder: str
    table: tuple[dict[str, Any], ...]
    best: str | None
    final: tuple[dict[str, Any], ...]
    failed: tuple[str, ...]
    report: str | None


class Sweep:
    """Trains what a plan says, in a folder, and goes on where it stopped.

    `at_once`: trainings at a time. `model`: the user's own network, if the caller has named one.
    `report`: write a page that compares the runs. `emit` hears what happens. `work`: by name, the
    share that is done of each run in training.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        *,
        at_once: int = 1,
        model: str | None = None,
        report: bool = True,
        emit: Listener,
    ) -> None:
        self.folder, self.plan = folder, plan
        self._at_once, self._model, self._report, self._emit = at_once, model, report, emit
        self._scores: dict[str, Score] = {}
        self._failed: list[str] = []
        self._final: list[Task] = []
        self._children: int | None = None
        self._began = time.monotonic()
        self.work: dict[str, float] = {}

    def run(self) -> Swept:
        """Train all that is not finished, choose, and return the table.

        Before this method ends, by whatever exception, also KeyboardInterrupt, all its trainings
        are asked to save and end. Raises RunError if the folder belongs to another sweep or another
        process sweeps there, and ConfigError if not even one seed fits into the budget.
        """
        with storing(self.folder):
            atomic.make_directory(self.folder)
        lock = FileLock(self.folder / LOCK, timeout=2.0)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(f"{self.folder}: another process works on this sweep") from None
        try:
            with held_by_all(self.folder / CHILDREN, self._tell_of_waiting) as self._children:
                self._take_up()
                return self._work()
        finally:
            lock.release()

    def rows(self) -> list[Row]:
        """Return the table as it is now."""
        return rows_of(self.plan.tasks(), self._scores, self._failed)

    def final_rows(self) -> list[Row]:
        """Return the table of the best setting, trained on everything."""
        return rows_of(self._final, self._scores, self._failed)

    def _tell_of_waiting(self) -> None:
        self._emit(Noted("Waiting for the trainings of a sweep that was killed to save and end."))

    def _take_up(self) -> None:
        """Store the plan, or take over the one that is there."""
        stored = read_plan(self.folder)
        if stored is None:
            others = {each.name for each in self.folder.iterdir()} - {LOCK, CHILDREN}
            if others - {name for name in others if atomic.is_unfinished(name, PLAN)}:
                raise RunError(f"{self.folder}: is neither empty nor a sweep; choose another --dir")
            write_plan(self.folder, self.plan)
        elif not self.plan.same(stored):
            raise RunError(
                f"{self.folder}: holds another sweep, with other settings or seeds. Go on with "
                "that one by --resume, or choose another --dir."
            )
        else:
            self.plan = stored

    def _work(self) -> Swept:
        if self.plan.budget is not None and self.plan.kept is None:
            self._divide_the_time(self.plan.budget)
        self._train(self.plan.tasks())
        rows = self.rows()
        best = best_of([row for row in rows if row.complete])
        if best is not None and self.plan.final_seeds:
            self._final = self.plan.final_tasks(best.setting)
            self._train(self._final)
        final = self.final_rows()
        return Swept(
            folder=str(self.folder),
            table=tuple(row.to_dict() for row in rows),
            best=None if best is None else best.setting.name,
            final=tuple(row.to_dict() for row in final),
            failed=tuple(self._failed),
            report=self._write_report(),
        )

    def _train(self, tasks: Sequence[Task]) -> None:
        """Train those of some runs that are not finished."""
        left = []
        for task in tasks:
            score = score_of(self.folder, task)
            if score is None:
                left.append(task)
            elif task.name not in self._scores:
                self._scores[task.name] = score
                self._emit(_ended(task, score, None, 0.0, earlier=True))
        by_name = {task.name: task for task in left}
        run_all(
            [self._job(task) for task in left],
            self._at_once,
            self._heard,
            lambda ended: self._ended(by_name[ended.job.name], ended),
            inherit=self._children,
        )

    def _job(self, task: Task) -> Job:
        return Job(task.name, command_of(self.folder, task, self._model))

    def _heard(self, job: Job, event: dict[str, Any]) -> None:
        if event.get("event") == "Started":
            self._emit(RunBegan(job.name))
        elif event.get("event") == "Advanced":
            before, self.work[job.name] = self.work.get(job.name, -1.0), event["work"]
            if int(100 * event["work"]) > int(100 * before):
                self._emit(RunAdvanced(job.name, event["work"]))

    def _ended(self, task: Task, ended: Ended) -> None:
        self.work.pop(task.name, None)
        self._note_process(task, ended)
        score = score_of(self.folder, task)
        if score is not None and ended.status == 0:
            self._scores[task.name] = score
            self._emit(_ended(task, score, None, ended.seconds, earlier=False))
        else:
            self._failed.append(task.name)
            said = why(ended.status, ended.said)
            self._emit(_ended(task, None, said, ended.seconds, earlier=False))

    def _note_process(self, task: Task, ended: Ended) -> None:
        """Add to the sweep's log how a process ended: a record of the runs needs its time."""
        line = {
            "event": "Process",
            "run": task.name,
            "status": ended.status,
            "wall_seconds": round(ended.seconds, 2),
            "at_once": self._at_once,
            "resumed": "--resume" in ended.job.command,
        }
        with storing(self.folder / LOG), (self.folder / LOG).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _divide_the_time(self, budget: float) -> None:
        """Find out how long a run takes, from the start of the first ones, and how many fit."""
        trial = Trial(budget, time.monotonic)
        left = [task for task in self.plan.tasks() if score_of(self.folder, task) is None]
        with suppress(Enough):
            run_all(
                [self._job(task) for task in left[: self._at_once]],
                self._at_once,
                trial.heard,
                lambda ended: trial.ended(ended, why(ended.status, ended.said)),
                inherit=self._children,
            )
        seconds, done = trial.seconds_of_a_run(), trial.done()
        remaining = budget - (time.monotonic() - self._began) + done * seconds
        seeds = seeds_that_fit(self.plan, remaining, seconds, self._at_once)
        settings, final = len(self.plan.settings), min(self.plan.final_seeds, len(self.plan.seeds))
        takes = f"a run takes about {shown(seconds)}, with {self._at_once} at once"
        runs = f"{settings * max(1, seeds) + final} runs"
        if not seeds:
            raise ConfigError(
                f"--budget {shown(budget)}: {takes}, so one seed of each setting, {runs} in all, "
                "does not fit. Give it more time, fewer settings in --grid, or fewer --steps."
            )
        self.plan = dataclasses.replace(self.plan, kept=seeds)
        write_plan(self.folder, self.plan)
        self._emit(
            Noted(
                f"{takes[0].upper()}{takes[1:]}: {shown(budget)} have room for {seeds} of "
                f"{len(self.plan.seeds)} seeds, {runs} in all."
            )
        )

    def _write_report(self) -> str | None:
        """Write the page that compares all finished runs; a failure is only reported."""
        names = [each.name for each in [*self.plan.tasks(), *self._final]]
        finished = [name for name in names if name in self._scores]
        if not self._report or len(finished) < 2:
            return None
        from deepcnn.reports.against import Contender
        from deepcnn.reports.subject import subject_of
        from deepcnn.reports.write import write_comparison

        try:
            contenders = []
            for name in finished:
                subject = subject_of(
                    self.folder / name,
                    device=self.plan.settings[0].config.device,
                    threads=self.plan.settings[0].config.threads,
                    model=self._model,
                )
                contenders.append(Contender.of(subject))
            return str(write_comparison(contenders, self.folder / PAGE))
        except DeepcnnError as error:
            self._emit(Noted(f"No report: {error}"))
            return None


class Enough(Exception):  # noqa: N818 (nothing is wrong)
    """The trial has found out how long a run takes."""


class Trial:
    """Finds out how long a run takes, from the progress of the first runs.

    `budget`: in seconds; the trial takes at most a share of it. `clock`: returns seconds.
    """

    def __init__(self, budget: float, clock: Any) -> None:
        self._clock, self._began = clock, clock()
        self._latest = TRIAL_SHARE * budget
        self._points: dict[str, list[tuple[float, float]]] = {}  # when, and the share done
        self._whole: dict[str, float] = {}  # seconds of those that have finished

    def heard(self, job: Job, event: dict[str, Any]) -> None:
        """Record an event of a run; raise Enough if this is enough."""
        now = self._clock() - self._began
        if event.get("event") == "Advanced":
            self._points.setdefault(job.name, []).append((now, float(event["work"])))
            spans = [points[-1][0] - points[0][0] for points in self._points.values()]
            known = all(len(points) > 1 for points in self._points.values())
            if known and (min(spans) >= TRIAL or now >= self._latest):
                raise Enough

    def ended(self, ended: Ended, said: str) -> None:
        """Record that a run has finished; raise RunError if it failed."""
        if ended.status:
            raise RunError(f"{ended.job.name}: {said}")
        self._whole[ended.job.name] = ended.seconds

    def seconds_of_a_run(self) -> float:
        """Return how long a whole run takes: the slowest one of the trial."""
        found = list(self._whole.values())
        for name, points in self._points.items():
            (first, before), (last, after) = points[0], points[-1]
            if name not in self._whole and after > before:
                found.append(first + REST * (last - first) / (after - before))
        return max(found, default=0.0)

    def done(self) -> float:
        """Return the smallest share that any run of the trial has done."""
        shares = [points[-1][1] for points in self._points.values()]
        return min(shares, default=0.0)


def _ended(
    task: Task, score: Score | None, failed: str | None, seconds: float, *, earlier: bool
) -> RunEnded:
    return RunEnded(
        run=task.name,
        setting=task.setting.described(),
        seed=task.seed,
        split=None if score is None else score.split,
        correct=None if score is None else score.correct,
        total=None if score is None else score.total,
        failed=failed,
        seconds=seconds,
        earlier=earlier,
    )
