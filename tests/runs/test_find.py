from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from deepcnn.errors import RunError
from deepcnn.runs.find import all_runs, is_run, newest_run, summary


@pytest.fixture
def runs(tiny_run: Path, tmp_path: Path) -> Path:
    """A folder with three runs, and with what is none."""
    folder = tmp_path / "runs"
    for age, name in ((30, "b"), (10, "c"), (20, "a")):
        shutil.copytree(tiny_run, folder / name)
        at = time.time() - age
        os.utime(folder / name / "log.jsonl", (at, at))
    (folder / "empty").mkdir()
    (folder / "file").write_text("")
    (folder / "begun").mkdir()
    (folder / "begun" / "config.json").write_text("{}")
    (folder / "gone").symlink_to("nowhere")
    return folder


def test_runs_are_found_that_which_was_trained_last_first(runs: Path) -> None:
    assert [path.name for path in all_runs(runs)] == ["c", "a", "b"]
    assert newest_run(runs) == runs / "c"
    (runs / "b" / "log.jsonl").unlink()  # then the folder itself tells, which was just changed
    assert newest_run(runs).name == "b"


def test_runs_are_looked_for_below_runs(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs.parent)
    assert newest_run() == Path("runs/c")
    monkeypatch.chdir(runs / "empty")
    assert all_runs() == []
    with pytest.raises(RunError, match=r"runs/: expected a run, found none\. Name one, or train"):
        newest_run()


def test_what_is_a_run(runs: Path) -> None:
    assert is_run(runs / "a")
    for name in ("empty", "file", "begun", "gone", "none", "a" * 300, "nul\0", "a/log.jsonl"):
        assert not is_run(runs / name)


def test_a_summary_tells_what_a_run_is(runs: Path) -> None:
    found = summary(runs / "c")
    assert (found.path, found.preset, found.data) == (runs / "c", "tiny", "synthetic")
    assert (found.step, found.steps, found.split, found.total) == (40, 40, "test", 512)
    calibrated = json.loads((runs / "c" / "calibration.json").read_text())
    assert calibrated["examples"] == found.total
    entries = [json.loads(line) for line in (runs / "c" / "log.jsonl").read_text().splitlines()]
    (score,) = [entry for entry in entries if entry["event"] == "Evaluated"]
    assert found.correct == score["correct"]
    files = [path for path in (runs / "c").rglob("*") if path.is_file()]
    assert found.bytes == sum(len(path.read_bytes()) for path in files) > 200_000
    assert 9 < time.time() - found.changed < 60


def test_the_newest_score_counts_and_a_run_without_one_has_none(runs: Path) -> None:
    log = runs / "a" / "log.jsonl"
    event = {"event": "Evaluated", "step": 40, "split": "validation", "averaged": True}
    log.write_text(log.read_text() + json.dumps(event | {"correct": 7, "total": 9}) + "\n")
    found = summary(runs / "a")
    assert (found.correct, found.total, found.split) == (7, 9, "validation")
    for content in ("", "damaged", "damaged\n", '{"event": "Started"}\n'):
        log.write_text(content)
        found = summary(runs / "a")
        assert (found.correct, found.total, found.split, found.step) == (None, None, None, 40)
    log.unlink()
    shutil.rmtree(runs / "a" / "checkpoints")
    assert summary(runs / "a").correct is None
    assert summary(runs / "a").step == 0


@pytest.mark.parametrize("value", ["7", None, 7.5, True, -1, 10**400, [7]])
def test_a_score_that_is_none_is_not_told(runs: Path, value: object) -> None:
    event = {"event": "Evaluated", "split": "test", "correct": value, "total": value}
    (runs / "a" / "log.jsonl").write_text(json.dumps(event) + "\n")
    assert (summary(runs / "a").correct, summary(runs / "a").total) == (None, None)


def test_files_that_vanish_meanwhile_are_not_missed(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = summary(runs / "a").bytes
    (runs / "a" / "checkpoints" / "step-000000099.safetensors").symlink_to("nowhere")
    plain = Path.rglob

    def rglob(self: Path, pattern: str) -> list[Path]:
        return [*plain(self, pattern), self / "vanished"]

    monkeypatch.setattr(Path, "rglob", rglob)
    assert summary(runs / "a").bytes == before


def test_a_damaged_run_is_an_error(runs: Path) -> None:
    (runs / "a" / "config.json").write_text('{"steps": 3}')
    with pytest.raises(RunError, match=r"a/config\.json: config: missing setting"):
        summary(runs / "a")
