"""The documents' figures are those of the committed logs, and results are added to their files."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deepcnn.runs.log import read_log

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results").iterdir()) if BENCHMARKS.exists() else []
DOCUMENTS = ("docs/figures.md", "README.md")
MEASURED = re.compile(
    r"\d\s*(?:%|×(?!\d)|ms|µs|min\b|s\b|seconds|minutes|images/s|GFLOP|MB)|±\s*\d"
)
# What no log has to tell: an interval's name, the reference's goal, which `make train` reaches too.
GIVEN = ("95 % intervals", "for 86 %", "more than 86 %")

pytestmark = pytest.mark.skipif(
    not BENCHMARKS.exists() or not (ROOT / "records").exists(), reason="needs the whole repository"
)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("figures")


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("report")


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "benchmarks" / "figures.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_figures_are_those_of_the_logs() -> None:
    done = run(ROOT, "--check")
    assert done.returncode == 0, done.stderr


def test_a_figure_that_is_not_is_named_and_made_anew(tmp_path: Path) -> None:
    for name in ("records", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "README.md", tmp_path)
    page = tmp_path / "docs" / "figures.md"
    whole = page.read_text()
    wrong = whole.replace("-->543 GFLOP/s<", "-->544 GFLOP/s<").replace(" 25.4 s;", " 25.3 s;")
    page.write_text(wrong)
    done = run(tmp_path, "--check")
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == [
        "docs/figures.md: accuracies",
        "docs/figures.md: limit_on_c",
    ]
    assert page.read_text() == wrong
    assert run(tmp_path).returncode == 0
    assert page.read_text() == whole


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_measured_figure_is_typed_by_hand(figures: ModuleType, document: str) -> None:
    text = figures.PLACE.sub("", (ROOT / document).read_text())
    for given in GIVEN:
        text = text.replace(given, "")
    assert MEASURED.findall(text) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_markers_within_a_sentence_do_not_begin_a_line(document: str) -> None:
    """There Markdown would take the line for HTML."""
    text = (ROOT / document).read_text()
    assert re.findall(r"^ *<!-- figures: \w+ -->.+", text, re.MULTILINE) == []


def test_every_figure_has_a_place(figures: ModuleType) -> None:
    placed = [
        found.group(1)
        for document in DOCUMENTS
        for found in figures.PLACE.finditer((ROOT / document).read_text())
    ]
    assert sorted(placed) == sorted(figures.FIGURES)


def test_quick_comes_to_more_than_86_percent_with_every_seed(figures: ModuleType) -> None:
    for name in figures.QUICK.values():
        assert all(score.percent > 86 for score in figures.record(name).scores), name


def test_halves_are_rounded_upwards_as_they_are_written(figures: ModuleType) -> None:
    assert [figures.rounded(value) for value in (0.285, 0.345, 2.5449, 1697)] == [
        "0.29",
        "0.35",
        "2.54",
        "1,697.00",
    ]


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
    monkeypatch.setattr(report, "HERE", tmp_path)
    path = place("case", "first")
    assert path == tmp_path / "results" / "case.jsonl"
    report.store({"date": report.time.strftime(report.DATE)}, path, "first")
    assert place("case", "second") == path
    assert place("other", "first") == tmp_path / "results" / "other.jsonl"
    with pytest.raises(SystemExit, match="'first' exists"):
        place("case", "first")
