"""Trains as `deepcnn` does, in one of several processes, with the faults of a plan built in.

torchrun starts it: run.py worker faults FOLDER ARGUMENTS…, with the arguments of `deepcnn`. One
function of deepcnn is wrapped, so that one process kills (SIGKILL) or stops (SIGSTOP) itself at the
n-th call.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.notes import note, wait_for
from faults.patches import Function, patch
from faults.points import POINTS, Fault, Point

BLOCK = 64  # examples scored at a time, so that there are several blocks for each process


def main(arguments: list[str]) -> int:
    """Train, with the fault of this attempt built in; leave notes in a folder of what happens."""
    folder, options = Path(arguments[0]), arguments[1:]
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    rank, pid = int(os.environ["RANK"]), os.getpid()
    errors = os.open(folder / f"stderr-{pid}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(errors, 2)
    note(folder / f"worker-{pid}", {"attempt": attempt, "rank": rank})
    # Imported only now: a process is to be known as early as can be.
    from deepcnn.cli.main import main as cli
    from deepcnn.inference import scoring

    scoring.BATCH = BLOCK

    def noted(give_up: Function) -> Function:
        def noted_give_up(message: str) -> None:
            note(folder / f"end-{pid}", {"how": "gave up"})
            give_up(message)

        return noted_give_up

    patch("deepcnn.team.signs:end_process", noted)
    plan = [Fault(**fault) for fault in json.loads((folder / "plan").read_text())]
    if attempt < len(plan):
        build_in(plan[attempt], attempt, rank, folder)
    sys.argv = ["deepcnn", *options]
    try:
        cli()
    except BaseException as error:
        how = f"exit {error.code}" if isinstance(error, SystemExit) else type(error).__name__
        note(folder / f"end-{pid}", {"how": how})
        raise
    return 0


def build_in(fault: Fault, number: int, rank: int, folder: Path) -> None:
    """Wrap the function of a fault's point, in the process that it hits and in the other one."""
    point = POINTS[fault.point]
    struck, reached = folder / f"fault-{number}", folder / f"reached-{number}"

    def strike(*_: Any) -> None:
        note(struck, {"pid": os.getpid(), "time": time.time()})
        os.kill(os.getpid(), getattr(signal, fault.signal))

    def strike_when(path: Path, seconds: float) -> None:
        wait_for(path.exists)
        time.sleep(seconds)
        strike()

    def begin_to_strike() -> None:
        threading.Thread(target=strike_when, args=(folder, 0.2), daemon=True).start()

    def hold() -> None:
        note(reached, {})
        wait_for(struck.exists)
        time.sleep(0.05)

    hit = fault.rank == rank
    if point.mode == "own" and hit:
        wrap(point, fault.call, strike)
    elif point.mode == "gradient" and hit:
        wrap(point, fault.call, lambda output: output.register_hook(strike) and None)
    elif point.mode == "inside":
        wrap(point, fault.call, begin_to_strike if hit else hold)
    elif point.mode == "writer" and rank == 0:
        wrap(point, fault.call, strike if hit else hold)
    elif point.mode == "writer" and hit:
        threading.Thread(target=strike_when, args=(reached, 0.1), daemon=True).start()


def wrap(point: Point, call: int, act: Callable[..., None]) -> None:
    """Let the n-th call of a point's function do something too."""
    calls = 0

    def change(function: Function) -> Function:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            counts = point.only(*arguments, **named)
            calls += counts
            now = counts and calls == call
            if now and not point.after:
                act()
            result = function(*arguments, **named)
            if now and point.after:
                act(*([result] if point.mode == "gradient" else []))
            return result

        return wrapped

    patch(point.target, change)
