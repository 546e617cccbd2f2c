"""Trainings in several processes, and what is seen of them from outside."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from faults.notes import note, read, wait_for
from faults.points import Fault
from tools.hosts import LINK
from tools.program import as_worker

STEPS = 120
TRAIN = ["train", "tiny", "--save-every", "10", "--evaluate-every", "20", "--summary-every", "0"]
# The same sums need as many threads, however many processes share a machine.
TRAIN += ["--keep", "1", "--log-every", "10", "--threads", "1"]
LIMIT = 30.0  # seconds after which the other process must have ended
JOB_LIMIT = 600.0  # seconds after which a training hangs
TOKEN = "DEEPCNN_FAULTS"  # an environment variable, by which processes left over are found


def lives(pid: int) -> bool:
    """Tell whether a process runs or is stopped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def left_over(token: str) -> list[int]:
    """Return the processes that were started with this token."""
    wanted = f"{TOKEN}={token}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes() and lives(int(entry.name)):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def workers(folder: Path, attempt: int | None = None) -> dict[int, int]:
    """Return the process of each rank, in an attempt."""
    found = {}
    for path in folder.glob("worker-*"):
        about = None if path.suffix else read(path)
        if about is not None and attempt in (None, about["attempt"]):
            found[about["rank"]] = int(path.name.split("-")[1])
    return found


def said(folder: Path, pid: int) -> str:
    """Return what a process said last of deepcnn's own errors."""
    path = folder / f"stderr-{pid}"
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    own = [line for line in lines if line.startswith("deepcnn: ")]
    return own[-1] if own else ""


def names(message: str, rank: int, pid: int) -> bool:
    """Tell whether a message names a process by rank, machine and process number."""
    return re.search(rf"rank {rank} \(machine \S+, process {pid}\)", message) is not None


@contextmanager
def job(
    folder: Path, plan: list[Fault], *commands: list[str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start commands in a folder, and leave nothing of them behind."""
    folder.mkdir(parents=True)
    note(folder / "plan", [asdict(fault) for fault in plan])
    token = secrets.token_hex(8)
    environment = os.environ | {TOKEN: token, "OMP_NUM_THREADS": "1"}
    environment["GLOO_SOCKET_IFNAME"] = LINK if len(commands) > 1 else "lo"
    running = []
    try:
        for i, command in enumerate(commands):
            with (folder / f"torchrun-{i}").open("wb") as log:
                running.append(
                    subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
                )
        yield running
        wait_for(lambda: not left_over(token), 2)
        note(folder / "left over", {"count": len(left_over(token))})
    finally:
        for pid in left_over(token):
            os.kill(pid, signal.SIGKILL)
        for process in running:
            process.wait()


def worker_of(folder: Path, *train: str) -> list[str]:
    """Return what torchrun runs in each process of a training."""
    return as_worker("faults", str(folder), *train, "--run-dir", str(folder / "run"))


def count_of_left_over(folder: Path) -> int:
    """Return how many processes a job left behind."""
    found: int = (read(folder / "left over") or {})["count"]
    return found


def last_checkpoint(folder: Path) -> bytes:
    """Return the checkpoint of a training's last step; nothing where there is none."""
    path = folder / "run" / "checkpoints" / f"step-{STEPS:09d}.safetensors"
    return path.read_bytes() if path.exists() else b""
