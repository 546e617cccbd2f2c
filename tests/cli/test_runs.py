from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.command import run_here
from tests.helpers.stored import change


@pytest.fixture
def runs(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some runs below `runs/`, of several ages."""
    monkeypatch.chdir(tmp_path)
    for name, age in (("first", 90_000), ("second", 7300), ("third", 150), ("fourth", 3)):
        run = Path("runs") / name
        shutil.copytree(tiny_run, run)
        os.utime(run / "log.jsonl", (time.time() - age,) * 2)
    return Path("runs")


def listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[list[str], str]:
    assert run_here(monkeypatch, "runs", *arguments) == 0
    printed = capsys.readouterr()
    return printed.out.splitlines(), printed.err


def test_runs_are_listed_newest_first(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = runs / "third" / "log.jsonl"
    nothing_right = {"event": "Evaluated", "split": "validation", "correct": 0, "total": 50}
    log.write_text(json.dumps(nothing_right) + "\n")
    os.utime(log, (time.time() - 150,) * 2)
    (runs / "second" / "log.jsonl").write_text("")
    os.utime(runs / "second" / "log.jsonl", (time.time() - 7300,) * 2)
    (head, *lines), err = listed(monkeypatch, capsys)
    assert err == ""
    assert head.split() == ["run", "preset", "data", "accuracy", "steps", "age", "size"]
    cells = [line.split() for line in lines]
    assert [each[0] for each in cells] == ["runs/fourth", "runs/third", "runs/second", "runs/first"]
    assert {tuple(each[1:3]) for each in cells} == {("tiny", "synthetic")}
    assert " ".join(cells[1][3:11]) == "0.00 % (0.0 to 7.1) of 50 validation"
    assert cells[2][3:6] == ["40", "of", "40"]  # it has no score
    assert [each[-4:-2] for each in cells[1:]] == [["2", "min"], ["2", "h"], ["1", "d"]]
    assert cells[0][-4] in ("3", "4", "5", "6", "7", "8", "9")
    assert {each[-1] for each in cells} == {"MB"}
    ends = {line.rindex("MB") for line in lines}
    assert len(ends) == 1  # in columns


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("columns", "left"),
    [
        (120, ["run", "preset", "data", "accuracy", "steps", "age", "size"]),
        (85, ["run", "preset", "data", "accuracy", "steps", "age"]),
        (70, ["run", "data", "accuracy", "steps"]),
        (20, ["run", "accuracy", "steps"]),
    ],
)
def test_a_narrow_terminal_gets_fewer_columns(
    columns: int,
    left: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    whole, _ = listed(monkeypatch, capsys)
    assert whole[0].split() == ["run", "preset", "data", "accuracy", "steps", "age", "size"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    lines, _ = listed(monkeypatch, capsys)
    assert lines[0].split() == left
    assert columns == 20 or max(map(len, lines)) <= columns


def test_json_has_a_run_a_line(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, err = listed(monkeypatch, capsys, "--json")
    assert err == ""
    found = [json.loads(line) for line in lines]
    assert [each["path"] for each in found] == [
        f"runs/{name}" for name in ("fourth", "third", "second", "first")
    ]
    first = found[0]
    assert (first["preset"], first["data"], first["split"]) == ("tiny", "synthetic", "test")
    assert (first["step"], first["steps"], first["total"]) == (40, 40, 512)
    assert 0 <= first["correct"] <= 512
    assert first["bytes"] > 200_000


def test_without_runs_it_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert listed(monkeypatch, capsys) == (["runs: no runs. Train one: deepcnn train"], "")
    assert listed(monkeypatch, capsys, "--json") == ([], "")
    assert listed(monkeypatch, capsys, "else\x1bwhere")[0][0].isprintable()


def test_damaged_and_hostile_runs_are_shown_as_such(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "first" / "config.json").write_text("{}")
    hostile = runs / os.fsdecode(b"\x1b[31m\xff")
    (runs / "second").rename(hostile)
    change(hostile, preset="\x1b]0;x\x07", data="\x1b[0m")
    event = {"event": "Evaluated", "split": "\x1b[7m", "correct": 1, "total": 1}
    (hostile / "log.jsonl").write_text(json.dumps(event) + "\n")
    for arguments in ((), ("--json",)):
        lines, err = listed(monkeypatch, capsys, *arguments)
        assert len([line for line in lines if not line.startswith("run ")]) == 3
        assert all(line.isprintable() for line in (*lines, *err.splitlines()))
        assert err.startswith("deepcnn: runs/first/config.json: config: missing setting")
