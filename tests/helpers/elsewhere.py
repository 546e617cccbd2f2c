"""A folder behind HTTP on this machine, whose server may be slow, break off and lie.

With TLS, the server has a certificate that nobody else has signed, for 127.0.0.1 alone. It is worth
nothing elsewhere, so its key lies beside it, in `loopback.pem`; openssl made both, in the main by

    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=127.0.0.1
        -addext subjectAltName=IP:127.0.0.1 -addext keyUsage=critical,digitalSignature,keyCertSign
"""

from __future__ import annotations

import http.server
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typing_extensions import override

CERTIFICATE = Path(__file__).with_name("loopback.pem")

Answer = Callable[["Handler", bytes], None]  # answers a request for a file of that content


class Server(http.server.ThreadingHTTPServer):
    """Serves the files of `folder`; for some names, so many times, another answer is given."""

    daemon_threads = True

    def __init__(self, folder: Path, *, tls: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "https" if tls else "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            # The handshake is made by the thread that answers, when it first reads.
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self.folder = folder
        self.asked: Counter[str] = Counter()  # requests, by name
        self.ranges: list[str | None] = []
        self.answers: dict[str, list[Answer]] = {}

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}/"

    @override
    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that hang up."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked[name] += 1
        self.server.ranges.append(self.headers.get("Range"))
        path = self.server.folder / name
        if not path.is_file():
            self.send_error(404, "secret-reason")
            return
        waiting = self.server.answers.get(name)
        (waiting.pop(0) if waiting else honest)(self, path.read_bytes())

    def begin(self, length: int | None, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    @override
    def log_message(self, *_: Any) -> None:
        pass


def honest(handler: Handler, content: bytes) -> None:
    asked = handler.headers.get("Range")
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
    end = f"bytes {start}-{len(content) - 1}/{len(content)}"
    handler.begin(
        len(content) - start, 206 if asked else 200, **({"Content_Range": end} if asked else {})
    )
    handler.wfile.write(content[start:])


def without_ranges(handler: Handler, content: bytes) -> None:
    handler.begin(len(content))
    handler.wfile.write(content)


def slow(handler: Handler, content: bytes) -> None:
    handler.begin(len(content))
    for start in range(0, len(content), -(-len(content) // 8)):
        handler.wfile.write(content[start : start - (-len(content) // 8)])
        time.sleep(0.02)


def trickling(handler: Handler, content: bytes) -> None:
    """Send a byte now and then, for ever: no single wait is long."""
    handler.begin(len(content))
    for at in range(len(content)):
        handler.wfile.write(content[at : at + 1])
        time.sleep(0.02)


def silent(handler: Handler, content: bytes) -> None:
    handler.begin(len(content))
    handler.wfile.flush()
    time.sleep(0.6)


def breaking_off(handler: Handler, content: bytes) -> None:
    handler.begin(len(content))
    handler.wfile.write(content[: len(content) // 2])


def declaring_less(handler: Handler, content: bytes) -> None:
    handler.begin(len(content) - 10)
    handler.wfile.write(content)


def declaring_more(handler: Handler, content: bytes) -> None:
    handler.begin(len(content) + 10)
    handler.wfile.write(content)


def endless(handler: Handler, content: bytes) -> None:
    """Declare nothing, and send until the other hangs up."""
    handler.begin(None)
    while True:
        handler.wfile.write(content)


def other_bytes(handler: Handler, content: bytes) -> None:
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    handler.begin(len(content))
    handler.wfile.write(changed)


def busy(handler: Handler, content: bytes) -> None:
    handler.begin(0, 503)


def leading_to(place: str) -> Answer:
    def answer(handler: Handler, content: bytes) -> None:
        handler.begin(0, 302, Location=place)

    return answer


@contextmanager
def serving(folder: Path, *, tls: bool = False) -> Iterator[Server]:
    with Server(folder, tls=tls) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
