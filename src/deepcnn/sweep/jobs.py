"""Runs several programs at once: what each says while it works, and how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepcnn.errors import storing

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

LAST_LINES = 20  # that are kept of what a program says


@dataclass(frozen=True)
class Job:
    """A program to run; `name` distinguishes it from the others."""

    name: str
    command: list[str]


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit status, negative for a signal, and its wall time.

    `said`: its last lines, without the events.
    """

    job: Job
    status: int
    seconds: float
    said: list[str] = field(repr=False)


def run_all(
    jobs: Sequence[Job],
    at_once: int,
    heard: Callable[[Job, dict[str, Any]], None],
    ended: Callable[[Ended], None],
    *,
    inherit: int | None = None,
) -> None:
    """Run programs in order, a number of them at once; tell of each event and of each end.

    An event is a line of their output that is a JSON object. If an exception leaves this function,
    also one of `heard` or `ended`, all programs that still run get SIGTERM and are waited for, so
    trainings save. The programs do not get the signals of the terminal themselves. If this process
    is killed, nobody reads their output, and so they end. `inherit`: a file descriptor that each
    program holds open until it ends.
    """
    waiting, living = deque(jobs), dict[str, _Process]()
    lines: queue.SimpleQueue[tuple[str, bytes | None]] = queue.SimpleQueue()
    try:
        while waiting or living:
            while waiting and len(living) < at_once:
                job = waiting.popleft()
                living[job.name] = _Process(job, lines, inherit)
            name, line = lines.get()
            process = living[name]
            if line is None:
                del living[name]
                ended(process.end())
            elif (event := process.event(line)) is not None:
                heard(process.job, event)
    finally:
        for process in living.values():
            process.stop()
        while living:
            name, line = lines.get()
            if line is None:
                living.pop(name).end()


class _Process:
    def __init__(
        self, job: Job, lines: queue.SimpleQueue[tuple[str, bytes | None]], inherit: int | None
    ) -> None:
        self.job, self._said = job, deque[str](maxlen=LAST_LINES)
        self._began = time.perf_counter()
        self._process = subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=() if inherit is None else (inherit,),
        )
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()

    def _read(self, lines: queue.SimpleQueue[tuple[str, bytes | None]]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            lines.put((self.job.name, line))
        self._process.wait()
        lines.put((self.job.name, None))

    def event(self, line: bytes) -> dict[str, Any] | None:
        """Return the event in a line; any other line is kept as something that was said."""
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(line)
            if isinstance(found, dict):
                return found
        self._said.append(line.decode(errors="replace").rstrip())
        return None

    def stop(self) -> None:
        """Ask the program to end."""
        self._process.terminate()

    def end(self) -> Ended:
        """Return how the program ended, when it has ended."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        seconds = time.perf_counter() - self._began
        return Ended(self.job, self._process.wait(), seconds, list(self._said))


@contextmanager
def held_by_all(path: Path, wait: Callable[[], None]) -> Iterator[int | None]:
    """Lock a file, through a descriptor that programs can inherit, until the last of them ends.

    If other programs still hold it, whose starter was killed, `wait` is called once, and they are
    waited for. Gives None if the system has no such locks.
    """
    if fcntl is None:
        yield None
        return
    with storing(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: there is nothing to wait for
            pass
        yield handle
    finally:
        os.close(handle)
