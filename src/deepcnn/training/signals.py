"""Signals and a time limit that ask a training to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from deepcnn.events import Event, Listener
from deepcnn.stopping import ENDING, PIPE, WARNING, raise_stopped


class Halted(Exception):  # noqa: N818 (nothing is wrong)
    """The training was asked to stop, and all its processes are at the same place."""


class Stop:
    """Whether a training must stop, and why: a signal, a closed pipe, or a time limit.

    `limit`: seconds from the making of this object on; None: no limit. `number`: of the signal.
    """

    def __init__(self, limit: float | None = None) -> None:
        self._limit = limit
        self.number: int | None = None
        self._began = time.monotonic()
        self._heard = False

    def asked(self) -> bool:
        """Tell whether this process was asked to stop."""
        over = self._limit is not None and time.monotonic() - self._began >= self._limit
        return over or self.number is not None

    @contextmanager
    def heard(self, *, patient: bool) -> Iterator[None]:
        """Note the first SIGINT, SIGTERM, SIGHUP or SIGUSR1 only, so that no step is cut in two.

        A second signal has its earlier effect; if it had raised Stopped, it ends the process at
        once. With `patient`, further signals do nothing: a launcher and a cluster may both send
        one, and the launcher kills a process that is too slow. Signals reach only the main thread
        of a program, so none is heard in any other thread.
        """
        self._heard = True
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {n: signal.getsignal(n) for n in (*ENDING, WARNING) if n is not None}
        for number in [n for n in before if n.name == "SIGHUP" and before[n] is signal.SIG_IGN]:
            del before[number]  # nohup started this

        def restore() -> None:
            for number, handler in before.items():
                again = self.number is not None and handler is raise_stopped
                signal.signal(number, signal.SIG_DFL if again else handler)

        def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
            if self.number is None:
                self.number = number
            if not patient:
                restore()

        for number in before:
            signal.signal(number, stop)
        try:
            yield
        except BaseException:
            if not patient:  # else the launcher's signal may come before the error has been told
                restore()
            raise
        restore()

    def listener(self, emit: Listener) -> Listener:
        """Return a listener that tells `emit` until its pipe is closed; this asks to stop.

        Before there is anything to save, the caller gets the BrokenPipeError.
        """
        open_still = True

        def tell(event: Event) -> None:
            nonlocal open_still
            if not open_still:
                return
            try:
                emit(event)
            except BrokenPipeError:
                if not self._heard:
                    raise
                open_still = False
                self.number = self.number or PIPE

        return tell


def one_of(reasons: list[int | None]) -> int | None:
    """Return the number of the signal that counts, among those of all processes; None: the time."""
    signals = [number for number in reasons if number is not None]
    ending = [number for number in signals if number != WARNING]
    return min(ending or signals, default=None)
