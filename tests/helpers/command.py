"""The command line, run in a process of its own or in this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deepcnn.cli import main
from deepcnn.config import Config
from deepcnn.events import Evaluated
from deepcnn.stopping import ENDING
from deepcnn.training import start
from deepcnn.training.loop import Result

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


def deepcnn(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the program."""
    return subprocess.run(
        [sys.executable, "-m", "deepcnn", *arguments],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def run_here(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the program in this process, and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["deepcnn", *arguments])
    before = {number: signal.getsignal(number) for number in (*ENDING, signal.SIGUSR1)}
    try:
        with pytest.raises(SystemExit) as end:
            main.main()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    code = end.value.code
    assert isinstance(code, int)
    return code


def train_no_more(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Let `train` only note, in the list that is returned, what it was asked for."""
    asked: list[Config] = []

    def train(config: Config, **_: object) -> Result:
        asked.append(config)
        return Result(Path("run"), 1, (Evaluated(1, "test", False, 1, 1, 0.0),))

    monkeypatch.setattr(start, "train", train)
    return asked
