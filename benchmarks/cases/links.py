"""The exchange of gradients between two hosts, over links of several speeds.

The hosts are network namespaces, with one process of one thread on each.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from tools.comparison import Case
from tools.hosts import LINK, torchrun, two_hosts
from tools.program import as_worker
from tools.trainings import median_rate

TRAIN = ["train", "tutorial", "--summary-every", "0", "--save-every", "100000", "--threads", "1"]
BATCH = 128


def milliseconds(megabits: float | None, folder: Path, *, steps: int = 60) -> dict[str, float]:
    """Return the time to sum as many numbers as there are gradients, and that of a step.

    A step exchanges its gradients during the backward pass, or after all of it: without overlap.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch, two_hosts(megabits) as hosts:
        out = Path(scratch) / "seconds.json"
        run_on_both(hosts, as_worker("sum_gradients", str(out)))
        found = {"sum": 1000 * statistics.median(json.loads(out.read_text()))}
        for name, program in (
            ("step", ["-m", "deepcnn"]),
            ("step without overlap", as_worker("train_with_one_bucket")),
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


CASE = Case(
    what="summing gradients, and a step of batch 128, between two hosts (needs root)",
    unit="ms",
    contenders={
        name: partial(milliseconds, megabits)
        for name, megabits in {"unshaped": None, "1 Gb/s": 1_000, "100 Mb/s": 100}.items()
    },
    denominator="unshaped",
    higher_is_better=False,
)
