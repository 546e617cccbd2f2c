"""Signs of life, without the processes: two ends in one."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator

import pytest

from deepcnn.team import signs
from deepcnn.team.signs import Peer, Signs
from tests.helpers.waiting import wait_for


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make all quick, and collect the messages of processes that would have ended."""
    messages: list[str] = []
    monkeypatch.setattr(signs, "BEAT", 0.1)
    monkeypatch.setattr(signs, "LOST", 10)
    monkeypatch.setattr(signs, "end_process", messages.append)
    return messages


class Ends:
    """Sockets of two processes and the signs of life that go from one to the other."""

    def __init__(self) -> None:
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for one in self.sockets:
            one.bind(("127.0.0.1", 0))
        self.made: list[Signs] = []

    def signs(self, rank: int, parent: int | None = None) -> Signs:
        peer = Peer(1 - rank, f"the {1 - rank}", self.sockets[1 - rank].getsockname())
        self.made.append(Signs(self.sockets[rank], rank, [peer], "token", parent))
        return self.made[-1]

    def send(self, message: object) -> None:
        """Send something to rank 0."""
        content = message if isinstance(message, bytes) else json.dumps(message).encode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(content, self.sockets[0].getsockname())

    def close(self) -> None:
        for one in self.made:
            one.leave()
        for each in self.sockets:
            each.close()


@pytest.fixture
def ends(exits: list[str]) -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


def test_silence_is_noticed(ends: Ends, exits: list[str]) -> None:
    here, there = ends.signs(0), ends.signs(1)
    assert here.whom_to_blame(20) is None  # both send: nobody is lost
    there.fall_silent()
    blamed = here.whom_to_blame()
    assert blamed is not None
    assert blamed.startswith("the 1 is lost: no sign of life for ")
    assert not exits
    assert wait_for(lambda: exits, 30)
    assert exits[0].startswith("rank 0: the 1 is lost: no sign of life for ")
    assert "--resume" in exits[0]


@pytest.mark.parametrize("phase", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_a_killed_process_is_blamed_whenever_one_asks(ends: Ends, phase: float) -> None:
    here, there = ends.signs(0), ends.signs(1)
    here.whom_to_blame(4)
    there.fall_silent()
    time.sleep(phase * signs.BEAT)
    assert here.whom_to_blame() is not None


def test_who_is_killed_in_the_first_beat_is_missed(ends: Ends) -> None:
    here, there = ends.signs(0), ends.signs(1)
    there.fall_silent()
    assert here.whom_to_blame() is not None


def test_a_farewell_tells_why(ends: Ends, exits: list[str]) -> None:
    here, there = ends.signs(0), ends.signs(1)
    assert here.reason_of(1) is None
    there.leave("the disk is full")
    assert here.whom_to_blame() == "the 1 stopped: the disk is full"
    assert here.reason_of(1) == "the disk is full"
    assert wait_for(lambda: exits, 30)
    assert exits[0].startswith("rank 0: the 1 stopped: the disk is full")


def test_who_leaves_when_all_is_done_is_not_missed(ends: Ends, exits: list[str]) -> None:
    here, there = ends.signs(0), ends.signs(1)
    here.whom_to_blame(4)
    there.leave()
    assert here.whom_to_blame(signs.LOST + signs.GRACE + 10) is None
    assert here.reason_of(1) == ""
    assert not exits


def test_other_datagrams_are_ignored(ends: Ends, exits: list[str]) -> None:
    here, there = ends.signs(0), ends.signs(1)
    here.whom_to_blame(4)
    for message in (
        b"",
        b"\xff\xfe\x00",
        b"{",
        b"x" * 60_000,
        None,
        7,
        [],
        ["token", 1],
        ["other", 1, "an error", False],
        [None, 1, "an error", False],
        ["token", 2, "an error", False],
        ["token", 0, "an error", False],
    ):
        ends.send(message)
    assert here.whom_to_blame(20) is None
    assert not exits
    there.fall_silent()
    for _ in range(20):  # nor do they count as a sign of life
        ends.send(["other", 1, None, True])
        ends.send(b"\x00")
        time.sleep(signs.BEAT)
    assert here.whom_to_blame() is not None


def test_who_was_never_heard_is_not_given_up(ends: Ends, exits: list[str]) -> None:
    here = ends.signs(0)
    assert here.whom_to_blame(signs.LOST + signs.GRACE + 10) is None
    assert not exits


def test_without_its_launcher_a_process_ends(ends: Ends, exits: list[str]) -> None:
    here = ends.signs(0, parent=os.getppid())
    assert here.whom_to_blame(4) is None
    assert not exits
    ends.signs(1, parent=os.getpid())
    assert wait_for(lambda: exits, 30)
    assert exits[0] == "rank 1: the process that started this one has ended"
