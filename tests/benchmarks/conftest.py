"""The benchmarks as modules: they are no package, but what `benchmarks/run.py` finds beside it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

Import = Callable[[str], ModuleType]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Import:
    """Return what imports a module of the benchmarks, such as `cases.inputs`."""
    if not BENCHMARKS.exists():
        pytest.skip("needs the whole repository")
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module
