"""The speed of training the tutorial network."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from deepcnn.runs.log import events, read_log
from deepcnn.runs.run import Run

WARM_UP = 20  # steps


def images_per_second(
    precision: str, options: tuple[str, ...], folder: Path, *, steps: int = 150
) -> dict[str, Any]:
    """Return the speed of `deepcnn train tutorial`, and its seed."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        run = Path(scratch) / "run"
        command = [sys.executable, "-m", "deepcnn", "train", "tutorial", "--steps", str(steps)]
        command += ["--precision", precision, "--run-dir", str(run), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return {precision: round(median_rate(run)), "seeds": [Run.open(run).config().seed]}


def median_rate(run: Path) -> float:
    """Return a run's images per second: the median over its groups of steps after a warm-up."""
    return statistics.median(
        event["examples_per_second"]
        for event in events(read_log(Run(run).log), "Stepped")
        if event["step"] > WARM_UP
    )
