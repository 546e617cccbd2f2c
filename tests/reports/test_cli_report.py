from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import deepcnn
from deepcnn import presets
from deepcnn.cli.main import run as cli
from deepcnn.errors import DataError
from deepcnn.events import Event, Noted, Reported
from deepcnn.reports import write
from tests.helpers.stored import change, own

SHORT = ["tiny", "--steps", "6", "--save-every", "3", "--summary-every", "0", "--device", "cpu"]
FILES = {"report.html", "report.json", "report.csv"}


def reports(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("report*")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run without a report."""
    config = dataclasses.replace(
        presets.tiny(), steps=6, save_every=3, summary_every=0, device="cpu"
    )
    return deepcnn.train(config, run_dir=tmp_path_factory.mktemp("runs") / "first").run


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with that run below runs/, to work in."""
    shutil.copytree(trained, tmp_path / "runs" / "first")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_training_ends_with_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli(["train", *SHORT, "--run-dir", "run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Report:         run/report.html"
    assert reports(tmp_path / "run") == FILES
    twin = json.loads((tmp_path / "run" / "report.json").read_text())
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    (score,) = [event for event in log if event["event"] == "Evaluated"]
    assert twin["accuracy"]["correct"] == score["correct"]
    assert twin["accuracy"]["total"] == score["total"] == 512


def test_no_report_is_written_where_none_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli(["train", *SHORT, "--run-dir", "run", "--no-report"]) == 0
    assert reports(tmp_path / "run") == set()
    assert reports(trained) == set()  # Python asks for one


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DataError("full.html: cannot be written"), "No report: full.html: cannot be written"),
        (ZeroDivisionError("of something"), "No report: ZeroDivisionError: of something"),
    ],
)
def test_a_report_that_fails_spoils_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(*_: Any) -> Path:
        raise error

    monkeypatch.setattr(write, "write", fail)
    told: list[Event] = []
    config = dataclasses.replace(presets.tiny(), steps=3, summary_every=0, device="cpu")
    result = deepcnn.train(config, run_dir=tmp_path / "run", report=True, emit=told.append)
    assert result.evaluated is not None
    assert [event.text for event in told if isinstance(event, Noted)] == [said]
    assert not [event for event in told if isinstance(event, Reported)]


def test_the_newest_run_is_taken_and_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["report", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert said.out == "Report: runs/first/report.html\n"
    assert said.err == "deepcnn: the run is runs/first\n"
    assert reports(here / "runs" / "first") == FILES


def test_a_report_of_an_older_checkpoint_goes_where_it_is_told_to(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["report", "runs/first", "--step", "3", "-o", "old.html", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": "old.html"}
    twin = json.loads((here / "old.json").read_text())
    assert (twin["step"], twin["averaged"]) == (3, True)
    assert twin["calibration"]["stored"] is None  # which is the last checkpoint's
    assert reports(here / "runs" / "first") == set()


def test_several_runs_are_compared(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = shutil.copytree(here / "runs" / "first", here / "runs" / "second")
    change(second, seed=1)
    own(second)
    again = ["runs/first", "runs/second", "./runs/first/"]  # a run named twice counts once
    assert cli(["report", *again]) == 0
    assert capsys.readouterr().out == "Report: comparison.html\n"
    twin = json.loads((here / "comparison.json").read_text())
    assert [each["name"] for each in twin["runs"]] == ["first", "second"]
    assert twin["groups"][0]["deviation"] == 0
    words = "no evidence of a difference: 0 against 0 images, p = 1"
    assert twin["pairs"][0]["words"] == words
    assert words in (here / "comparison.html").read_text()
    assert reports(here / "runs" / "first") == set()
