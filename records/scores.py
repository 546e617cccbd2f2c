"""What the logs of a record tell: what each run got right and in how long, and means of these.

A record's folder holds README.md, config.json and environment.json, which are of seed 0, and
logs.jsonl.gz: the logs of all its runs, an event in each line, led by the name of the run.
`seed-N` are the runs that the record is of, `GROUP/seed-N` others beside them, whose event
Configured tells in what they differ; any other name is a run of its own. An event Process tells
the wall time of a whole process, Tried a setting and what it came to on a validation split.

A mean needs 10 runs, or 5 where one takes more than ten minutes. Fewer are an observation.
"""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepcnn.runs.log import events, read_log

HERE = Path(__file__).parent
MEAN_FROM, MEAN_FROM_LONG, LONG = 10, 5, 600.0  # runs, runs, seconds
NORMAL = 1.959964  # within so many deviations lie 95 % of a normal distribution
Log = list[dict[str, Any]]


@dataclass(frozen=True)
class Score:
    """What a run's network got right at its end; `seconds` are those of what `timed` names."""

    run: str
    split: str
    correct: int
    total: int
    seconds: float
    timed: str

    @property
    def percent(self) -> float:
        """The accuracy, 0 to 100."""
        return 100 * self.correct / self.total


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds only; `name` is empty for those that a record is of."""

    name: str
    scores: list[Score]

    @property
    def seconds(self) -> float:
        """The median time."""
        return statistics.median(score.seconds for score in self.scores)

    @property
    def timed(self) -> str:
        """What was timed."""
        (timed,) = {score.timed for score in self.scores}
        return timed

    @property
    def has_mean(self) -> bool:
        """Whether there are enough runs for a mean of their accuracies."""
        return len(self.scores) >= (MEAN_FROM_LONG if self.seconds > LONG else MEAN_FROM)

    def accuracy(self) -> str:
        """Return mean and standard deviation; of fewer runs the range, of one what it has right."""
        percents = [score.percent for score in self.scores]
        if self.has_mean:
            return f"{statistics.mean(percents):.2f} ± {statistics.stdev(percents):.2f} %"
        if len(percents) > 1:
            return f"{min(percents):.2f} to {max(percents):.2f} %"
        (only,) = self.scores
        right = f"{only.correct:,} of {only.total:,}"
        return f"{right}, {only.percent:.2f} % ({interval(only.correct, only.total)})"

    def summary(self) -> str:
        """Return the line below a record's table."""
        count, longest = len(self.scores), max(score.seconds for score in self.scores)
        if count == 1:
            return f"n = 1: an observation; {self.timed}: {longest:,.1f} s"
        accuracy = f"an observation, {self.accuracy()}"
        if self.has_mean:
            percents = [score.percent for score in self.scores]
            mean, deviation = statistics.mean(percents), statistics.stdev(percents)
            accuracy = f"mean {mean:.2f} %, standard deviation {deviation:.2f} points, "
            accuracy += f"mean - 2 deviations {mean - 2 * deviation:.2f} %"
        times = f"median {self.seconds:,.1f} s, maximum {longest:,.1f} s"
        return f"n = {count}: {accuracy}; {self.timed}: {times}"


def interval(correct: int, total: int) -> str:
    """Return Wilson's 95 % interval for an accuracy, in percent."""
    share, weight = correct / total, NORMAL**2 / total
    half = NORMAL * (share * (1 - share) / total + weight / (4 * total)) ** 0.5
    low, high = ((share + weight / 2 + sign * half) / (1 + weight) for sign in (-1, 1))
    return f"{100 * low:.2f} to {100 * high:.2f}"


def runs_of(log: Log) -> dict[str, Log]:
    """Return the events of each run, in order."""
    runs: dict[str, Log] = {}
    for event in log:
        runs.setdefault(event["run"], []).append(event)
    return runs


def score_of(run: str, log: Log) -> Score:
    """Return the score of a run that has ended: its last one before that."""
    end = next(i for i, event in enumerate(log) if event["event"] == "Finished")
    score, began = events(log[:end], "Evaluated")[-1], events(log, "Started")[-1]["step"]
    seconds, timed = log[end]["seconds"], "training"
    if process := events(log, "Process"):
        seconds, timed = process[0]["wall_seconds"], "whole process"
    elif began:
        timed += f" from step {began:,}"
    return Score(run, score["split"], score["correct"], score["total"], seconds, timed)


def groups_of(log: Log) -> list[Group]:
    """Return the runs that have ended, in groups, those that the record is of first."""
    found: dict[str, list[Score]] = {}
    for run, its in runs_of(log).items():
        seed = re.fullmatch(r"(?:(.+)/)?seed-\d+", run)
        if events(its, "Finished"):
            found.setdefault((seed.group(1) or "") if seed else run, []).append(score_of(run, its))
    return [Group(name, scores) for name, scores in sorted(found.items())]


def records() -> list[Path]:
    """Return the folders of all records."""
    return sorted(path.parent for path in HERE.glob("*/logs.jsonl.gz"))


def log_of(folder: Path) -> Log:
    """Return a record's log."""
    return read_log(folder / "logs.jsonl.gz")
