"""Works on many pictures with separate processes, one for each core.

Pillow holds the interpreter while it opens and decodes a small picture, so threads gain nothing.
The processes are new ones of this interpreter. `multiprocessing` is not used, since it would run
the user's script again, which the script may not expect. The processes end by themselves when they
get no more work, or when this process is gone.
"""

from __future__ import annotations

import atexit
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from deepcnn.errors import DataError
from deepcnn.machine import cores

T = TypeVar("T")
R = TypeVar("R")

LOOK = 0.1  # seconds of work after which it is estimated what is left
WORTH = 0.4  # seconds that must be left; to start the processes takes about half of that
PIPE = 2**18  # bytes of answers, such as 64 images of 32×32, that need not wait for who reads them
IDLE = 5.0  # seconds after which a process that nobody asks ends
MOST = 8  # processes
# Isolated (-I), so that nothing is imported from the working directory, which may be a hostile one.
_BEGIN = """
import sys
idle, *sys.path[:] = sys.argv[1:]
from deepcnn.data.formats.processes import serve
serve(float(idle))
"""

_idle: list[_Worker] = []  # processes that wait for work


def spread(
    work: Callable[[T], R], parts: Iterable[T], left: Callable[[], float]
) -> Generator[R, None, None]:
    """Yield `work(part)` for each part, in order; processes help if that is worth it.

    Parts are worked on here until the processes are there. `work` and the parts are pickled, so
    they must be plain or of this package. `left`: tells how much is still to come, as a multiple of
    what was yielded. The results are the same with and without processes; if one cannot be started
    or fails, the work is done without it.
    """
    began, waiting = time.perf_counter(), iter(parts)
    count = min(cores(), MOST)
    starting: list[Future[None]] | None = [] if _waiting() >= count and _can_start() else None
    with ThreadPoolExecutor(count, "pictures") as pool:  # each waits for a process of its own
        for part in waiting:
            yield work(part)
            spent = time.perf_counter() - began
            if starting is not None:
                if all(each.done() for each in starting):
                    yield from _by_processes(work, waiting, pool, count)
            elif spent > LOOK and spent * left() > WORTH and _can_start():
                starting = [pool.submit(start, work) for _ in range(count - _waiting())]


def gain(seconds: float) -> float:
    """Return about how many times faster work of this many seconds is done with processes."""
    return 0.8 * min(cores(), MOST) if seconds > LOOK + WORTH and _can_start() else 1.0


def _can_start() -> bool:
    return os.name == "posix" and bool(sys.executable) and cores() > 1


def _by_processes(
    work: Callable[[T], R], parts: Iterator[T], pool: ThreadPoolExecutor, count: int
) -> Iterator[R]:
    begun: deque[Future[R]] = deque()
    try:
        for part in parts:
            begun.append(pool.submit(_ask, work, part))
            if len(begun) > 2 * count:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for each in begun:
            each.cancel()


def start(work: Callable[[T], R]) -> None:
    """Start one more process that waits, if possible; it imports what `work` needs."""
    with suppress(OSError, EOFError):
        worker = _Worker()
        worker.ask(callable, work)
        _idle.append(worker)


def _ask(work: Callable[[T], R], part: T) -> R:
    for _ in range(2):  # one that waited may have ended meanwhile
        try:
            worker = _taken() or _Worker()
        except OSError:
            break
        try:
            answer = worker.ask(work, part)
        except (OSError, EOFError, pickle.UnpicklingError):
            worker.end()
            continue
        _idle.append(worker)
        if isinstance(answer, Failed):
            raise answer.error
        return answer
    return work(part)


@dataclass(frozen=True)
class Failed:
    """The answer of a process if the work raised an error."""

    error: DataError


def _taken() -> _Worker | None:
    """Return a process that waits; one that belongs to the parent before a fork is not ours."""
    with suppress(IndexError):
        while True:
            worker = _idle.pop()
            if worker.owner == os.getpid():
                if worker.waits():
                    return worker
                worker.end()
    return None


def _waiting() -> int:
    """Return how many processes wait for work."""
    there = [worker for _ in range(len(_idle)) if (worker := _taken()) is not None]
    _idle.extend(there)
    return len(there)


class _Worker:
    """A process that does the work it is given. Raises OSError if it cannot be started."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _BEGIN, str(IDLE), *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pipesize=PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def ask(self, work: Callable[[T], R], part: T) -> R | Failed:
        pickle.dump((work, part), self._requests, pickle.HIGHEST_PROTOCOL)
        self._requests.flush()
        answer: R | Failed = pickle.load(self._answers)
        return answer

    def waits(self) -> bool:
        """Tell whether the process has not ended by itself."""
        return self._process.poll() is None

    def end(self) -> None:
        """End the process, and wait until it has ended."""
        with suppress(OSError):  # what was not sent yet cannot be
            self._requests.close()
        self._answers.close()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@atexit.register
def end_all() -> None:
    """End the processes that wait for work."""
    while (worker := _taken()) is not None:
        worker.end()


def serve(idle: float) -> None:
    """Do the work that comes on standard input, until none comes for `idle` seconds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks ends this process
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing but answers goes there
    with suppress(EOFError, BrokenPipeError):
        while select.select([requests], [], [], idle)[0]:
            work, part = pickle.load(requests)
            try:
                answer = work(part)
            except DataError as error:
                answer = Failed(error)
            pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
