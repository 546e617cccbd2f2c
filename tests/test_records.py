"""The records' tables are those of their logs, and what may be called a mean."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from deepcnn.runs.log import read_log

RECORDS = Path(__file__).parent.parent / "records"
FOLDERS = sorted(path.parent for path in RECORDS.glob("*/README.md"))
FILES = {"README.md", "config.json", "environment.json", "logs.jsonl.gz"}

pytestmark = pytest.mark.skipif(not RECORDS.exists(), reason="needs the whole repository")


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(RECORDS)
    return importlib.import_module("scores")


def check(records: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(records / "table.py"), "--check"]
    return subprocess.run(command, capture_output=True, text=True)


def test_tables_are_those_of_the_logs() -> None:
    done = check(RECORDS)
    assert done.returncode == 0, done.stderr


def test_a_table_that_is_not_is_named_and_made_anew(tmp_path: Path) -> None:
    records = tmp_path / "records"
    shutil.copytree(RECORDS, records)
    page = records / FOLDERS[0].name / "README.md"
    whole = page.read_text()
    page.write_text(whole.replace("86.79 %", "86.80 %"))
    done = check(records)
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == [f"records/{FOLDERS[0].name}/README.md"]
    subprocess.run([sys.executable, str(records / "table.py")], check=True)
    assert page.read_text() == whole


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_record_is_four_files(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_logs_say_first_whose_an_event_is(folder: Path) -> None:
    packed = (folder / "logs.jsonl.gz").read_bytes()
    assert packed[3:8] == bytes(5)  # neither a file's name nor a time: the same bytes each time
    for event in read_log(folder / "logs.jsonl.gz"):
        assert list(event)[:2] == ["run", "event"]


def group(scores: ModuleType, seconds: float, *correct: int) -> object:
    made = [
        scores.Score(f"seed-{i}", "test", right, 10_000, seconds, "whole process")
        for i, right in enumerate(correct)
    ]
    return scores.Group("", made)


def test_a_mean_needs_ten_runs_or_five_long_ones(scores: ModuleType) -> None:
    def has_mean(runs: int, seconds: float) -> bool:
        return bool(group(scores, seconds, *[9400] * runs).has_mean)  # type: ignore[attr-defined]

    assert has_mean(10, 20.0)
    assert not has_mean(9, 600.0)
    assert has_mean(5, 600.1)
    assert not has_mean(4, 3000.0)


def test_fewer_are_an_observation(scores: ModuleType) -> None:
    found = [
        group(scores, 20.0, 9382),
        group(scores, 20.0, 9410, 9452, 9423),
        group(scores, 700.0, 9410, 9420, 9430, 9440, 9450),
    ]
    accuracies = [each.accuracy() for each in found]  # type: ignore[attr-defined]
    assert accuracies == [
        "9,382 of 10,000, 93.82 % (93.33 to 94.28)",
        "94.10 to 94.52 %",
        "94.30 ± 0.16 %",
    ]
    lines = [each.summary() for each in found]  # type: ignore[attr-defined]
    assert lines == [
        "n = 1: an observation; whole process: 20.0 s",
        "n = 3: an observation, 94.10 to 94.52 %; whole process: median 20.0 s, maximum 20.0 s",
        "n = 5: mean 94.30 %, standard deviation 0.16 points, mean - 2 deviations 93.98 %; "
        "whole process: median 700.0 s, maximum 700.0 s",
    ]


def test_the_interval_is_wilsons(scores: ModuleType) -> None:
    """Against published examples: 0 of 10, and 81 of 263 (Newcombe 1998)."""
    assert scores.interval(0, 10) == "0.00 to 27.75"
    assert scores.interval(81, 263) == "25.53 to 36.62"


def test_a_score_is_the_last_before_the_end(scores: ModuleType) -> None:
    def scored(step: int, correct: int) -> dict[str, object]:
        return {"event": "Evaluated", "step": step, "split": "test", "correct": correct, "total": 8}

    started, stopped = {"event": "Started", "step": 5_000}, {"event": "Interrupted", "step": 5_000}
    finished = {"event": "Finished", "seconds": 3.5}
    log = [{"event": "Started", "step": 0}, scored(4_000, 3), stopped, started]
    log += [scored(9_000, 6), finished, scored(9_000, 1)]
    found = scores.score_of("seed-0", log)
    assert (found.correct, found.seconds, found.timed) == (6, 3.5, "training from step 5,000")
    found = scores.score_of("seed-0", [*log, {"event": "Process", "wall_seconds": 4.0}])
    assert (found.seconds, found.timed) == (4.0, "whole process")


def test_groups_are_told_by_names(scores: ModuleType) -> None:
    log = [
        {"run": run, **event}
        for run in ("seed-0", "wide/seed-0", "settled", "seed-1", "choices", "wide/seed-1")
        for event in (
            {"event": "Started", "step": 0},
            {"event": "Evaluated", "split": "test", "correct": 1, "total": 2},
            {"event": "Finished", "seconds": 1.0},
        )
        if run != "choices"
    ]
    log.append({"run": "choices", "event": "Tried", "validation accuracy": 86.0})
    runs = {group.name: [score.run for score in group.scores] for group in scores.groups_of(log)}
    assert runs == {
        "": ["seed-0", "seed-1"],
        "settled": ["settled"],
        "wide": ["wide/seed-0", "wide/seed-1"],
    }


def test_configurations_are_whole() -> None:
    for folder in FOLDERS:
        assert json.loads((folder / "config.json").read_text())["seed"] == 0
