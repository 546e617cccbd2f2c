"""What a server shows, as Chromium sees it."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import deepcnn
from deepcnn.inference.load import open_trained
from deepcnn.inference.trained import Trained
from deepcnn.serving.page import Page
from tests.helpers.box import check_answered, choose, drop
from tests.helpers.browser import Browser
from tests.serving.conftest import StartServer
from tests.serving.process import PATIENCE, Server

TOKEN = "a-token-of-some-length"


class Sorted(nn.Module):
    """A network with an operation that no page knows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).sort(1)[0][:, :10]


@pytest.fixture(scope="module")
def picture(pictures: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "a picture.png"
    path.write_bytes(pictures[2])
    return path


def test_the_served_page_answers_by_itself_and_asks_nothing(
    browser: Browser, serve: StartServer, run: Path, picture: Path
) -> None:
    server = serve("--token", TOKEN)
    address = server.address().replace("http://", f"http://me:{TOKEN}@")
    with browser.page(address) as page:
        assert server.stop() == 0  # before it is asked
        (expected,) = deepcnn.load(run, device="cpu").predict(picture)
        for give in (drop, choose):
            page.run("document.getElementById('took').textContent = ''")
            give(page, picture)
            check_answered(page, expected)
        assert page.complaints() == []
    assert server.out.count("\n") == 2
    assert server.err == ""


def test_weights_in_a_file_have_a_page_too(run: Path, tmp_path: Path) -> None:
    weights = deepcnn.export(run, "safetensors", out=tmp_path / "net.safetensors").path
    (of_run, _), (of_file, _) = open_trained(run), open_trained(weights)
    page = Page.of(of_file)
    assert page == Page.of(of_run)
    assert page.sends_since is None
    assert 'id="weights"' in page.content


def test_where_no_page_can_answer_it_sends_pictures_and_says_why(run: Path) -> None:
    trained, _ = open_trained(run)
    odd = Trained(trained.config, trained.trained_on, Sorted(), 1, averaged=False, calibration=None)
    page = Page.of(odd)
    assert page.sends_since is not None
    assert "'sort'" in page.sends_since
    assert page == Page.upload(page.sends_since)
    assert "fetch(path" in page.content


SLOW = """
import socket
import numpy as np
from deepcnn.inference.classifier import Classifier
from deepcnn.serving import server
from deepcnn.serving.app import Access, make_app
from deepcnn.serving.limits import Limits
from deepcnn.serving.page import Page
from deepcnn.serving.service import Service

class Zeros:
    def logits(self, images):
        return np.zeros((len(images), 2), np.float32)

limits = Limits(seconds=SECONDS)
service = Service(Classifier(Zeros(), ("a", "b"), (4, 4, 3)), limits, "run")
with server.bound("127.0.0.1", 0, anywhere=False) as at:
    at.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)
    print("Open", server.listen(at), "now", flush=True)
    server.run(make_app(service, Page("x" * SIZE), Access()), at, limits)
service.close()
"""


def test_who_reads_a_large_page_slowly_gets_all_of_it(tmp_path: Path) -> None:
    """Few bytes of it wait at a time, so their number says little of what was read."""
    size, seconds = 3_000_000, 0.6
    script = SLOW.replace("SIZE", str(size)).replace("SECONDS", str(seconds))
    server = Server(tmp_path, program=("-c", script))
    try:
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
            peer.settimeout(PATIENCE)
            peer.connect(("127.0.0.1", server.port()))
            peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            began, found = time.monotonic(), 0
            while piece := peer.recv(1 << 16):
                found += len(piece)
                time.sleep(max(0.0, began + 4 * seconds * found / size - time.monotonic()))
        assert found > size
        assert server.stop() == 0
        assert server.err == ""
    finally:
        server.kill()
