"""The exchange of gradients between two hosts, over links of several speeds.

The hosts are network namespaces, with one process of one thread on each.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from hosts import LINK, torchrun, two_hosts

from cases.training import median_rate

WORKERS = Path(__file__).parent.parent / "workers"
TRAIN = ["train", "tutorial", "--summary-every", "0", "--save-every", "100000", "--threads", "1"]
BATCH = 128


def milliseconds(megabits: float | None, folder: Path, *, steps: int = 60) -> dict[str, float]:
    """Return the time to sum as many numbers as there are gradients, and that of a step.

    A step exchanges its gradients during the backward pass, or after all of it: without overlap.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch, two_hosts(megabits) as hosts:
        out = Path(scratch) / "seconds.json"
        run_on_both(hosts, [str(WORKERS / "sum_gradients.py"), str(out)])
        found = {"sum": 1000 * statistics.median(json.loads(out.read_text()))}
        for name, program in (
            ("step", ["-m", "deepcnn"]),
            ("step without overlap", [str(WORKERS / "train_with_one_bucket.py")]),
        ):
            run = Path(scratch) / name.replace(" ", "-")
            train = [*TRAIN, "--steps", str(steps), "--run-dir", str(run)]
            run_on_both(hosts, [*program, *train])
            found[name] = 1000 * BATCH / median_rate(run)
    return {what: round(value, 2) for what, value in found.items()}


def run_on_both(hosts: tuple[str, str], program: list[str]) -> None:
    """Run one process on each of two hosts; raise if either fails."""
    environment = os.environ | {"GLOO_SOCKET_IFNAME": LINK, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for command in torchrun(hosts, program, job="bench")
    ]
    errors = [process.communicate()[1].decode() for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError("\n".join(errors))
