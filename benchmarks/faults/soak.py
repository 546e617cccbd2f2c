"""Trains for a while beside an evaluation that follows and a server under requests, and measures.

    python benchmarks/run.py soak --seconds 1800

The training saves, writes summaries and scores all the time. Of each of the three processes open
descriptors, threads and memory are looked at every second, and the shared memory of the machine.
Descriptors, threads and shared memory must be flat: the fewest of the last quarter no more than
those of the second one, since a file is open for a moment now and then, and a leak for ever. The
growth of memory is the slope of a line through what was seen in the second half (least squares),
with its 95 % interval; where that half took ten minutes or more, its lower end must be below 1 MB
an hour. The evaluation looks ten times a second. So what is lost at each scoring shows sooner, and
the memory has settled before the second half; in our runs this took about a thousand scorings. At
the end all are asked to end, and must leave no unfinished file, no process, and no shared memory.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faults.notes import wait_for
from tools import report

EVERY = 1.0  # seconds from one look to the next
PATIENCE = 180.0  # seconds for all to begin, and to end
JUDGED = 600.0  # seconds of the second half from which on the growth of memory is judged
MOST = 1.0  # MB an hour
OF_A_CONNECTION = 20  # requests, then there is a new one
SHARED = Path("/dev/shm")
TRAINING = [
    *("--steps", "1000000000", "--save-every", "100", "--keep", "3", "--summary-every", "50"),
    *("--log-every", "20", "--evaluate-every", "500", "--device", "cpu", "--threads", "1"),
    *("--model.widths", "4", "4", "8", "8"),
]


@dataclass
class Seen:
    """What was seen of a process, a value a look: `memory` in MB, its own pages only."""

    times: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def look(self, pid: int, now: float) -> None:
        """Look at a process that runs."""
        status = Path(f"/proc/{pid}/status").read_text()
        self.times.append(now)
        self.descriptors.append(len([*Path(f"/proc/{pid}/fd").iterdir()]))
        self.threads.append(int(_field(status, "Threads")))
        self.memory.append(int(_field(status, "RssAnon")) / 1000)


@dataclass(frozen=True)
class Growth:
    """A line through the second half: MB an hour, its 95 % interval, and the half's seconds."""

    slope: float
    low: float
    high: float
    seconds: float


def growth(times: list[float], values: list[float]) -> Growth:
    """Return the growth an hour of values that were seen at times in seconds.

    The interval takes the deviations from the line as independent, which memory's are not quite.
    """
    half = len(times) // 2
    x, y = np.array(times[half:]) / 3600, np.array(values[half:])
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    rest = y - y.mean() - slope * centred
    error = float(np.sqrt(rest @ rest / max(1, len(x) - 2) / (centred @ centred)))
    return Growth(slope, slope - 1.96 * error, slope + 1.96 * error, (x[-1] - x[0]) * 3600)


def grown(values: list[int]) -> bool:
    """Tell whether there were always more in the last quarter than at times in the second one."""
    quarter = len(values) // 4
    return min(values[-quarter:]) > min(values[quarter : 2 * quarter])


def judged(name: str, seen: Seen, status: int, expected: int) -> dict[str, Any]:
    """Tell what was seen of a process, and what of it is not as it should be."""
    line = growth(seen.times, seen.memory)
    wrong = [f"{what} grew" for what in ("descriptors", "threads") if grown(getattr(seen, what))]
    if line.seconds >= JUDGED and line.low >= MOST:
        wrong.append("memory grew")
    if status != expected:
        wrong.append(f"expected status {expected}, found {status}")
    return {
        "what": name,
        "looks": len(seen.times),
        "descriptors": [min(seen.descriptors), max(seen.descriptors)],
        "threads": [min(seen.threads), max(seen.threads)],
        "memory": round(seen.memory[-1], 2),
        "growth": {key: round(value, 2) for key, value in asdict(line).items()},
        "wrong": wrong,
        "ok": not wrong,
    }


class Load:
    """Asks a server: pictures, now and then what is none, and new connections."""

    def __init__(self, port: int) -> None:
        self._port, self.asked = port, 0
        self._connection: http.client.HTTPConnection | None = None
        draw = np.random.default_rng(0)
        self._pictures = [_png(draw.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(16)]

    def ask(self) -> None:
        """Ask once; raise RuntimeError for an answer of another status than it should have."""
        if self._connection is None or self.asked % OF_A_CONNECTION == 0:
            self.close()
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        bad = self.asked % 7 == 6
        body = b"no picture" if bad else self._pictures[self.asked % len(self._pictures)]
        self._connection.request("POST", "/predict", body)
        answer = self._connection.getresponse()
        content = answer.read()
        self.asked += 1
        if (answer.status == 200) == bad:
            raise RuntimeError(f"status {answer.status}: {content[:200]!r}")

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start deepcnn with these arguments; what it says goes into files named after the command."""
    out = (folder / f"{arguments[0]}.out").open("wb")
    err = (folder / f"{arguments[0]}.err").open("wb")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "deepcnn", *arguments]
    with out, err, subprocess.Popen(command, stdout=out, stderr=err, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def soak(folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Let all three run for so many seconds; return what is told of each, and of what is left."""
    run, shared = folder / "run", _shared()
    with ExitStack() as stack:
        start = lambda *arguments: stack.enter_context(started(folder, *arguments))  # noqa: E731
        processes = {"train": start("train", "tiny", "--run-dir", str(run), *TRAINING)}
        _wait(lambda: any((run / "checkpoints").glob("step-*")), folder)
        follow = ("evaluate", str(run), "--follow", "--interval", "0.1", "--device", "cpu")
        processes["evaluate"] = start(*follow)
        processes["serve"] = start("serve", str(run), "--port", "0", "--device", "cpu")
        _wait(lambda: _port(folder) is not None, folder)
        _wait(lambda: b"step" in (folder / "evaluate.out").read_bytes(), folder)
        load = Load(_port(folder) or 0)
        seen, most = _watch(processes, load, seconds)
        load.close()
        statuses = _end(processes)
    expected = {"train": 143, "evaluate": 143, "serve": 0}
    found = [judged(name, seen[name], statuses[name], expected[name]) for name in processes]
    left = _left(run, shared)
    if grown(most):
        left.append("shared memory grew")
    about = {"what": "leftovers", "requests": load.asked, "shared_bytes": [min(most), max(most)]}
    return [*found, {**about, "wrong": left, "ok": not left}]


def _watch(
    processes: dict[str, subprocess.Popen[bytes]], load: Load, seconds: float
) -> tuple[dict[str, Seen], list[int]]:
    """Look every second and ask in between; return what was seen, and the shared memory's bytes."""
    seen: dict[str, Seen] = {name: Seen() for name in processes}
    shared: list[int] = []
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        for name, process in processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended by itself, with status {process.returncode}")
            seen[name].look(process.pid, now)
        shared.append(sum(_shared().values()))
        while time.monotonic() - began < now + EVERY:
            load.ask()
            time.sleep(0.02)
    return seen, shared


def _end(processes: dict[str, subprocess.Popen[bytes]]) -> dict[str, int]:
    """Ask all to end, those that look at the training first; return their exit statuses."""
    statuses = {}
    for name in reversed(processes):
        processes[name].send_signal(signal.SIGTERM)
        statuses[name] = processes[name].wait(PATIENCE)
    return statuses


def _left(run: Path, shared: dict[str, int]) -> list[str]:
    """Return what was left that should not be."""
    unfinished = [str(path) for path in run.rglob("*") if path.name.endswith(".tmp")]
    more = [name for name in _shared() if name not in shared]
    checkpoints = len(list((run / "checkpoints").iterdir()))
    wrong = [f"unfinished: {unfinished}"] if unfinished else []
    wrong += [f"shared memory: {more}"] if more else []
    return wrong + ([f"expected 3 checkpoints, found {checkpoints}"] if checkpoints != 3 else [])


def _shared() -> dict[str, int]:
    found = {}
    for path in SHARED.iterdir() if SHARED.exists() else ():
        with contextlib.suppress(OSError):
            found[path.name] = path.stat().st_size
    return found


def _port(folder: Path) -> int | None:
    path = folder / "serve.out"
    match = re.search(rb"Open http://[^:\s]+:(\d+)/", path.read_bytes()) if path.exists() else None
    return int(match[1]) if match else None


def _wait(true: Any, folder: Path) -> None:
    if not wait_for(true, PATIENCE):
        said = "".join(path.read_text(errors="replace") for path in folder.glob("*.err"))
        raise RuntimeError(f"a process did not begin: {said[-2000:]}")


def _field(status: str, name: str) -> str:
    return status.split(f"\n{name}:")[1].split()[0]


def _png(pixels: Any) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()


def main(arguments: list[str]) -> int:
    """Soak, write a line for each process and one for what is left, and print a summary."""
    parser = report.parser("soak", __doc__)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--log", type=Path, help="a new file, a line of JSON for each process")
    parser.add_argument("--scratch", type=Path, help="where the run is made")
    parser.add_argument("--store", action="store_true", help="store the result, see --out")
    options = parser.parse_args(arguments)
    out = report.new_file("soak", options.out, options.remark) if options.store else None
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        found = soak(Path(scratch).resolve(), options.seconds)
    if options.log:
        options.log.write_text("".join(f"{json.dumps(each)}\n" for each in found))
    for each in found:
        print(json.dumps(each))
    failed = sum(not each["ok"] for each in found)
    summary = {"cases": len(found), "failed": failed, "seconds": options.seconds}
    print(json.dumps(summary))
    if out is not None:
        about = {"what": "soak", **report.circumstances(), **summary}
        report.store(about | {"each": found}, out, options.remark)
    return 1 if failed else 0
