"""The speed of `deepcnn serve` on loopback, beside the network that it asks.

The client runs beside the server, on the same cores, and takes its share of them. Each connection
sends its next request when it has the answer to the last. A picture is a PNG file of CIFAR-10's
test set.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import deepcnn
from deepcnn.data.formats.decoding import encode
from tools.comparison import Case

PRESET = "quick"
CONNECTIONS = (1, 8, 64)
PICTURES = 512
WARM_UP, SECONDS = 1.0, 10.0
METRICS = ("requests/s", "p50 ms", "p99 ms")
LOWER_IS_BETTER = tuple(f"{metric}, {n}" for n in CONNECTIONS for metric in METRICS[1:])


def train(folder: Path) -> None:
    """Train the network that answers: how many pictures it looks at again depends on that."""
    command = [sys.executable, "-m", "deepcnn", "train", PRESET, "--run-dir", str(folder / PRESET)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def served(folder: Path, seconds: float = SECONDS) -> dict[str, Any]:
    """Return requests a second and latencies of the server, by connections."""
    pictures = png_files()
    found: dict[str, Any] = {}
    with serving(folder / PRESET) as port:
        for connections in CONNECTIONS:
            load = Load(port, pictures)
            asyncio.run(load.last(connections, WARM_UP))
            latencies = asyncio.run(load.last(connections, seconds))
            found |= figures(latencies, len(latencies) / seconds, connections)
    return found | {"seeds": [0]}


def alone(folder: Path, seconds: float = SECONDS) -> dict[str, Any]:
    """Return the same of the network alone: as many pictures in a call as connections."""
    classifier = deepcnn.load(folder / PRESET)
    pictures = png_files()
    found: dict[str, Any] = {}
    for count in CONNECTIONS:
        starts = cycle(range(0, len(pictures), count))
        latencies: list[float] = []
        end = time.perf_counter() + WARM_UP
        while (began := time.perf_counter()) < end + seconds:
            first = next(starts)
            for _ in classifier.predict(pictures[first : first + count]):
                pass
            if began >= end:
                latencies.append(time.perf_counter() - began)
        found |= figures(latencies, count * len(latencies) / sum(latencies), count)
    return found | {"seeds": [0]}


def figures(latencies: list[float], a_second: float, connections: int) -> dict[str, float]:
    """Return the figures of some latencies in seconds."""
    percentiles = statistics.quantiles(latencies, n=100)
    values = (a_second, 1000 * percentiles[49], 1000 * percentiles[98])
    return {
        f"{metric}, {connections}": round(value, 2)
        for metric, value in zip(METRICS, values, strict=True)
    }


def png_files() -> list[bytes]:
    """Return pictures of CIFAR-10's test set as files."""
    images = deepcnn.load_dataset("cifar10", "test", emit=lambda _: None).images
    return [encode(image) for image in images[:PICTURES]]


@contextmanager
def serving(run: Path) -> Iterator[int]:
    """Start a server of a run, and give its port."""
    command = [sys.executable, "-m", "deepcnn", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            address = next(line for line in server.stdout if line.startswith("Open "))
            yield int(address.split()[1].rstrip("/").rpartition(":")[2])
        finally:
            server.terminate()
        if server.wait() != 0:
            raise RuntimeError(f"the server ended with status {server.returncode}")


class Load:
    """Connections to a server, each of which sends a picture after the other."""

    def __init__(self, port: int, pictures: list[bytes]) -> None:
        self.port = port
        self.requests = cycle(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
            % (len(picture), picture)
            for picture in pictures
        )
        self.latencies: list[float] = []

    async def last(self, connections: int, seconds: float) -> list[float]:
        """Ask for some seconds over some connections, and return how long each answer took."""
        self.latencies = []
        loop = asyncio.get_running_loop()
        ends = time.perf_counter() + seconds
        peers = [Peer(self, ends, loop.create_future()) for _ in range(connections)]
        for peer in peers:
            await loop.create_connection(lambda peer=peer: peer, "127.0.0.1", self.port)
        await asyncio.gather(*(peer.done for peer in peers))
        return self.latencies


class Peer(asyncio.Protocol):
    """A connection: the least of a client, so that it costs the server's cores little."""

    def __init__(self, load: Load, ends: float, done: asyncio.Future[None]) -> None:
        self.done = done
        self._load = load
        self._ends = ends
        self._answer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Send the next request once the answer is whole."""
        self._answer += data
        head, found, body = bytes(self._answer).partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            self.done.set_exception(RuntimeError(head.decode()))
            return
        now = time.perf_counter()
        self._load.latencies.append(now - self._began)
        if now < self._ends:
            self._ask()
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so where an answer was to come."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def _ask(self) -> None:
        self._answer.clear()
        self._began = time.perf_counter()
        self._transport.write(next(self._load.requests))


CASE = Case(
    what="answering about pictures over HTTP on loopback, beside the network alone",
    unit="requests/s, ms",
    contenders={"serve": served, "the network alone": alone},
    denominator="the network alone",
    lower_is_better=LOWER_IS_BETTER,
    prepare=train,
)
