from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deepcnn.cli.arguments import parse
from deepcnn.cli.main import run as cli
from deepcnn.cli.serve import Options
from deepcnn.errors import ConfigError
from deepcnn.inference.as_json import as_json
from deepcnn.inference.classifier import Classifier
from deepcnn.serving import server as serving
from tests.serving.conftest import StartServer
from tests.serving.process import PATIENCE, Server

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
TOKEN = "a-token-of-some-length"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
TIMEOUT = 2.0  # seconds that the patient server waits


@pytest.fixture(scope="module")
def patient(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that soon gives slow peers up."""
    server = Server(tmp_path_factory.mktemp("patient"), str(run), "--timeout", str(TIMEOUT))
    server.address()
    yield server
    server.kill()


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port()), PATIENCE)


def received(peer: socket.socket) -> bytes:
    """Return all that comes until the server closes."""
    found = b""
    try:
        while piece := peer.recv(1 << 16):
            found += piece
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_until_a_signal_and_finishes_what_is_under_way(
    serve: StartServer,
    classifier: Classifier,
    pictures: list[bytes],
    number: signal.Signals,
) -> None:
    server = serve("--token", TOKEN)
    address = server.address()
    assert httpx.get(address).status_code == 401
    answer = httpx.post(f"{address}/predict", content=pictures[0], headers=BEARER)
    (expected,) = classifier.predict(pictures[0])
    assert answer.json() == as_json(expected, classifier.classes)  # alone, so bit for bit
    head = HEAD[:-2] + f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
    with connected(server) as peer:
        peer.sendall(head % len(pictures[0]) + pictures[0][:100])
        time.sleep(0.2)
        server.process.send_signal(number)
        wait_until_it_refuses(server)
        peer.sendall(pictures[0][100:])
        assert received(peer).startswith(b"HTTP/1.1 200 ")
    assert server.process.wait(PATIENCE) == 0
    assert server.err == ""
    assert server.out.count("\n") == 2


def wait_until_it_refuses(server: Server) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            connected(server).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:  # it closed its socket while this one waited to be accepted
            continue
    raise AssertionError("it still listens")


def test_what_is_not_said_is_found_and_requests_are_told_where_it_is_wished(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPCNN_TOKEN", TOKEN)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(run)
    server = Server(tmp_path, "--verbose")
    try:
        address = server.address()
        assert server.out.startswith(f"Answers come from {Path('runs/mine')}: ")
        assert httpx.get(address).status_code == 401
        assert httpx.get(f"{address}/?a=%0Ab", headers=BEARER).status_code == 200
        assert server.stop() == 0
    finally:
        server.kill()
    chosen, refused, answered = server.err.splitlines()
    assert "runs/mine" in chosen
    assert refused.endswith('"GET / HTTP/1.1" 401')
    assert answered.endswith('"GET /?a=%0Ab HTTP/1.1" 200')
    assert TOKEN not in server.out + server.err


def test_a_port_in_use_is_one_clear_line(serve: StartServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = serve("--port", str(port))
        assert server.process.wait(PATIENCE) == 1
    assert server.err.startswith(f"deepcnn: 127.0.0.1, port {port}: cannot be used (Address ")
    assert server.err.count("\n") == 1


def test_other_machines_are_let_in_only_with_a_token(run: Path) -> None:
    with pytest.raises(ConfigError, match="--token"):
        cli(["serve", str(run), "--host", "0.0.0.0", "--port", "0"])
    with pytest.raises(ConfigError, match="no such address"):
        cli(["serve", str(run), "--host", "no such host", "--port", "0"])
    with serving.bound("0.0.0.0", 0, anywhere=True):
        pass
    for host in ("127.0.0.1", "localhost", "127.3.4.5"):
        with serving.bound(host, 0, anywhere=False) as at:
            assert at.family == socket.AF_INET
            assert serving.listen(at) == f"http://{at.getsockname()[0]}:{at.getsockname()[1]}/"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "65536"], "--port: expected 0 to 65535"),
        (["--token", "short"], "at least 8 signs"),
        (["--token", "with spaces in it"], "without spaces"),
        (["--token", ""], "at least 8 signs"),
        (["--max-waiting", "0"], "--max-waiting: expected more than 0"),
        (["--timeout", "-1"], "--timeout: expected more than 0"),
        (["--cors", "example.org"], "--cors: expected an origin"),
        (["--cors", "https://example.org/"], "--cors: expected an origin"),
        (["--cors", "https://a.example", "--cors", "b.example"], "expected an origin.*'b.example'"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    run: Path, options: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        cli(["serve", str(run), *options])


def test_the_run_may_follow_a_site() -> None:
    options = parse("serve", Options, ["--cors", "https://a.example", "run"])
    assert (options.run, options.cors) == (Path("run"), ("https://a.example",))


def test_a_missing_extra_is_one_line_with_the_command(run: Path) -> None:
    script = """
import sys
sys.modules["starlette"] = sys.modules["python_multipart"] = None
from deepcnn.cli.main import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "serve", str(run), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    expected = "serve needs starlette and python_multipart: pip install 'deepcnn[serve]'"
    assert done.stderr == f"deepcnn: {expected}\n"


# Slow and odd peers


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /pre",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-Wait: ",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
    ],
    ids=["nothing", "half a line", "half a head", "half a second request"],
)
def test_a_head_must_come_in_time(patient: Server, sent: bytes) -> None:
    with connected(patient) as peer:
        peer.sendall(sent)
        began = time.monotonic()
        received(peer)
        assert time.monotonic() - began < PATIENCE / 2


@pytest.mark.parametrize("length", [1000, 2**40], ids=["awaited", "refused"])
def test_a_body_must_come_in_time(patient: Server, length: int) -> None:
    with connected(patient) as peer:
        peer.sendall(HEAD % length)
        peer.settimeout(0.1)
        found, end = b"", time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                peer.sendall(b"x")  # drop by drop, which is no silence
                piece = peer.recv(1000)
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                break
            if not piece:
                break
            found += piece
        assert time.monotonic() < end
        assert found.startswith(b"HTTP/1.1 408 " if length == 1000 else b"HTTP/1.1 413 ")


def test_who_does_not_read_is_given_up(patient: Server) -> None:
    with connected(patient) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000
        peer.settimeout(0.1)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                peer.sendall(asked)
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                break
        assert time.monotonic() < end


def test_who_asks_now_and_then_is_not_given_up(patient: Server) -> None:
    with httpx.Client(base_url=patient.address()) as client:
        ports = set()
        for _ in range(6):
            response = client.get("/health")
            ports.add(response.extensions["network_stream"].get_extra_info("client_addr"))
            time.sleep(TIMEOUT / 4)
        assert len(ports) == 1  # all over one connection


def test_who_closes_its_own_direction_is_answered(patient: Server, pictures: list[bytes]) -> None:
    with connected(patient) as peer:
        peer.sendall(HEAD % len(pictures[0]) + pictures[0])
        peer.shutdown(socket.SHUT_WR)
        assert received(peer).startswith(b"HTTP/1.1 200 ")
    with connected(patient) as peer:
        peer.sendall(HEAD % len(pictures[0]) + pictures[0][:-1])
        peer.shutdown(socket.SHUT_WR)
        assert received(peer) == b""


def test_more_connections_than_may_be_are_told_so(run: Path, tmp_path: Path) -> None:
    script = """
import sys, deepcnn
from deepcnn.serving import server
from deepcnn.serving.app import Access, make_app
from deepcnn.serving.limits import Limits
from deepcnn.serving.page import Page
from deepcnn.serving.service import Service

limits = Limits(connections=3)
service = Service(deepcnn.load(sys.argv[1]), limits, "run")
with server.bound("127.0.0.1", 0, anywhere=False) as at:
    print("Open", server.listen(at), "now", flush=True)
    server.run(make_app(service, Page.upload("a test"), Access()), at, limits)
service.close()
"""
    server = Server(tmp_path, str(run), program=("-c", script))
    try:
        address = server.address()
        peers = [connected(server) for _ in range(3)]
        time.sleep(0.2)
        with connected(server) as one_more:
            assert received(one_more).startswith(b"HTTP/1.1 503 ")
        peers.pop().close()
        time.sleep(0.2)
        assert httpx.get(f"{address}/health").status_code == 200
        for peer in peers:
            peer.close()
        assert server.stop() == 0
        assert server.err == ""
    finally:
        server.kill()


def test_nothing_that_peers_do_is_an_error_of_the_server(patient: Server) -> None:
    damaged = httpx.post(
        f"{patient.address()}/predict",
        content=b"--x\r\n;;;\r\n",  # of which the parser of forms warns
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert damaged.status_code == 400
    with connected(patient) as peer:
        peer.sendall(b"no HTTP\r\n\r\n")  # of which uvicorn warns
        assert received(peer).startswith(b"HTTP/1.1 400 ")
    for path, status in ((b"/predict", b"400"), (b"/nowhere", b"404")):
        with connected(patient) as peer:
            peer.sendall(b"POST %s HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" % path)
            peer.sendall(b"Host: localhost\r\n\r\n5\r\nhello\r\n")
            time.sleep(0.2)  # after which the second has its answer already
            peer.sendall(b"no chunk\r\n")
            assert received(peer).startswith(b"HTTP/1.1 " + status)
    assert patient.err == ""  # nor was anything before in this module
