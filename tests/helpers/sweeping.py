"""Sweeps whose trainings are made in this process, which need not import torch again."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from deepcnn.cli import main
from deepcnn.errors import DeepcnnError
from deepcnn.sweep import running
from deepcnn.sweep.jobs import Ended, Job

SHORT = ["--steps", "12", "--save-every", "4", "--summary-every", "0", "--device", "cpu"]
SHORT += ["--threads", "1"]


def train_here(monkeypatch: pytest.MonkeyPatch, *, fail: Sequence[str] = ()) -> list[str]:
    """Let sweeps train one run after another in this process; return the names of those begun.

    `fail`: names of runs that fail instead.
    """
    begun: list[str] = []

    def run_all(
        jobs: Sequence[Job],
        at_once: int,
        heard: Callable[[Job, dict[str, Any]], None],
        ended: Callable[[Ended], None],
        *,
        inherit: int | None = None,
    ) -> None:
        for job in jobs:
            begun.append(job.name)
            began, out, said, status = time.perf_counter(), io.StringIO(), list[str](), 1
            try:
                if job.name in fail:
                    raise DeepcnnError("no luck")
                with contextlib.redirect_stdout(out):
                    status = main.run(job.command[3:])
            except DeepcnnError as error:
                said = [f"deepcnn: {error}"]
            for line in out.getvalue().splitlines():
                heard(job, json.loads(line))
            ended(Ended(job, status, time.perf_counter() - began, said))

    monkeypatch.setattr(running, "run_all", run_all)
    return begun
