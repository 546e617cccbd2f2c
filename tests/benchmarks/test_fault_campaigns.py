"""What the fault campaigns build into processes; the campaigns themselves take minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.benchmarks.conftest import BENCHMARKS, Import


@pytest.fixture
def points(benchmark: Import) -> ModuleType:
    return benchmark("faults.points")


def test_every_moment_is_in_the_source(points: ModuleType, benchmark: Import) -> None:
    find = benchmark("faults.patches").find
    for name, point in points.POINTS.items():
        owner, function = find(point.target)
        assert callable(getattr(owner, function)), name


def test_plans_try_every_moment_once_in_each_process(points: ModuleType) -> None:
    faults = [fault for plan in points.plans() for fault in plan]
    kills = [(f.point, f.rank, f.call) for f in faults if f.signal == "SIGKILL"]
    assert sorted(kills) == sorted(
        (name, rank, call)
        for name, point in points.POINTS.items()
        for rank in (0, 1)
        for call in point.calls
    )
    stopped = [(f.point, f.rank) for f in faults if f.signal == "SIGSTOP"]
    assert sorted(stopped) == sorted((name, rank) for name in points.STOPPED_AT for rank in (0, 1))


class Subject:
    """Stands for the source: what is called, and what a fault does, in order."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def work(self, value: int) -> int:
        self.told.append(value)
        return 10 * value

    @classmethod
    def make(cls, value: int) -> Subject:
        made = cls()
        made.work(value)
        return made


TARGET = f"{__name__}:Subject.work"


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch) -> Subject:
    monkeypatch.setattr(Subject, "work", Subject.work)  # put back in the end
    monkeypatch.setattr(Subject, "make", Subject.__dict__["make"])
    return Subject()


@pytest.mark.parametrize(("after", "told"), [(False, [1, 3, "now", 5]), (True, [1, 3, 5, "now"])])
def test_something_is_done_at_a_call(
    points: ModuleType, benchmark: Import, subject: Subject, *, after: bool, told: list[object]
) -> None:
    """At the second of those that count."""

    def large(_: Any, value: int) -> bool:
        return value > 2

    point = points.Point("step", TARGET, after=after, only=large)
    benchmark("faults.worker").wrap(point, 2, lambda: subject.told.append("now"))
    assert [subject.work(value) for value in (1, 3, 5)] == [10, 30, 50]
    assert subject.told == told


def test_class_methods_are_wrapped_too(
    points: ModuleType, benchmark: Import, subject: Subject
) -> None:
    point = points.Point("start", f"{__name__}:Subject.make")
    benchmark("faults.worker").wrap(point, 1, lambda: subject.told.append("now"))
    made = Subject.make(7)
    assert (made.told, subject.told) == ([7], ["now"])


def test_who_is_held_goes_on_after_the_other_was_struck(
    points: ModuleType, benchmark: Import, subject: Subject, tmp_path: Path, monkeypatch: Any
) -> None:
    worker = benchmark("faults.worker")
    monkeypatch.setitem(
        points.POINTS, "tried", points.Point("save", TARGET, mode="writer", calls=(1,))
    )
    fault = points.Fault("tried", 1, "SIGKILL", 1)
    worker.build_in(fault, 0, 0, tmp_path)  # as the process that writes, which is not hit
    held = threading.Thread(target=subject.work, args=(1,))
    held.start()
    assert worker.wait_for((tmp_path / "reached-0").exists)
    time.sleep(0.1)
    assert subject.told == []
    worker.note(tmp_path / "fault-0", {"pid": 1, "time": 0.0})
    held.join(60)
    assert subject.told == [1]


def test_a_worker_trains_and_notes_how_it_ended(benchmark: Import, tmp_path: Path) -> None:
    """Alone, as torchrun's only process, with a plan that kills it in its first attempt."""
    jobs, points = benchmark("faults.jobs"), benchmark("faults.points")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "1", "--max-restarts", "1"]
    train = ["train", "tiny", "--steps", "4", "--data", "synthetic", "--threads", "1"]
    command += jobs.worker_of(tmp_path / "job", *train, "--summary-every", "0")
    plan = [points.Fault("update", 0, "SIGKILL", 3)]
    with jobs.job(tmp_path / "job", plan, command) as (process,):
        assert process.wait(120) == 0
    notes = sorted((tmp_path / "job").glob("worker-*"))
    attempts = [json.loads(path.read_text())["attempt"] for path in notes]
    assert sorted(attempts) == [0, 1]
    struck = json.loads((tmp_path / "job" / "fault-0").read_text())["pid"]
    ends = {path.name: json.loads(path.read_text()) for path in (tmp_path / "job").glob("end-*")}
    assert list(ends.values()) == [{"how": "exit 0"}]
    assert f"end-{struck}" not in ends
    assert jobs.count_of_left_over(tmp_path / "job") == 0
    assert not jobs.lives(struck)
    last = tmp_path / "job" / "run" / "checkpoints" / "step-000000004.safetensors"
    assert last.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="its cases are forks of one process")
@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("faults_of_writing", "2"),
        ("faults_of_signals", "1"),
    ],
)
def test_a_campaign_finds_nothing_wrong(tmp_path: Path, name: str, cases: str) -> None:
    """With another seed than the one that is recorded."""
    program = [sys.executable, str(BENCHMARKS / "run.py"), name, "--cases", cases, "--seed", "7"]
    program += ["--log", str(tmp_path / "log.jsonl")]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    each = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [case["ok"] for case in each] == [True] * int(cases)
    assert f"{cases} cases, 0 failed" in done.stdout
