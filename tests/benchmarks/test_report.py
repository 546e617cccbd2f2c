"""Results are lines of a case's file, and none is lost."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deepcnn.runs.log import read_log
from tests.benchmarks.conftest import BENCHMARKS, Import

RESULTS = sorted((BENCHMARKS / "results").iterdir()) if BENCHMARKS.exists() else []


@pytest.fixture
def report(benchmark: Import) -> ModuleType:
    return benchmark("tools.report")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_results_are_lines_by_date_each_with_a_remark_of_its_own(path: Path) -> None:
    results = read_log(path)
    keys = [(result["date"], result["remark"]) for result in results]
    assert keys == sorted(set(keys))
    assert all(list(result)[:2] == ["date", "remark"] for result in results)
    assert results


def test_a_result_is_added_to_its_case(report: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "case.jsonl"
    first = {"what": "a", "date": "2026-11-25", "value": 1e-07}
    report.store(first, path)
    before = path.read_text()
    assert before == '{"date":"2026-11-25","remark":"","what":"a","value":1e-07}\n'
    report.store({"date": "2026-11-26", "value": 2.0}, path, "×")
    report.store({"date": "2026-11-26", "value": 3.0}, path)
    report.store({"date": "2026-11-26", "value": 4.0}, path, "×")  # as it goes on
    lines = path.read_text().splitlines()
    assert lines[0] + "\n" == before
    assert [json.loads(line) for line in lines[1:]] == [
        {"date": "2026-11-26", "remark": "", "value": 3.0},
        {"date": "2026-11-26", "remark": "×", "value": 4.0},
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_a_result_of_the_same_day_and_remark_is_kept(
    report: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def place(case: str, remark: str) -> Any:
        return report.new_file(case, None, remark)

    (tmp_path / "results").mkdir()
    monkeypatch.setattr(report, "BENCHMARKS", tmp_path)
    path = place("case", "first")
    assert path == tmp_path / "results" / "case.jsonl"
    report.store({"date": report.time.strftime(report.DATE)}, path, "first")
    assert place("case", "second") == path
    assert place("other", "first") == tmp_path / "results" / "other.jsonl"
    with pytest.raises(SystemExit, match="'first' exists"):
        place("case", "first")
