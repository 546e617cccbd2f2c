"""What happens when a link between two machines is cut, or a machine is lost.

    python benchmarks/run.py faults_of_machines          # needs root

The machines are network namespaces. Tried are a training without a fault, whose last checkpoint
must be, byte for byte, that of two processes on one machine; two trainings whose link is cut, at
either end; and two that lose a machine and go on alone, with torchrun's meeting as it is and with a
quick one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deepcnn.runs import log
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
from faults.notes import POLL, wait_for
from faults.one_machine import one_machine
from tools import report
from tools.hosts import LINK, ip, torchrun, two_hosts

TORCHRUN_LIMIT = 30.0  # seconds for torchrun itself, after its processes have ended


def two_machines(
    hosts: tuple[str, str],
    folder: Path,
    train: list[str],
    act: Callable[[list[subprocess.Popen[bytes]]], dict[str, Any]],
    *,
    nodes: str = "2",
    restarts: int = 0,
    meeting: str = "",
) -> dict[str, Any]:
    """Train on two machines, do something meanwhile, and return what `act` and the end tell."""
    program = worker_of(folder, *train)
    commands = torchrun(
        hosts, program, job=folder.name, nodes=nodes, restarts=restarts, meeting=meeting
    )
    with job(folder, [], *commands) as running:
        found = act(running)
        hopeless = "failure" in found
        wait_for(lambda: hopeless or all(p.poll() is not None for p in running), JOB_LIMIT / 2)
        found["statuses"] = [p.poll() for p in running]
    return found | {"left_over": count_of_left_over(folder)}


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return a run's events of a kind, so far."""
    path = folder / "run" / "log.jsonl"
    return log.events(log.read_log(path) if path.exists() else [], name)


def reaches(folder: Path, step: int) -> Callable[[], bool]:
    """Return what tells whether a training has saved at a step or later."""
    return lambda: any(event["step"] >= step for event in events(folder, "Saved"))


def cut(hosts: tuple[str, str], folder: Path, at: str) -> dict[str, Any]:
    """Cut the link at one machine's end, in the middle of a training."""

    def act(running: list[subprocess.Popen[bytes]]) -> dict[str, Any]:
        if not wait_for(reaches(folder, 20), 180):
            return {"failure": "did not begin to train"}
        pids = workers(folder)
        ip("-n", at, "link", "set", LINK, "down")
        began, seconds = time.time(), {}
        for rank in (0, 1) * int(2 * LIMIT / POLL):
            if rank not in seconds and not lives(pids[rank]):
                seconds[rank] = round(time.time() - began, 2)
            if len(seconds) == 2:
                break
            time.sleep(POLL / 2)
        # torchrun itself, on the machine that does not hold its store, waits for it for minutes.
        wait_for(lambda: all(p.poll() is not None for p in running), TORCHRUN_LIMIT)
        ended = [p.poll() is not None for p in running]
        for process in running:
            process.kill()
        return {
            "seconds": [seconds.get(rank) for rank in (0, 1)],
            "named": [names(said(folder, pids[r]), 1 - r, pids[1 - r]) for r in (0, 1)],
            f"torchrun_ended_{TORCHRUN_LIMIT:.0f}_s_later": ended,
        }

    try:
        return two_machines(hosts, folder, [*TRAIN, "--steps", "1000000"], act)
    finally:
        ip("-n", at, "link", "set", LINK, "up")


def lose_machine(hosts: tuple[str, str], folder: Path, meeting: str) -> dict[str, Any]:
    """Kill everything on the second machine; the first goes on alone."""

    def act(running: list[subprocess.Popen[bytes]]) -> dict[str, Any]:
        if not wait_for(reaches(folder, 50), 180):
            return {"failure": "did not begin to train"}
        saved = max(event["step"] for event in events(folder, "Saved"))
        there = subprocess.run(["ip", "netns", "pids", hosts[1]], capture_output=True, check=True)
        for pid in there.stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        began = time.time()
        on_again = wait_for(lambda: len(events(folder, "Started")) > 1, 180)
        seconds = round(time.time() - began, 1)
        running[0].wait(JOB_LIMIT / 2)
        return {
            "killed_after_step": saved,
            "seconds_to_go_on": seconds if on_again else None,
            "seconds_to_finish": round(time.time() - began, 1),
            "went_on_at_step": [e["step"] for e in events(folder, "Started")][1:],
            "processes": [e["processes"] for e in events(folder, "Started")],
            "finished_at_step": [e["step"] for e in events(folder, "Finished")],
        }

    return two_machines(
        hosts,
        folder,
        [*TRAIN, "--steps", "2000"],
        act,
        nodes="1:2",
        restarts=3,
        meeting=meeting,
    )


def main(arguments: list[str]) -> int:
    """Try all, print and store."""
    options = report.parser("faults_of_machines", __doc__).parse_args(arguments)
    out = report.new_file("faults_of_machines", options.out, options.remark)
    result: dict[str, Any] = {
        "what": "faults in trainings of the preset tiny on 2 hosts of one process each",
        **report.circumstances(),
    }
    quick = ",last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=3"
    with tempfile.TemporaryDirectory() as scratch, two_hosts() as hosts:
        folder = Path(scratch)
        peace = one_machine(folder / "peace", [])["bytes"]
        assert peace
        name = folder / "no-fault"
        calm = two_machines(hosts, name, [*TRAIN, "--steps", str(STEPS)], lambda _: {})
        result["no_fault"] = calm | {"identical": last_checkpoint(name) == peace}
        for i, host in enumerate(hosts):
            result[f"link_cut_at_machine_{i}"] = cut(hosts, folder / f"cut-{i}", host)
        result["machine_lost"] = lose_machine(hosts, folder / "lost-default", "")
        result["machine_lost_quick_meeting"] = lose_machine(hosts, folder / "lost-quick", quick)
    print(json.dumps(result, indent=2))
    report.store(result, out, options.remark)
    return 0
