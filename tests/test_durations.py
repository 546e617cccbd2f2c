"""Durations as people type and read them, and how long this process runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepcnn import durations
from deepcnn.durations import elapsed, running_for, seconds_of, shown
from deepcnn.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("90", 90),
        (90, 90),
        (0.5, 0.5),
        ("1h30m", 5400),
        ("1h 30m 5s", 5405),
        ("1.5m", 90),
        (" 2M ", 120),
    ],
)
def test_durations_are_read_as_they_are_typed(text: str | float, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-5", "5 minutes", "m", "inf", "nan", "5m2h", "1d"]
)
def test_what_is_no_duration_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^budget: expected a duration such as 30s, 5m"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (100, "1 min 40 s"),
        (3599.6, "1 h"),
        (7500, "2 h 5 min"),
        (7170, "2 h"),
    ],
)
def test_durations_are_shown_rounded(seconds: float, text: str) -> None:
    assert shown(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("00:05", 5), (" 12:34\n", 754), ("01:00:00", 3600), ("2-03:04:05", 183845)],
)
def test_the_time_of_ps_is_understood(text: str, seconds: float) -> None:
    assert elapsed(text) == seconds


@pytest.mark.parametrize("has_proc", [True, False])
def test_a_process_knows_how_long_it_runs(has_proc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `ps` tells it, which counts whole seconds, and as long before as after a while."""
    if not has_proc:
        monkeypatch.setattr(durations, "Path", lambda _: Path("/nowhere"))
    command = ["ps", "-o", "etime=", "-p", str(os.getpid())]
    before = elapsed(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    found = running_for()
    after = elapsed(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert before - 0.1 <= found <= after + 1.1


def test_the_start_of_the_interpreter_counts() -> None:
    began = time.monotonic()
    script = "import time; time.sleep(0.3); import deepcnn.durations as d; print(d.running_for())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert 0.3 <= float(done.stdout) <= time.monotonic() - began + 0.02  # ticks of 10 ms
