"""Two trainings: one after the other with all cores, or at once with a share of them each."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from tools.comparison import Case

PRESETS = {"quick": ("--steps", "290"), "tutorial": ("--steps", "300")}
ALIKE = ("--summary-every", "0", "--no-report", "--json")


def seconds(
    at_once: int, folder: Path, *, presets: dict[str, tuple[str, ...]] = PRESETS
) -> dict[str, Any]:
    """Return how long two whole trainings of each preset take, by preset."""
    threads = max(1, (os.cpu_count() or 1) // at_once)
    found: dict[str, Any] = {"threads of each": str(threads)}
    for preset, options in presets.items():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            began = time.perf_counter()
            for first in range(0, 2, at_once):
                together = [
                    _started(preset, options, threads, seed, Path(scratch))
                    for seed in range(first, first + at_once)
                ]
                for each in together:
                    if each.wait():
                        raise RuntimeError(f"{preset}: exit status {each.returncode}")
            found[preset] = round(time.perf_counter() - began, 2)
    return found | {"seeds": [0, 1]}


def _started(
    preset: str, options: tuple[str, ...], threads: int, seed: int, folder: Path
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "deepcnn", "train", preset, *options, *ALIKE]
    command += ["--threads", str(threads), "--seed", str(seed)]
    command += ["--run-dir", str(folder / f"seed-{seed}")]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


CASE = Case(
    what="two trainings from start to score: one after the other, or at once with half the cores",
    unit="s",
    contenders={"one after the other": partial(seconds, 1), "two at once": partial(seconds, 2)},
    denominator="one after the other",
    higher_is_better=False,
)
