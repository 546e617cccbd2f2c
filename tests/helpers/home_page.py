"""A stand-in for CIFAR-10 and for its home page: quick to fetch, to damage and to interrupt."""

from __future__ import annotations

import http.server
import io
import tarfile

import numpy as np

from deepcnn.data.catalog import CIFAR10
from deepcnn.data.formats import cifar


def tiny_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    names = [file.name for file in CIFAR10.files]
    return {
        name: cifar.TEN.encode(
            rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8), np.arange(4, dtype=np.int64)
        )
        for name in names
    }


def tiny_archive(files: dict[str, bytes], prefix: str = "cifar-10-batches-bin/") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`; breaks off after `limit` bytes of each of the first `failures` answers."""

    content = b""
    limit = 0
    failures = 0
    resumes = True
    ranges: list[str | None]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.ranges.append(wanted)
        start = int(wanted[6:-1]) if wanted and server.resumes else 0
        self.send_response(206 if start else 200)
        body = server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.failures:
            server.failures -= 1
            body = body[: server.limit]
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass
