"""Requests as no honest client sends them, and what is left of a server after them.

    python -m tests.serving.garbage RUN --seconds 600 --seed 1

Starts `deepcnn serve` on loopback, throws garbage at it from some threads, and prints what was
answered and how its memory, threads and open files grew. It ends with status 1 where something was
wrong: an error on the server's standard error, an answer of status 500, growth, or a good request
that is no longer answered.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import random
import socket
import struct
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.serving.process import Server

# What a server may hold more after all than after the first tenth.
READERS = 4  # threads that decode, which begin when they are needed
MEGABYTES = 100
WORDS = [
    b"GET", b"POST", b"PUT", b"PRI * HTTP/2.0", b" ", b"/", b"/predict", b"/health", b"HTTP/1.1",
    b"HTTP/1.0", b"HTTP/9.9", b"\r\n", b"\r\n\r\n", b"\n", b"\0", b"Host: localhost\r\n",
    b"Host: \r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n", b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n",
    b"ffffffffffffffff\r\n", b"Authorization: Basic !\r\n",
    b"Content-Type: multipart/form-data\r\n",
    b"Content-Type: multipart/form-data; boundary=x\r\n", b"Content-Type: application/json\r\n",
    b"Content-Type: \xff\xfe;;;=\"\r\n", b"--x\r\n", b"--x--", b'{"images": [', b'"', b"]}",
]  # fmt: skip


def small_png() -> bytes:
    """Return a picture that can be read."""
    file = io.BytesIO()
    Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3)).save(file, "PNG")
    return file.getvalue()


SMALL_PNG = small_png()


class Thrower:
    """One that sends garbage; the same seed sends the same, as far as the server plays along."""

    def __init__(self, port: int, seed: str, slowness: float) -> None:
        self.answers: Counter[str] = Counter()
        self._port = port
        self._random = random.Random(seed)
        self._slowness = slowness  # seconds that a slow sender pauses at most
        self._kinds: list[Callable[[], None]] = [
            self.by_chance, self.words, self.damaged_request, self.damaged_pictures, self.slow,
            self.half_closed, self.reset, self.pipelined, self.unread, self.large,
        ]  # fmt: skip

    def throw(self) -> None:
        """Send something of one kind, and count what comes back."""
        kind = self._random.choice(self._kinds)
        # The server may close, reset or fall silent at any time; all that is its right.
        with contextlib.suppress(OSError):
            kind()

    # Kinds

    def by_chance(self) -> None:
        """Bytes by chance."""
        self._send(self._random.randbytes(self._random.randrange(1, 5000)))

    def words(self) -> None:
        """Words of the protocol in any order."""
        self._send(b"".join(self._random.choices(WORDS, k=self._random.randrange(1, 40))))

    def damaged_request(self) -> None:
        """A good request with some bytes changed, lost or doubled."""
        self._send(self._damaged(self._request()))

    def damaged_pictures(self) -> None:
        """A good request about damaged pictures."""
        self._send(self._request(self._damaged(SMALL_PNG)))

    def slow(self) -> None:
        """A request in small pieces."""
        whole = self._request()
        with self._connected() as peer:
            for _ in range(self._random.randrange(1, 8)):
                size = self._random.randrange(1, 200)
                peer.sendall(whole[:size])
                whole = whole[size:]
                time.sleep(self._random.random() * self._slowness)
            self._count(peer)

    def half_closed(self) -> None:
        """A request that ends anywhere, from one who still listens."""
        whole = self._request()
        with self._connected() as peer:
            peer.sendall(whole[: self._random.randrange(len(whole) + 1)])
            peer.shutdown(socket.SHUT_WR)
            self._count(peer)

    def reset(self) -> None:
        """A request whose sender vanishes."""
        whole = self._request()
        with self._connected() as peer:
            peer.sendall(whole[: self._random.randrange(len(whole) + 1)])
            if self._random.random() < 0.5:
                time.sleep(self._random.random() * 0.02)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def pipelined(self) -> None:
        """Several requests without waiting, garbage among them."""
        some = [self._request() for _ in range(self._random.randrange(2, 6))]
        if self._random.random() < 0.5:
            some.insert(self._random.randrange(len(some)), self._damaged(self._request()))
        self._send(b"".join(some))

    def unread(self) -> None:
        """Many requests from one who reads no answer."""
        with self._connected() as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
            time.sleep(self._random.random() * self._slowness)

    def large(self) -> None:
        """More than may be sent, with and without saying so."""
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
        size = 20 * 2**20
        if self._random.random() < 0.5:
            head += b"Content-Length: %d\r\n\r\n" % size
        else:
            head += b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size
        with self._connected() as peer:
            peer.sendall(head)
            peer.sendall(bytes(self._random.randrange(size)))
            self._count(peer)

    # Parts

    def _request(self, picture: bytes = SMALL_PNG) -> bytes:
        kind, body = self._random.choice([self._raw, self._form, self._json])(picture)
        close = b"Connection: close\r\n" if self._random.random() < 0.5 else b""
        return (
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\n%sContent-Type: %s\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (close, kind, len(body), body)
        )

    def _raw(self, picture: bytes) -> tuple[bytes, bytes]:
        return b"image/png", picture

    def _form(self, picture: bytes) -> tuple[bytes, bytes]:
        head = b'--x\r\nContent-Disposition: form-data; name="a"; filename="b.png"\r\n\r\n'
        part = head + picture + b"\r\n"
        return b"multipart/form-data; boundary=x", part * self._random.randrange(1, 80) + b"--x--"

    def _json(self, picture: bytes) -> tuple[bytes, bytes]:
        texts = [base64.b64encode(picture).decode()] * self._random.randrange(1, 80)
        return b"application/json", json.dumps({"images": texts}).encode()

    def _damaged(self, whole: bytes) -> bytes:
        damaged = bytearray(whole)
        for _ in range(self._random.randrange(1, 10)):
            place = self._random.randrange(len(damaged) + 1)
            end = place + self._random.randrange(1, 30)
            how = self._random.randrange(3)
            if how == 0:
                damaged[place : place + 1] = self._random.randbytes(1)
            elif how == 1:
                del damaged[place:end]
            else:
                damaged[place:place] = damaged[place:end]
        return bytes(damaged)

    def _connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), 2)

    def _send(self, content: bytes) -> None:
        with self._connected() as peer:
            peer.sendall(content)
            if self._random.random() < 0.5:
                peer.shutdown(socket.SHUT_WR)
            self._count(peer)

    def _count(self, peer: socket.socket) -> None:
        peer.settimeout(0.5)
        found = b""
        with contextlib.suppress(TimeoutError):
            while piece := peer.recv(1 << 16):
                found += piece
        for line in found.splitlines():
            if line.startswith(b"HTTP/1.1 "):
                self.answers[line[9:12].decode(errors="replace")] += 1


def throw_garbage(
    server: Server, *, seconds: float, most: int, threads: int, seed: int, patience: float
) -> dict[str, Any]:
    """Throw garbage for some seconds, at most so many pieces, and return what became of it.

    `patience`: seconds that the server may take to let go of a peer.
    """
    port = server.port()
    throwers = [Thrower(port, f"{seed}-{i}", patience / 100) for i in range(threads)]
    thrown = 0

    def work(thrower: Thrower, until: float, count: int) -> None:
        nonlocal thrown
        for _ in range(count):
            if time.monotonic() > until:
                return
            thrower.throw()
            thrown += 1  # a figure to print, which need not be exact

    def all_work(seconds: float, count: int) -> None:
        until = time.monotonic() + seconds
        some = [
            threading.Thread(target=work, args=(thrower, until, count // threads))
            for thrower in throwers
        ]
        for thread in some:
            thread.start()
        for thread in some:
            thread.join()

    fewest = at_rest(server, port, 1.0, 0)["descriptors"]
    all_work(seconds / 10, most // 10)  # after which a server has all that it will need
    before = at_rest(server, port, patience, fewest)
    all_work(seconds * 9 / 10, most * 9 // 10)
    after = at_rest(server, port, patience, fewest)
    answers = sum((thrower.answers for thrower in throwers), Counter[str]())
    return {
        "thrown": thrown,
        "answers": dict(sorted(answers.items())),
        "before": before,
        "after": after,
        "wrong": what_is_wrong(server, answers, before, after),
    }


def at_rest(server: Server, port: int, patience: float, descriptors: int) -> dict[str, Any]:
    """Return what the server holds once it has let go of all peers, and answered a good request.

    `patience`: seconds that this may take, until it has so few `descriptors` as before.
    """
    request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", SMALL_PNG)
    with urllib.request.urlopen(request, timeout=60) as response:
        label = json.load(response)["label"]
    end = time.monotonic() + patience
    while server.descriptors() > descriptors and time.monotonic() < end:
        time.sleep(0.1)
    return {
        "descriptors": server.descriptors(),
        "threads": server.threads(),
        "megabytes": round(server.megabytes(), 1),
        "label": label,
    }


def what_is_wrong(
    server: Server, answers: Counter[str], before: dict[str, Any], after: dict[str, Any]
) -> list[str]:
    """Return what a good server would not have done."""
    found = []
    if server.err:
        found.append(f"standard error: {server.err[:5000]}")
    if answers["500"]:
        found.append("answers of status 500")
    for name, growth in (("descriptors", 0), ("threads", READERS), ("megabytes", MEGABYTES)):
        if after[name] > before[name] + growth:
            found.append(f"{name}: {before[name]}, then {after[name]}")
    return found


def main() -> int:
    """Start a server, throw garbage at it, and print what became of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), str(options.run.resolve()))
        try:
            found = throw_garbage(
                server,
                seconds=options.seconds,
                most=sys.maxsize,
                threads=options.threads,
                seed=options.seed,
                patience=40,
            )
            status = server.stop()
        finally:
            server.kill()
    print(json.dumps(found | {"exit status": status, "seconds": options.seconds}))
    return int(bool(found["wrong"]) or status != 0)


if __name__ == "__main__":
    sys.exit(main())
