"""What happens when one of two processes is killed or stopped at a chosen moment.

    python benchmarks/run.py faults

Trainings in two processes, started by torchrun on one machine, suffer some faults each, one after
another (`points.py` has the moments, `worker.py` what is built into the processes). For each fault:
does the other process end by itself, with an error that names the lost one, and after how many
seconds? After each training: is its last checkpoint, byte for byte, that of one that was never
hurt, and is any process left over? `faults_of_machines` tries what befalls machines.

Before the first step, and after all is done, a process that is killed is known to torchrun sooner
than to the other, which torchrun ends by SIGTERM; nobody is left who could name it. These are
counted apart. torchrun waits for 30 seconds before it kills a process that is stopped; but for two,
this program kills it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faults.jobs import (
    JOB_LIMIT,
    LIMIT,
    STEPS,
    TRAIN,
    count_of_left_over,
    job,
    last_checkpoint,
    lives,
    names,
    said,
    worker_of,
    workers,
)
from faults.notes import read, wait_for
from faults.points import POINTS, Fault, plans
from tools import report


def one_machine(folder: Path, plan: list[Fault]) -> dict[str, Any]:
    """Train on one machine and suffer the faults of a plan; return what was seen."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "--max-restarts", str(len(plan) + 1)]
    command += worker_of(folder, *TRAIN, "--steps", str(STEPS))
    found = []
    with job(folder, plan, command) as (process,):
        end = time.monotonic() + JOB_LIMIT

        def over() -> bool:
            return process.poll() is not None or time.monotonic() > end

        for number, fault in enumerate(plan):
            wait_for(lambda n=number: over() or (folder / f"fault-{n}").exists(), JOB_LIMIT)
            found.append(watch(folder, number, fault))
        wait_for(over, JOB_LIMIT)
        status = process.poll()
    return {
        "faults": found,
        "status": status,
        "left_over": count_of_left_over(folder),
        "bytes": last_checkpoint(folder),
    }


def watch(folder: Path, number: int, fault: Fault) -> dict[str, Any]:
    """Wait for the end of the process that a fault did not hit; return how it ended."""
    about = asdict(fault) | {"kind": POINTS[fault.point].kind}
    about.pop("patient")
    struck = read(folder / f"fault-{number}")
    if struck is None:
        return about | {"seconds": None, "ended": "never reached", "named": False, "message": ""}
    wait_for(lambda: len(workers(folder, number)) == 2, 5)
    other = workers(folder, number).get(1 - fault.rank)
    if other is None:  # ended before it began: killed by torchrun
        return about | {"seconds": 0.0, "ended": "SIGTERM", "named": False, "message": ""}
    wait_for(lambda: not lives(other), 2 * LIMIT)
    seconds = time.time() - struck["time"]
    if fault.signal == "SIGSTOP" and not fault.patient:
        time.sleep(0.5)
        with contextlib.suppress(ProcessLookupError):  # torchrun was sooner
            os.kill(struck["pid"], signal.SIGKILL)
    ended = (read(folder / f"end-{other}") or {"how": "SIGTERM"})["how"]
    message = said(folder, other)
    return about | {
        "seconds": round(seconds, 2),
        "ended": ended,
        "named": names(message, fault.rank, struck["pid"]),
        "message": re.sub(r"machine \S+, process \d+", "machine …, process …", message),
    }


def spread_of(seconds: list[float]) -> dict[str, float]:
    """Return the least, the median and the greatest."""
    if not seconds:
        return {}
    values = {"min": min(seconds), "median": statistics.median(seconds), "max": max(seconds)}
    return {name: round(value, 2) for name, value in values.items()}


def summarize(jobs: list[dict[str, Any]], peace: bytes) -> dict[str, Any]:
    """Count, and find what is not as it should be."""
    faults = [fault for j in jobs for fault in j["faults"]]
    early = [f for f in faults if f["kind"] in ("meeting", "start", "end")]
    late = [f for f in faults if f not in early]
    failures: list[dict[str, Any]] = [
        f for f in faults if f["ended"] == "never reached" or f["seconds"] > LIMIT
    ]
    failures += [f for f in late if not (f["named"] and f["ended"] in ("exit 1", "gave up"))]
    failures += [
        {"job": i, "status": j["status"], "identical": j["bytes"] == peace, "left": j["left_over"]}
        for i, j in enumerate(jobs)
        if j["status"] or j["bytes"] != peace or j["left_over"]
    ]
    by_signal = {
        name: {
            "faults": len(some),
            "named": sum(f["named"] for f in some),
            "ended": dict(Counter(f["ended"] for f in some)),
            "seconds": spread_of([f["seconds"] for f in some if f["seconds"] is not None]),
        }
        for name in ("SIGKILL", "SIGSTOP")
        if (some := [f for f in late if f["signal"] == name])
    }
    return {
        "faults": len(faults),
        "trainings": len(jobs),
        "identical_at_the_end": sum(j["bytes"] == peace for j in jobs),
        "processes_left_over": sum(j["left_over"] for j in jobs),
        "while_it_trains": by_signal,
        "before_the_first_step_or_after_the_last": {
            "faults": len(early),
            "named": sum(f["named"] for f in early),
            "ended": dict(Counter(f["ended"] for f in early)),
            "seconds": spread_of([f["seconds"] for f in early if f["seconds"] is not None]),
        },
        "by_kind_and_rank": {
            kind: dict(
                sorted(Counter(f"rank {f['rank']}" for f in faults if f["kind"] == kind).items())
            )
            for kind in dict.fromkeys(point.kind for point in POINTS.values())
        },
        "failures": failures,
    }


def show(faults: list[dict[str, Any]]) -> None:
    """Print a row for each point and signal."""
    print(f"{'point':<26}{'signal':<9}{'faults':>6}{'named':>7}{'seconds':>16}")
    for name in POINTS:
        for kind in ("SIGKILL", "SIGSTOP"):
            some = [f for f in faults if (f["point"], f["signal"]) == (name, kind)]
            seconds = [f["seconds"] for f in some if f["seconds"] is not None]
            if some:
                times = f"{min(seconds):.1f} to {max(seconds):.1f}" if seconds else "none"
                named = sum(f["named"] for f in some)
                print(f"{name:<26}{kind:<9}{len(some):>6}{named:>7}{times:>16}")


def main(arguments: list[str]) -> int:
    """Try all, print and store."""
    parser = report.parser("faults", __doc__)
    parser.add_argument("--at-once", type=int, default=4, help="trainings at the same time")
    parser.add_argument("--jobs", type=int, nargs="*", help="only these trainings")
    parser.add_argument("--logs", type=Path, help="an empty folder that is kept")
    options = parser.parse_args(arguments)
    out = report.new_file("faults", options.out, options.remark)
    about = report.circumstances()
    chosen = plans()
    if options.jobs is not None:
        chosen = [chosen[i] for i in options.jobs]
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.logs or Path(scratch)).resolve()
        began = time.monotonic()
        peace = one_machine(folder / "peace", [])["bytes"]
        assert peace
        with ThreadPoolExecutor(options.at_once) as pool:
            folders = [folder / f"job-{i}" for i in range(len(chosen))]
            jobs = list(pool.map(one_machine, folders, chosen))
    every = [fault for j in jobs for fault in j["faults"]]
    summary: dict[str, Any] = {
        "what": "faults in trainings of the preset tiny in 2 processes; seconds from the fault to "
        "the end of the other process",
        **about,
        **summarize(jobs, peace),
        "seconds_in_all": round(time.monotonic() - began),
    }
    show(every)
    print(json.dumps(summary, indent=2, ensure_ascii=False))
    report.store({**summary, "each": every}, out, options.remark)
    return 0
