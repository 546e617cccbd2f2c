"""Signals that ask a training to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signals(*, patient: bool) -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into an event, so that no step is cut in two.

    A second signal does what it always did, unless `patient`: where a launcher and a cluster look
    after the process, both may send one, and the launcher kills whoever is too slow. Signals reach
    only the main thread of a program; in any other this does nothing.
    """
    stopping = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stopping.set()
        if not patient:
            restore()

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopping
    except BaseException:
        if not patient:  # else the launcher's signal may come before the error has been told
            restore()
        raise
    restore()
