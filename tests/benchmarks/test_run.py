"""`run.py` is the only program of the benchmarks, and lists all that it runs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.conftest import BENCHMARKS, Import

LONGEST_FILE, LONGEST_FUNCTION, LONGEST_TITLE = 460, 60, 120


def files() -> Iterator[tuple[Path, str]]:
    for path in sorted(BENCHMARKS.rglob("*.py")):
        yield path.relative_to(BENCHMARKS), path.read_text()


def test_all_that_can_be_run_is_listed(
    benchmark: Import, capsys: pytest.CaptureFixture[str]
) -> None:
    run = benchmark("run")
    assert run.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(run.PROGRAMS)
    for name, line in zip(run.PROGRAMS, lines, strict=True):
        title = line.removeprefix(name).strip()
        assert 20 < len(title) <= LONGEST_TITLE, line


def test_every_file_of_a_case_is_run_by_some_name(benchmark: Import) -> None:
    run = benchmark("run")
    places = [*run.PROGRAMS.values(), *run.WORKERS.values()]
    for path, _ in files():
        if path.parent.name in ("cases", "workers") and path.stem != "__init__":
            assert ".".join(path.with_suffix("").parts) in places
    for place in run.WORKERS.values():
        assert callable(benchmark(place).main)


@pytest.mark.parametrize("name", ["links", "check", "figures", "faults"])
def test_each_explains_its_options(
    benchmark: Import, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark("run").main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: run.py {name} ")


def test_an_unknown_name_is_refused(benchmark: Import, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark("run").main(["link"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "links" in told.err
    assert "'link'" in told.err


def test_there_is_no_other_program_and_all_is_short(benchmark: Import) -> None:
    assert benchmark("run").PROGRAMS
    programs, too_long = [], []
    for path, text in files():
        tree = ast.parse(text)
        if "__name__" in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}:
            programs.append(path.parts[0])
        if len(text.splitlines()) > LONGEST_FILE:
            too_long.append(str(path))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    too_long.append(f"{path}: {node.name}: {lines} lines")
    assert set(programs) == {"peers", "run.py"}
    assert too_long == []
