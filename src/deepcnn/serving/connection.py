"""An HTTP connection that gives its peer a limited time; uvicorn's own one does not."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from deepcnn.serving.limits import SLOWEST, Limits

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: 0\r\n\r\n"
)
_LOOKS = 4  # at a connection while a peer's time runs


class Connection(H11Protocol):
    """Like uvicorn's, but a peer must take its turn in time, and connections are limited.

    While the application reads a body or makes an answer, it watches the time itself. Otherwise the
    peer must send the whole head of a request, or read its answer, within `limits.seconds`.
    """

    limits: ClassVar[Limits] = Limits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self._turn = self.loop.time()  # since when the peer has been waited for
        self._left = 0  # bytes that it has not read
        self._look_again()
        if len(self.connections) > self.limits.connections:
            transport.write(_FULL)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._timer.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Go on if a peer has sent a whole request and closed only its own direction."""
        if not self._answers() or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True

    def resume_writing(self) -> None:
        """Give the peer time again, since it has read most of its answer."""
        self._turn = self.loop.time()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Give the turn back to the peer."""
        self._turn = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not HTTP, unless an answer was sent already.

        (uvicorn's own method fails in this case, with an error in the log.)
        """
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        if self._answers():
            self.cycle.disconnected = True  # so that the application sends nothing more
        super().send_400_response(msg)

    def _answers(self) -> bool:
        """Tell whether the application has a request to answer."""
        return self.cycle is not None and not self.cycle.response_complete

    def _look_again(self) -> None:
        self._timer = self.loop.call_later(self.limits.seconds / _LOOKS, self._look)

    def _look(self) -> None:
        """Give up the connection if its peer has had its time."""
        left = self.transport.get_write_buffer_size()
        reads = self._left - left >= SLOWEST * self.limits.seconds / _LOOKS
        if reads or (self._answers() and not self.flow.write_paused):
            self._turn = self.loop.time()
        self._left = left
        if self.loop.time() - self._turn > self.limits.seconds:
            self.transport.abort()
        else:
            self._look_again()


def connection_with(limits: Limits) -> type[Connection]:
    """Return a class of connections with these limits, as uvicorn needs it."""

    class Limited(Connection):
        pass

    Limited.limits = limits
    return Limited
