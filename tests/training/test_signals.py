"""Signals that ask a training to stop: the first is noted, the second does what it always did."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from deepcnn.training.signals import stop_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_does_what_it_always_did(
    number: signal.Signals,
) -> None:
    received: list[int] = []
    before = signal.signal(number, lambda found, _: received.append(found))
    try:
        handler = signal.getsignal(number)
        with stop_signals(patient=False) as stopping:
            assert not stopping.is_set()
            os.kill(os.getpid(), number)
            assert stopping.is_set()
            assert received == []
            os.kill(os.getpid(), number)
            assert received == [number]
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)


def test_where_a_launcher_looks_after_the_process_a_second_signal_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals(patient=True) as stopping:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.is_set()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("patient", [False, True])
def test_after_an_error_signals_are_the_callers_again_unless_a_launcher_sends_one(
    patient: bool,
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(KeyError), stop_signals(patient=patient):
            raise KeyError
        assert (signal.getsignal(signal.SIGTERM) is before) == (not patient)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_than_the_first_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def other() -> None:
        with stop_signals(patient=False) as stopping:
            seen.extend([signal.getsignal(signal.SIGTERM), stopping.is_set()])

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [before, False]
