"""The documents' figures are those of the committed logs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.benchmarks.conftest import BENCHMARKS, Import

ROOT = BENCHMARKS.parent
TRANSLATED = ("docs/zh/start.md", "docs/zh/tutorial.md")
DOCUMENTS = ("docs/figures.md", "docs/start.md", "docs/tutorial.md", "README.md", *TRANSLATED)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)  # commands, and what they print
MEASURED = re.compile(
    r"\d\s*(?:%|×(?!\d)|ms|µs|min\b|s\b|seconds|minutes|images/s|GFLOP|MB|秒|分钟)|±\s*\d"
)
# What no log has to tell: an interval's name, the reference's goal, which `make train` reaches too,
# and how much time summaries are allowed to take.
GIVEN = (
    *("95 % intervals", "for 86 %", "more than 86 %", "at most 3 % of the time"),
    *("95 % 置信区间", "86 % 以上", "最多占用 3 % 的时间"),
)

pytestmark = pytest.mark.skipif(
    not BENCHMARKS.exists() or not (ROOT / "records").exists(), reason="needs the whole repository"
)


@pytest.fixture
def figures(benchmark: Import) -> ModuleType:
    return benchmark("figures.documents")


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "benchmarks" / "run.py"), "figures", *arguments]
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
    text = FENCED.sub("", figures.PLACE.sub("", (ROOT / document).read_text()))
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    for given in GIVEN:
        text = text.replace(given, "")
    assert MEASURED.findall(text) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_markers_within_a_sentence_do_not_begin_a_line(document: str) -> None:
    """There Markdown would take the line for HTML."""
    text = (ROOT / document).read_text()
    assert re.findall(r"^ *<!-- figures: \w+ -->.+", text, re.MULTILINE) == []


def test_every_figure_has_a_place(figures: ModuleType) -> None:
    placed = {
        found.group(1)
        for document in figures.DOCUMENTS
        for found in figures.PLACE.finditer(document.read_text())
    }
    assert placed == figures.FIGURES.keys()


def test_links_of_figures_lead_from_the_folder_that_the_page_is_in(figures: ModuleType) -> None:
    place = "<!-- figures: tutorials --><!-- /figures -->"
    assert "](../records/2026" in figures.filled(place)[0]
    assert "](../../records/2026" in figures.filled(place, "../../")[0]


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
