"""The interface over HTTP, as an ASGI application."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deepcnn.serving.limits import SLOWEST, RefusedError
from deepcnn.serving.page import Page
from deepcnn.serving.service import Service

HEALTH = "/health"  # without a token it tells no more than that the server lives
_PIECE = 1 << 16  # bytes of the page that a connection holds, however slowly its peer reads
# Each in a header of its own: browsers read but one of a header, and know no Bearer.
_CHALLENGES = ('Basic realm="deepcnn", charset="UTF-8"', 'Bearer realm="deepcnn"')


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may ask.

    `token`: the secret that a request must carry. None: no secret is needed, but then a request
    must be addressed to `host` or another of this machine's own names. `origins`: of other sites
    whose pages may ask.
    """

    host: str = "localhost"
    token: str | None = None
    origins: tuple[str, ...] = ()


def make_app(service: Service, page: Page, access: Access) -> Starlette:
    """Return the application; the caller must close `service`."""
    content = page.content.encode()
    headers = page.headers | {"Content-Length": str(len(content))}

    async def show_page(_: Request) -> Response:
        return StreamingResponse(_pieces(content), media_type="text/html", headers=headers)

    async def tell_health(request: Request) -> Response:
        told = {"status": "ok"} | (service.about() if may_enter(request.headers, access) else {})
        return JSONResponse(told)

    async def predict(request: Request) -> Response:
        service.check_free()  # before the body is sent for nothing
        body = bytearray()
        try:
            await read_body(request, service, body)
            answer = await service.answer(request.headers.get("content-type", ""), bytes(body))
        finally:
            service.held.bytes -= len(body)
        return JSONResponse(answer.content, answer.status)

    cors = Middleware(
        CORSMiddleware,
        allow_origins=access.origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization", "Content-Type"),
    )
    return Starlette(
        routes=[
            Route("/", show_page),
            Route(HEALTH, tell_health),
            Route("/predict", predict, methods=["POST"]),
        ],
        middleware=[*([cors] if access.origins else []), Middleware(Guard, access=access)],
        exception_handlers={RefusedError: _refuse, HTTPException: _refuse_by_route},
    )


async def read_body(request: Request, service: Service, body: bytearray) -> None:
    """Append a request's body to `body`, and count it as held; raise RefusedError above a limit."""
    limits = service.limits
    too_large = RefusedError(413, f"expected at most {limits.bytes:,} bytes, found more")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.bytes:
        raise too_large
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(limits.seconds) as patience:
            async for piece in request.stream():
                body += piece
                service.held.take(len(piece))
                if len(body) > limits.bytes:
                    raise too_large
                patience.reschedule(began + limits.seconds + len(body) / SLOWEST)
    except TimeoutError as error:
        reason = f"the body came more slowly than {SLOWEST:,} bytes a second"
        raise RefusedError(408, reason, {"Connection": "close"}) from error
    except ClientDisconnect as error:  # nobody will hear it
        raise RefusedError(400, "the body ended early") from error


class Guard:
    """Lets in requests that may ask, and gives every answer the headers that protect browsers."""

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of HTTP."""
        begun = False

        async def send_protected(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "no-store")
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            app = self._refusal(Headers(scope=scope), scope["path"]) or self._app
            await app(scope, receive, send_protected)
        except asyncio.CancelledError:  # the server ends, and has waited long enough
            if not begun:
                await _error(503, "the server ends")(scope, receive, send_protected)

    def _refusal(self, headers: Headers, path: str) -> Response | None:
        if self._access.token is None:
            # A page from elsewhere can give its own name this machine's address, and would then
            # read all answers: what browsers ask under a foreign name is not answered.
            host = _host_in(headers.get("host", ""))
            if host not in ("", "localhost", self._access.host) and not is_loopback(host):
                return _error(421, "without a token only requests to localhost are answered")
        elif path != HEALTH and not may_enter(headers, self._access):
            refusal = _error(401, "expected the token")
            for challenge in _CHALLENGES:
                refusal.headers.append("WWW-Authenticate", challenge)
            return refusal
        return None


def may_enter(headers: Headers, access: Access) -> bool:
    """Tell whether a request has the token: as Bearer or, from browsers, as Basic's password."""
    if access.token is None:
        return True
    kind, _, given = headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    elif kind.lower() != "bearer":
        return False
    return secrets.compare_digest(given.strip().encode(), access.token.encode())


def is_loopback(address: str) -> bool:
    """Tell whether no other machine can reach an address; a name does not count as such."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _PIECE):
        yield content[start : start + _PIECE]


def _host_in(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return "?"


def _error(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": reason}, status, headers)


async def _refuse(_: Request, error: Any) -> Response:
    return _error(error.status, error.reason, error.headers)


async def _refuse_by_route(_: Request, error: Any) -> Response:
    return _error(error.status_code, error.detail, error.headers)
