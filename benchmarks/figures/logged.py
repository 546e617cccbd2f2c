"""The committed logs, as figures are made of them: results by case and remark, records by name."""

from __future__ import annotations

import sys
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from typing import Any

from deepcnn.runs.log import read_log
from tools.program import BENCHMARKS

# The tables of the records are made from the same scores.
sys.path.append(str(BENCHMARKS.parent / "records"))
from scores import HERE as RECORDS
from scores import Group, Log, Score, groups_of, interval, log_of, runs_of
from table import markdown

__all__ = ["ROOT", "Group", "Score", "counted", "duration", "interval", "link", "markdown"]
__all__ += ["record", "results", "rounded", "runs"]
ROOT = BENCHMARKS.parent


@cache
def results(case: str) -> dict[str, dict[str, Any]]:
    """Return a case's results by remark; of equal ones the newest."""
    path = BENCHMARKS / "results" / f"{case}.jsonl"
    return {result["remark"]: result for result in read_log(path)}


def link(case: str, remark: str = "") -> str:
    """Return a link to a case's results, from docs/."""
    return f"[{f'`{remark}`' if remark else 'log'}](../benchmarks/results/{case}.jsonl)"


@cache
def record(name: str) -> Group:
    """Return the runs that a record is of."""
    return groups_of(log_of(RECORDS / name))[0]


def rounded(value: float, digits: int = 2) -> str:
    """Round what the log says in decimals, a half upwards."""
    exact = Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{exact:,}"


def counted(group: Group) -> str:
    """Return an accuracy and of how many runs it is."""
    kind = "" if group.has_mean else ", an observation"
    return f"{group.accuracy()}{kind}, n = {len(group.scores)}"


def duration(group: Group) -> str:
    """Return a median time in seconds or minutes."""
    seconds = group.seconds
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


@cache
def runs(name: str) -> dict[str, Log]:
    """Return the events of each run of a record."""
    return runs_of(log_of(RECORDS / name))
