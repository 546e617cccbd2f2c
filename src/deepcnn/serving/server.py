"""Runs the application on a socket until it is told to stop."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from deepcnn.errors import ConfigError
from deepcnn.serving.app import is_loopback
from deepcnn.serving.connection import connection_with
from deepcnn.serving.limits import Limits

_BACKLOG = 128  # connections that wait to be accepted
_LAST_SECONDS = 30  # for what is under way when the server is told to stop


def bound(host: str, port: int, *, anywhere: bool) -> socket.socket:
    """Return a socket bound to an address; it does not listen yet.

    `anywhere`: also allow addresses that other machines can reach. Raises ConfigError.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host}: there is no such address ({error})") from error
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    if not anywhere and not is_loopback(str(address[0])):
        raise ConfigError(
            f"--host {host} can be reached from other machines: choose a --token that requests "
            "must bear, or stay at 127.0.0.1"
        )
    made = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":  # where it would let two servers take one port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        raise _taken(host, port, error) from error
    return made


def listen(bound_to: socket.socket) -> str:
    """Let a socket accept connections, and return the address to open in a browser."""
    host, port = bound_to.getsockname()[:2]
    try:
        bound_to.listen(_BACKLOG)
    except OSError as error:
        raise _taken(host, port, error) from error
    if ipaddress.ip_address(host).is_unspecified:  # all addresses of this machine
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _taken(host: str, port: int, error: OSError) -> ConfigError:
    return ConfigError(
        f"{host}, port {port}: cannot be used ({error.strerror or error}). End what uses it, or "
        "choose another --port; 0 takes one that is free."
    )


def run(app: Starlette, at: socket.socket, limits: Limits, *, verbose: bool = False) -> None:
    """Answer requests until SIGINT or SIGTERM, then finish those under way, and return.

    `verbose`: print a line on standard error for each request.
    """
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=connection_with(limits),
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=verbose,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_LAST_SECONDS,
        )
    )
    with _logged(verbose), _stopped_by_signals(server):
        server.run(sockets=[at])


@contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into a request to stop, from here to the end.

    The server handles both signals while it runs, and raises them again at its end. There they
    would end the process with a failure.
    """

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        server.should_exit = True

    if threading.current_thread() is not threading.main_thread():  # which signals do not reach
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _logged(verbose: bool) -> Iterator[None]:
    """Print errors of the server and, if wanted, each request on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    # What they say of lower levels is about garbage that peers send.
    levels = dict.fromkeys(("uvicorn.error", "asyncio", "python_multipart"), logging.ERROR)
    if verbose:
        levels["uvicorn.access"] = logging.INFO
    loggers = [logging.getLogger(name) for name in levels]
    before = [(each, each.level, each.propagate) for each in loggers]
    for each in loggers:
        each.addHandler(handler)
        each.propagate = False
        each.setLevel(levels[each.name])
    try:
        yield
    finally:
        for each, level, propagate in before:
            each.removeHandler(handler)
            each.propagate = propagate
            each.setLevel(level)
