"""Two trainings one after the other and at once, for as short as they can run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deepcnn.cli.main import run as cli
from tests.benchmarks.conftest import Import


def test_sweep_parallel(benchmark: Import, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    case = benchmark("cases.sweep_parallel")
    trained: list[list[str]] = []

    class Here:
        """A process whose training is made in this one."""

        def __init__(self, command: list[str], **_: object) -> None:
            self.command, self.returncode = command, 0

        def wait(self) -> int:
            trained.append(self.command)
            return cli(self.command[3:])

    monkeypatch.setattr(subprocess, "Popen", Here)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    presets = {"tiny": ("--steps", "2", "--device", "cpu")}
    for at_once in (1, 2):
        trained.clear()
        found = case.seconds(at_once, tmp_path, presets=presets)
        assert found["tiny"] > 0
        assert found["threads of each"] == str(2 // at_once)
        assert [command[command.index("--seed") + 1] for command in trained] == ["0", "1"]
        threads = {command[command.index("--threads") + 1] for command in trained}
        assert threads == {str(2 // at_once)}
