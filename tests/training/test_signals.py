"""Signals that ask a training to stop: the first is noted, the second does what it always did."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from deepcnn.events import Event, Noted
from deepcnn.stopping import Stopped, raise_stopped, status_of
from deepcnn.training.signals import Stop, one_of

EACH = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


@pytest.mark.parametrize("number", EACH)
def test_the_first_signal_is_noted_and_the_second_does_what_it_always_did(
    number: signal.Signals,
) -> None:
    received: list[int] = []
    before = signal.signal(number, lambda found, _: received.append(found))
    try:
        handler = signal.getsignal(number)
        stop = Stop()
        with stop.heard(patient=False):
            assert not stop.asked()
            os.kill(os.getpid(), number)
            assert stop.asked()
            assert stop.number == number
            assert received == []
            os.kill(os.getpid(), number)
            assert received == [number]
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)


def test_the_programs_own_handler_raises_once_and_then_the_system_ends_the_process() -> None:
    before = signal.signal(signal.SIGTERM, raise_stopped)
    try:
        stop = Stop()
        with stop.heard(patient=False):
            os.kill(os.getpid(), signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.signal(signal.SIGTERM, raise_stopped)
        with pytest.raises(Stopped) as raised:
            os.kill(os.getpid(), signal.SIGTERM)
        assert raised.value.number == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_hangup_that_nohup_ignores_stops_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = Stop()
        with stop.heard(patient=False):
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_where_a_launcher_looks_after_the_process_a_second_signal_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = Stop()
    with stop.heard(patient=True):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("patient", [False, True])
def test_after_an_error_signals_are_the_callers_again_unless_a_launcher_sends_one(
    patient: bool,
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(KeyError), Stop().heard(patient=patient):
            raise KeyError
        assert (signal.getsignal(signal.SIGTERM) is before) == (not patient)
    finally:
        for number in EACH:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_than_the_first_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def other() -> None:
        stop = Stop()
        with stop.heard(patient=False):
            seen.extend([signal.getsignal(signal.SIGTERM), stop.asked()])

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [before, False]


def test_time_that_is_over_asks_to_stop() -> None:
    stop = Stop(limit=0.05)
    assert not stop.asked()
    time.sleep(0.06)
    assert stop.asked()
    assert stop.number is None


def test_a_closed_pipe_asks_to_stop_once_there_are_steps_to_save() -> None:
    heard: list[Event] = []

    def closed(event: Event) -> None:
        heard.append(event)
        raise BrokenPipeError

    stop = Stop()
    tell = stop.listener(closed)
    with pytest.raises(BrokenPipeError):
        tell(Noted("before"))
    assert not stop.asked()
    with stop.heard(patient=False):
        tell(Noted("first"))
        tell(Noted("second"))
        assert stop.number == 13
    assert heard == [Noted("before"), Noted("first")]


def test_of_several_signals_the_one_that_ends_counts() -> None:
    assert one_of([None, None]) is None
    assert one_of([None, signal.SIGUSR1]) == signal.SIGUSR1
    assert one_of([signal.SIGTERM, signal.SIGUSR1, None]) == signal.SIGTERM
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, 13, signal.SIGUSR1]
    assert [*map(status_of, numbers)] == [143, 130, 129, 141, 0]
