from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.command import deepcnn, run_here


def test_show_counts_and_draws(tmp_path: Path) -> None:
    done = deepcnn("data", "show", "synthetic", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "8,192 images, 32×32×3" in done.stdout
    assert "820  pattern 0" in done.stdout
    with Image.open(tmp_path / "synthetic-train.png") as sheet:
        assert sheet.size == (150 + 12 * 68 + 4, 10 * 68 + 4)


def objects(text: str) -> list[dict[str, Any]]:
    """Return what each line says; a line that is no JSON is an error."""
    return [json.loads(line) for line in text.splitlines()]


def test_every_command_of_data_tells_its_result_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "data", "show", "synthetic", "--json") == 0
    shown = objects(capsys.readouterr().out)[-1]
    assert (shown["examples"], shown["shape"]) == (8192, [32, 32, 3])
    assert shown["classes"]["pattern 0"] == 820
    assert Path(shown["sheet"]).is_file()
    arguments = ("data", "convert", "synthetic", "made", "--to", "npz", "--json")
    assert run_here(monkeypatch, *arguments) == 0
    converted = objects(capsys.readouterr().out)[-1]
    assert converted == {"folder": "made", "examples": {"train": 8192, "test": 512}}
    assert run_here(monkeypatch, "data", "verify", "mnist", "--data-dir", "none", "--json") == 1
    printed = capsys.readouterr()
    (verified,) = objects(printed.out)
    assert (verified["dataset"], verified["whole"]) == ("mnist", False)
    assert set(verified["files"].values()) == {"is missing"}
    assert "deepcnn data fetch mnist" in printed.err


@pytest.mark.usefixtures("cifar10_folder")
def test_fetch_tells_its_events_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(monkeypatch, "data", "fetch", "cifar10", "--json") == 0
    fetched = objects(capsys.readouterr().out)[-1]
    assert (fetched["event"], fetched["dataset"]) == ("Fetched", "cifar10")
