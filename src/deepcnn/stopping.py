"""Signals that end the program: first by an exception, so that nothing unfinished is left."""

from __future__ import annotations

import signal
import threading
from types import FrameType

# Those that ask to end; Windows has no SIGHUP.
ENDING = tuple(
    number
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if (number := getattr(signal, name, None)) is not None
)
# The one that schedulers send ahead of the end, as Slurm's --signal=USR1@60; Windows has none.
WARNING: signal.Signals | None = getattr(signal, "SIGUSR1", None)
PIPE = 13  # SIGPIPE, also where there is none


class Stopped(KeyboardInterrupt):
    """A signal asks the program to end; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def raise_stopped(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Handle a signal: raise Stopped; the next one ends the process at once."""
    end_at_once()
    raise Stopped(number)


def end_by_exception(*numbers: signal.Signals | None) -> None:
    """Let signals raise Stopped from now on, except those that the program was told to ignore.

    `nohup` does this with SIGHUP. Signals reach only the main thread; in any other thread this
    function does nothing.
    """
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, raise_stopped)


def end_at_once() -> None:
    """Let signals that raise Stopped end the process directly again, as in any program."""
    for number in ENDING if WARNING is None else (*ENDING, WARNING):
        if signal.getsignal(number) is raise_stopped:
            signal.signal(number, signal.SIG_DFL)


def name_of(number: int) -> str:
    """Return the name of a signal for messages: SIGTERM; for a closed pipe, a sentence."""
    return "The output is closed" if number == PIPE else signal.Signals(number).name


def status_of(number: int) -> int:
    """Return the exit status of a program that a signal ended; a warning counts as success."""
    return 0 if number == WARNING else 128 + number
