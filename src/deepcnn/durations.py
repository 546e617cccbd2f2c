"""Durations as people type and read them, and how long this process has been running."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

from deepcnn.errors import ConfigError

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_FORM = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")
_STARTTIME = 22 - 3  # of the fields of /proc/PID/stat those after the name (man 5 proc)


def seconds_of(duration: str | float, name: str = "budget") -> float:
    """Return the seconds of a duration: a number of seconds, or 30s, 5m, 2h, 1h30m, 90.

    Raises ConfigError, which names the setting, for text that is not a duration, and for zero.
    """
    text = str(duration).strip().lower().replace(" ", "")
    match = _FORM.fullmatch(text)
    seconds = 0.0
    if match is not None:
        parts = zip(match.groups(), UNITS.values(), strict=True)
        seconds = sum(float(part) * unit for part, unit in parts if part)
    if not 0 < seconds < float("inf"):
        raise ConfigError(
            f"{name}: expected a duration such as 30s, 5m, 2h, 1h30m or 90 (seconds), found "
            f"{str(duration)!r}"
        )
    return seconds


def shown(seconds: float) -> str:
    """Return a duration as people read it, rounded: 8 s, 1 min 40 s, 2 h 5 min."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, rest = divmod(round(whole / 60), 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def running_for() -> float:
    """Return how many seconds this process has been running; whole seconds without /proc.

    If this cannot be found out, the processor's time is returned, which is never more.
    """
    try:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(after_name[_STARTTIME]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, IndexError, ValueError):
        pass
    try:
        command = ["ps", "-o", "etime=", "-p", str(os.getpid())]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
        return elapsed(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return time.process_time()


def elapsed(text: str) -> float:
    """Return the seconds of a time as `ps` prints it, [[days-]hours:]minutes:seconds."""
    days, _, clock = text.strip().rpartition("-")
    seconds = 0.0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(part)
    return seconds + 86_400 * int(days or 0)
