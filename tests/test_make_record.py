"""A finished sweep becomes a record by one command."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deepcnn.cli.main import run as cli
from deepcnn.runs.log import events, read_log
from tests.helpers.sweeping import SHORT, train_here

RECORDS = Path(__file__).parent.parent / "records"

pytestmark = pytest.mark.skipif(not RECORDS.exists(), reason="needs the whole repository")


def program(records: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(records / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """The programs of the records, and a front page that is to be filled."""
    folder = tmp_path / "records"
    folder.mkdir()
    for path in RECORDS.glob("*.py"):
        shutil.copy(path, folder)
    (folder / "README.md").write_text("<!-- table -->\n<!-- /table -->\n")
    return folder


def test_a_sweep_of_a_grid_becomes_a_record_whose_tables_are_made(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_here(monkeypatch)
    grid = ["--grid", "optimizer.learning-rate=0.001,0.05"]
    seeds = ["--seeds", "2", "--final-seeds", "2"]
    sweep = tmp_path / "sweep"
    options = [*grid, *seeds, "--no-report", "--jobs", "1"]
    assert cli(["sweep", "tiny", *SHORT, *options, "--dir", str(sweep)]) == 0
    done = program(records, "make.py", str(sweep), "2026-12-01_tiny")
    assert (done.returncode, done.stderr) == (0, "")
    made = records / "2026-12-01_tiny"
    files = {"README.md", "config.json", "environment.json", "logs.jsonl.gz"}
    assert {path.name for path in made.iterdir()} == files
    log = read_log(made / "logs.jsonl.gz")
    assert all(list(event)[:2] == ["run", "event"] for event in log)
    assert str(tmp_path) not in json.dumps(log)
    own = [event for event in events(log, "Evaluated") if event["run"].startswith("seed-")]
    assert [(event["run"], event["split"]) for event in own] == [
        ("seed-0", "test"),
        ("seed-1", "test"),
    ]
    page = (made / "README.md").read_text()
    for event in own:
        assert f"| {event['run'][5:]} | {event['correct']} | 512 |" in page
    assert "`02-learning-rate=0.05` | 2 | validation" in page
    assert "2026-12-01_tiny/README.md" in (records / "README.md").read_text()
    assert program(records, "table.py", "--check").returncode == 0
    # What cannot become a record is refused.
    monkeypatch.syspath_prepend(records)
    make = importlib.import_module("make")

    def refused(name: str, why: str) -> None:
        with pytest.raises(make.NoRecordError, match=why):
            make.make(sweep, records / name)

    refused("2026-12-01_tiny", "is there already")
    refused("tiny", "expected a name such as 2026-12-01_quick")
    with (sweep / "log.jsonl").open("a") as file:
        file.write((sweep / "log.jsonl").read_text().splitlines()[0] + "\n")
    refused("2026-12-02_tiny", "was interrupted, so its time is not known")
    shutil.rmtree(sweep / "final")
    refused("2026-12-02_tiny", "was not trained on everything")
    shutil.rmtree(next(sweep.glob("01-*")))
    refused("2026-12-02_tiny", "not finished: 01-learning-rate=0.001/seed-0")
    assert [path.name for path in records.glob("2026*")] == ["2026-12-01_tiny"]
