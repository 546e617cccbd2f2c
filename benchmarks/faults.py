"""What happens when a process is killed or stopped at a chosen moment.

    python benchmarks/faults.py

Trainings in two processes, started by torchrun on one machine, suffer some faults each, one after
another. The script is its own worker: it trains as `deepcnn train` does, after it has wrapped one
function of deepcnn, so that one process kills (SIGKILL) or stops (SIGSTOP) itself at the n-th call.
For each fault: does the other process end by itself, with an error that names the lost one, and
after how many seconds? After each training: is its last checkpoint, byte for byte, that of one that
was never hurt, and is any process left over? `faults_of_machines.py` tries what befalls machines.

Before the first step, and after all is done, a process that is killed is known to torchrun sooner
than to the other, which torchrun ends by SIGTERM; nobody is left who could name it. These are
counted apart. torchrun waits for 30 seconds before it kills a process that is stopped; but for two,
this script kills it.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import random
import re
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import report
from hosts import LINK

STEPS = 120
TRAIN = ["train", "tiny", "--save-every", "10", "--evaluate-every", "20", "--summary-every", "0"]
# The same sums need as many threads, however many processes share a machine.
TRAIN += ["--keep", "1", "--log-every", "10", "--threads", "1"]
PER_JOB = 5  # faults that a training suffers
LIMIT = 30.0  # seconds after which the other process must have ended
JOB_LIMIT = 600.0  # seconds after which a training hangs
TOKEN = "DEEPCNN_FAULTS"  # an environment variable, by which processes left over are found
POLL = 0.01
BLOCK = 64  # examples scored at a time, so that there are several blocks for each process


@dataclass(frozen=True)
class Point:
    """A moment: before or after a call of `target` for which `only` holds.

    `mode`: "own": whoever calls dies there. "writer": only rank 0 comes there; another process dies
    while rank 0 is held there. "inside": the call waits for the other process, which is held
    outside. "gradient": when the gradient of the call's result is known.
    """

    kind: Literal["meeting", "start", "step", "save", "evaluation", "end"]
    target: str
    after: bool = False
    only: Callable[..., bool] = lambda *_, **__: True
    mode: Literal["own", "writer", "inside", "gradient"] = "own"
    calls: tuple[int, ...] = (3, 12)


def _is_checkpoint(path: Path, *others: Path, **_: Any) -> bool:
    return Path((path, *others)[-1]).name.startswith("step-")


def _is_loss(*arguments: Any, **_: Any) -> bool:
    return len(arguments) == 1 and arguments[0].ndim == 1 and arguments[0].is_floating_point()


def _is_flag(*arguments: Any, **_: Any) -> bool:
    return len(arguments) == 2


def _is_score(_: Any, values: Any) -> bool:
    return len(values) == 3


def _in_training(layer: Any, *_: Any) -> bool:
    return bool(layer.training)


PROCESSES = "deepcnn.team.processes:"
SUM = PROCESSES + "Processes.sum"
ALL_REDUCE = "torch.distributed:all_reduce"
CONVOLUTION = "deepcnn.models.layers:ConvReLU.forward"
POINTS = {
    "before the meeting": Point("meeting", "deepcnn.training.start:join", calls=(1,)),
    "in the meeting": Point("meeting", PROCESSES + "_common_name", calls=(1,)),
    "before signs of life": Point("meeting", PROCESSES + "_exchange_signs", calls=(1,)),
    "looking for the run": Point("start", "deepcnn.runs.run:Run.of_job", mode="writer", calls=(1,)),
    "reading data": Point("start", "deepcnn.training.start:_open_training_set", calls=(1,)),
    "creating the run": Point("start", "deepcnn.runs.run:Run.create", mode="writer", calls=(1,)),
    "run without config.json": Point(
        "start",
        "deepcnn.runs.run:Run.write",
        only=lambda _, name, *__: name == "config.json",
        mode="writer",
        calls=(1,),
    ),
    "loading a checkpoint": Point(
        "start", "deepcnn.runs.checkpoint:load", mode="writer", calls=(1,)
    ),
    "spreading the state": Point("start", PROCESSES + "Distributed.__init__", calls=(1,)),
    "rehearsal": Point("step", PROCESSES + "Distributed._wrapped", calls=(1,)),
    "forward": Point("step", CONVOLUTION, only=_in_training),
    "after forward": Point("step", "deepcnn.engines.single:Engine._losses"),
    "loss sum, not begun": Point("step", ALL_REDUCE, only=_is_loss),
    "loss sum, begun": Point("step", ALL_REDUCE, after=True, only=_is_loss),
    "backward": Point("step", CONVOLUTION, after=True, only=_in_training, mode="gradient"),
    "gradient sum": Point("step", "torch.autograd:backward", mode="inside"),
    "update": Point("step", "deepcnn.engines.single:Engine._update"),
    "between steps": Point("step", "deepcnn.learning.averages:LossAverages.update", after=True),
    "stop flag, not begun": Point("step", ALL_REDUCE, only=_is_flag),
    "stop flag, begun": Point("step", ALL_REDUCE, after=True, only=_is_flag),
    "settling": Point("save", PROCESSES + "Distributed.settle", calls=(1, 2)),
    "before a save": Point("save", "deepcnn.runs.checkpoint:save", mode="writer", calls=(1, 2)),
    "before the rename": Point(
        "save", "pathlib:Path.replace", only=_is_checkpoint, mode="writer", calls=(1, 2)
    ),
    "after the rename": Point(
        "save", "pathlib:Path.replace", after=True, only=_is_checkpoint, mode="writer", calls=(1, 2)
    ),
    "before pruning": Point(
        "save", "pathlib:Path.unlink", only=_is_checkpoint, mode="writer", calls=(1, 2)
    ),
    "after pruning": Point(
        "save", "pathlib:Path.unlink", after=True, only=_is_checkpoint, mode="writer", calls=(1, 2)
    ),
    "after a save": Point(
        "save",
        PROCESSES + "Processes.once",
        after=True,
        only=lambda _, make: make.__name__ == "save",
        calls=(1, 2),
    ),
    "between blocks": Point("evaluation", "deepcnn.learning.objective:count_correct", calls=(2, 3)),
    "score sum, not begun": Point("evaluation", SUM, only=_is_score, calls=(1, 1)),
    "score sum": Point("evaluation", SUM, only=_is_score, mode="inside", calls=(1, 1)),
    "parting": Point("end", SUM, only=lambda _, values: len(values) == 1, calls=(1, 1)),
}
STOPPED_AT = ("forward", "backward", "gradient sum", "before the rename", "between blocks")
STOPPED_AT += ("score sum",)


@dataclass(frozen=True)
class Fault:
    """A signal that a process gives itself; `patient`: torchrun ends the one that is stopped."""

    point: str
    rank: int
    signal: Literal["SIGKILL", "SIGSTOP"]
    call: int
    patient: bool = False


# ---- the worker


def worker(folder: Path, arguments: list[str]) -> None:
    """Train, with the fault of this attempt built in; leave notes in `folder` of what happens."""
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    rank, pid = int(os.environ["RANK"]), os.getpid()
    errors = os.open(folder / f"stderr-{pid}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(errors, 2)
    note(folder / f"worker-{pid}", {"attempt": attempt, "rank": rank})
    # Imported late: the parent needs none of this.
    from deepcnn.cli.main import main as cli
    from deepcnn.inference.prepared import evaluation
    from deepcnn.team import signs

    evaluation.score.__defaults__ = (BLOCK,)
    give_up = signs.end_process

    def noted_give_up(message: str) -> None:
        note(folder / f"end-{pid}", {"how": "gave up"})
        give_up(message)

    signs.end_process = noted_give_up
    plan = [Fault(**fault) for fault in json.loads((folder / "plan").read_text())]
    if attempt < len(plan):
        build_in(plan[attempt], attempt, rank, folder)
    sys.argv = ["deepcnn", *arguments]
    try:
        cli.main()
    except BaseException as error:
        how = f"exit {error.code}" if isinstance(error, SystemExit) else type(error).__name__
        note(folder / f"end-{pid}", {"how": how})
        raise


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
    module, _, path = point.target.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    static = inspect.getattr_static(owner, name)
    of_class = isinstance(static, classmethod)
    function = static.__func__ if of_class else static
    calls = 0

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

    setattr(owner, name, classmethod(wrapped) if of_class else wrapped)


def note(path: Path, values: dict[str, Any]) -> None:
    """Write a note that appears whole."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.write_text(json.dumps(values))
    os.replace(temporary, path)  # noqa: PTH105 (Path.replace may be what is wrapped)


def wait_for(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Wait until something holds, and tell whether it does."""
    end = time.monotonic() + seconds
    while not (holds := true()) and time.monotonic() < end:
        time.sleep(POLL)
    return holds


# ---- what the parent sees


def read(path: Path) -> dict[str, Any] | None:
    """Return a note, or None where there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found


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
    note(folder / "plan", [asdict(fault) for fault in plan])  # type: ignore[arg-type]
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
    """Return this script as a worker, and its arguments, for torchrun."""
    return [__file__, "--worker", str(folder), *train, "--run-dir", str(folder / "run")]


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
    final = folder / "run" / "checkpoints" / f"step-{STEPS:09d}.safetensors"
    return {
        "faults": found,
        "status": status,
        "left_over": (read(folder / "left over") or {})["count"],
        "bytes": final.read_bytes() if final.exists() else b"",
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
        os.kill(struck["pid"], signal.SIGKILL)
    ended = (read(folder / f"end-{other}") or {"how": "SIGTERM"})["how"]
    message = said(folder, other)
    return about | {
        "seconds": round(seconds, 2),
        "ended": ended,
        "named": names(message, fault.rank, struck["pid"]),
        "message": re.sub(r"machine \S+, process \d+", "machine …, process …", message),
    }


# ---- the matrix


def plans() -> list[list[Fault]]:
    """Return the faults of each training: all points, ranks and calls by SIGKILL, some stopped."""
    kills = [
        Fault(name, rank, "SIGKILL", call)
        for name, point in POINTS.items()
        for rank in (0, 1)
        for call in point.calls
    ]
    random.Random(0).shuffle(kills)
    # Some points are there only before the run exists, others only after it has begun or ended.
    first = ("creating the run", "run without config.json", "before the meeting")
    last = ("loading a checkpoint", "parting")
    heads = [f for f in kills if f.point in first]
    tails = sorted((f for f in kills if f.point in last), key=lambda f: last.index(f.point))
    rest = [f for f in kills if f.point not in first + last]
    count = -(-len(kills) // PER_JOB)
    jobs: list[list[Fault]] = [[] for _ in range(count)]
    for i, fault in enumerate(heads):
        jobs[i % count].append(fault)
    ends: list[list[Fault]] = [[] for _ in range(count)]
    for i, fault in enumerate(tails):
        ends[-1 - i % count].append(fault)
    for fault in rest:
        shortest = min(range(count), key=lambda i: len(jobs[i]) + len(ends[i]))
        jobs[shortest].append(fault)
    stops = [
        Fault(name, rank, "SIGSTOP", POINTS[name].calls[-1], patient=i == 0)
        for i, name in enumerate(STOPPED_AT)
        for rank in (0, 1)
    ]
    return [stops[i::4] for i in range(4)] + [j + e for j, e in zip(jobs, ends, strict=True)]


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


def main() -> None:
    """Try all, print and store."""
    if sys.argv[1:2] == ["--worker"]:
        worker(Path(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    report.add_options(parser, "faults")
    parser.add_argument("--at-once", type=int, default=4, help="trainings at the same time")
    parser.add_argument("--jobs", type=int, nargs="*", help="only these trainings")
    parser.add_argument("--logs", type=Path, help="an empty folder that is kept")
    options = parser.parse_args()
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


if __name__ == "__main__":
    main()
