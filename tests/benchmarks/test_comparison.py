"""Contenders take turns, on a case that takes no time; what is measured is not tested."""

from __future__ import annotations

import importlib
import json
import pickle
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.benchmarks.conftest import Import

# Its contenders write down that it is their turn, and by which process. The third of the rounds is
# unlike the others, so that a mean is no median.
CONTENDERS = """
import os

def turn(name, folder):
    assert (folder / "prepared").exists()
    with (folder.parent / "turns").open("a") as file:
        file.write(f"{name} {os.getpid()}\\n")
    return (folder.parent / "turns").read_text().count(f"{name} ")

def old(folder):
    return {"speed": [10, 12, 100][turn("old", folder) - 1], "other": 1}

def new(folder):
    return {"speed": [24, 20, 30][turn("new", folder) - 1], "versions": {"new": "1.0"}}

def prepare(folder):
    (folder / "prepared").touch()
"""
CASE = """
from contenders import new, old, prepare
from tools.comparison import Case

CASE = Case(
    what="turns",
    unit="turns/s",
    contenders={"old": old, "new": new},
    denominator="old",
    peers=("peer",),
    prepare=prepare,
)
"""


@pytest.fixture
def runner(benchmark: Import, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """`run.py` with a case `fake`, whose scratch folder is in `tmp_path`."""
    for name, text in {"contenders": CONTENDERS, "fake_case": CASE}.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = benchmark("run")
    monkeypatch.setitem(run.PROGRAMS, "fake", "fake_case")
    return run


def go(runner: ModuleType, out: Path, *arguments: str) -> dict[str, object]:
    assert runner.main(["fake", "--out", str(out), *arguments]) == 0
    result: dict[str, object] = json.loads(out.read_text())
    return result


def test_contenders_take_turns_each_in_a_fresh_process_and_are_compared(
    runner: ModuleType, tmp_path: Path
) -> None:
    peer = shlex.join([sys.executable, "-c", 'print("begun"); print(\'{"speed": 3}\')'])
    arguments = ["--rounds", "3", "--peer", f"peer={peer}"]
    result = go(runner, tmp_path / "out.json", *arguments)
    turns = [line.split() for line in (tmp_path / "turns").read_text().splitlines()]
    assert [name for name, _ in turns] == ["old", "new"] * 3
    assert len({process for _, process in turns}) == 6
    assert result["rates"] == {
        "peer": {"speed": [3, 3, 3]},
        "old": {"speed": [10, 12, 100], "other": [1, 1, 1]},
        "new": {"speed": [24, 20, 30]},
    }
    assert result["medians"] == {
        "peer": {"speed": 3},
        "old": {"speed": 12, "other": 1},
        "new": {"speed": 24},
    }
    assert result["ratios"] == {
        "peer": {"speed": 0.25},
        "old": {"speed": 1, "other": 1},
        "new": {"speed": 2},
    }
    assert result["notes"] == {"peer": {}, "old": {}, "new": {"versions": {"new": "1.0"}}}


def test_a_result_tells_its_circumstances(
    runner: ModuleType, benchmark: Import, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report = benchmark("tools.report")
    commit = "0" * 40
    said = {"rev-parse": commit, "status": " M src/deepcnn/training.py"}
    monkeypatch.setattr(report, "git", lambda *words: said[words[0]])
    monkeypatch.setattr(sys, "argv", ["benchmarks/run.py", "fake", "--rounds", "1"])
    result = go(runner, tmp_path / "out.json", "--rounds", "1")
    assert set(result) == {
        *("what", "unit", "higher_is_better", "denominator", "case", "command", "commit", "dirty"),
        *("date", "environment", "rounds", "medians", "ratios", "rates", "notes"),
    }
    assert result["command"] == "python benchmarks/run.py fake --rounds 1"
    assert (result["case"], result["commit"], result["dirty"]) == ("fake", commit, True)
    environment = result["environment"]
    assert isinstance(environment, dict)
    assert {"deepcnn", "torch", "cores", "processor"} <= set(environment)
    said["status"] = ""
    assert report.circumstances()["dirty"] is False


def test_a_result_that_is_there_is_kept(runner: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text("{}")
    with pytest.raises(SystemExit, match="exists"):
        go(runner, out)
    assert out.read_text() == "{}"
    assert not (tmp_path / "turns").exists()


def test_a_peer_that_the_case_does_not_know_is_refused(runner: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        go(runner, tmp_path / "out.json", "--peer", "pear=true")
    assert not (tmp_path / "turns").exists()


def test_a_ratio_above_one_is_better_also_where_less_is_better(benchmark: Import) -> None:
    comparison = benchmark("tools.comparison")
    medians = {"old": {"seconds": 6.0}, "new": {"seconds": 2.0, "other": 1.0}}
    case = comparison.Case("time", "s", {}, denominator="old", higher_is_better=False)
    assert comparison.compare(medians, case) == {"old": {"seconds": 1.0}, "new": {"seconds": 3.0}}
    absent = comparison.Case("time", "s", {}, denominator="peer")
    assert comparison.compare(medians, absent) == {"old": {}, "new": {}}


def test_every_case_is_well_formed(runner: ModuleType) -> None:
    cases = {name: importlib.import_module(place) for name, place in runner.PROGRAMS.items()}
    found = {name: module.CASE for name, module in cases.items() if hasattr(module, "CASE")}
    assert len(found) > 8
    for name, case in found.items():
        assert case.what, name
        assert case.unit, name
        assert case.contenders, name
        assert case.denominator in {*case.contenders, *case.peers}, name
        assert not set(case.contenders) & set(case.peers), name
        for contender in case.contenders.values():
            pickle.dumps(contender)  # a fresh process gets it so
