"""Signs of life: how a training's processes notice that another one is lost, and which one.

A collective operation waits without limit, since the others may be slow for good reasons. When it
fails, it does not tell which process caused this. So each process sends all others a datagram twice
a second. A process that is silent for too long is lost: killed, stopped, or cut off.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from dataclasses import dataclass

from deepcnn.shown import printable

BEAT = 0.5  # seconds from one sign to the next
LOST = 30  # beats of silence after which a process is given up
SUSPECT = 4  # beats of silence that are enough once an operation with it has failed
GRACE = 4  # beats for a process that knows of a loss to end by itself
_LARGEST = 4096  # bytes of a datagram
_MOST = 10_000  # datagrams that are looked at in a beat


@dataclass(frozen=True)
class Peer:
    """Another process: its rank, its name in errors, and the address where it listens."""

    rank: int
    name: str
    address: tuple[str, int]


class Signs:
    """Sends signs of life to all peers from a thread, and listens to theirs.

    Silence is counted in this thread's own beats, not in seconds. So nobody is lost when a machine
    sleeps, or when a job is stopped and continued as a whole. A peer that was never heard, for
    example behind a firewall, is never given up. When a peer is given up, this process ends, since
    it would wait for ever.

    `token` separates the datagrams of other jobs. `parent`: end, too, when this is no longer the
    parent process, since then nobody looks after this process any more.
    """

    def __init__(
        self, own: socket.socket, rank: int, peers: list[Peer], token: str, parent: int | None
    ) -> None:
        self._socket = own
        self._socket.setblocking(False)
        self._rank = rank
        self._peers = {peer.rank: peer for peer in peers}
        self._addresses = {peer.rank: peer.address for peer in peers}
        self._token = token
        self._parent = parent
        self._silence: dict[int, int] = {}  # beats, of those who were heard
        self._stopped: dict[int, str] = {}  # why they left: in error, or "" when all was done
        self._changed = threading.Condition()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="signs of life", daemon=True)
        self._thread.start()

    def whom_to_blame(self, beats: int = 2 * SUSPECT) -> str | None:
        """Wait until it is clear which process is lost, and return it in words; None if none is."""
        with self._changed:
            for _ in range(beats):
                if blamed := self._lost(SUSPECT):
                    return blamed
                self._changed.wait(4 * BEAT)  # for a beat of the thread, which may come late
            return self._lost(SUSPECT)

    def reason_of(self, rank: int, beats: int = SUSPECT) -> str | None:
        """Wait for the farewell of a peer, and return why it left in error."""
        with self._changed:
            for _ in range(beats):
                if rank in self._stopped:
                    break
                self._changed.wait(BEAT)
            return self._stopped.get(rank)

    def fall_silent(self) -> None:
        """Stop sending and listening silently, as if this process were killed."""
        self._end.set()
        self._thread.join()

    def leave(self, reason: str = "") -> None:
        """Tell the others that this process ends: in error, or well if there is no reason."""
        self.fall_silent()
        for _ in range(3):  # a datagram may get lost
            self._send(reason)
        self._socket.close()

    def _lost(self, beats: int) -> str | None:
        for rank, reason in self._stopped.items():
            if reason:
                return f"{self._peers[rank].name} stopped: {reason}"
        for rank, silence in self._silence.items():
            if silence >= beats and rank not in self._stopped:
                return (
                    f"{self._peers[rank].name} is lost: no sign of life for "
                    f"{silence * BEAT:.0f} s (killed, stopped, or cut off)"
                )
        return None

    def _send(self, farewell: str | None = None) -> None:
        message = json.dumps(
            [self._token, self._rank, farewell and farewell[:1000], farewell is None]
        )
        for address in self._addresses.values():
            try:
                self._socket.sendto(message.encode(), address)
            except OSError:  # no way there now; the other end counts
                continue

    def _hear(self) -> None:
        heard: set[int] = set()
        for _ in range(_MOST):
            try:
                datagram, sender = self._socket.recvfrom(_LARGEST)
                token, rank, farewell, lives = json.loads(datagram)
            except BlockingIOError:
                break
            except (OSError, ValueError, TypeError, RecursionError):  # not from one of ours
                continue
            if token == self._token and rank in self._peers:
                heard.add(rank)
                self._addresses[rank] = sender  # some machines know themselves by 127.0.1.1 only
                if not lives:
                    self._stopped[rank] = farewell or ""
        for rank in heard:
            self._silence[rank] = 0
        for rank in self._silence.keys() - heard:
            self._silence[rank] += 1

    def _run(self) -> None:
        self._send()  # at once: whoever falls silent in the first beat has been heard by then
        given_up = 0
        while not self._end.wait(BEAT):
            self._send()
            with self._changed:
                self._hear()
                self._changed.notify_all()
                blamed = self._lost(LOST)
            if self._parent is not None and os.getppid() != self._parent:
                end_process(f"rank {self._rank}: the process that started this one has ended")
            if blamed is not None:
                given_up += 1
                if given_up > GRACE:
                    end_process(f"rank {self._rank}: {blamed}. {ADVICE}")


ADVICE = (
    "All up to the newest checkpoint is kept: go on with --resume, or let torchrun do it with "
    "--max-restarts."
)


def end_process(message: str) -> None:
    """End this process; its main thread may be in an operation that never returns."""
    # Nobody is left who could be told otherwise.
    sys.stderr.write(f"deepcnn: {printable(message)}\n")
    sys.stderr.flush()
    os._exit(1)
