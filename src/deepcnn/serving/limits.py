"""The limits of a request, and the answer to one that asks for more."""

from __future__ import annotations

from dataclasses import dataclass, field

SLOWEST = 16 * 1024  # bytes a second, on the average, of a peer that is still waited for
TRY_AGAIN = {"Retry-After": "1"}  # seconds


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on what peers can make a server hold or wait for.

    `bytes`: of a request's body. `pictures`: of a request. `waiting`: requests whose bodies have
    arrived, but that are not answered yet. `seconds`: that a peer may take for the head of a
    request, and until its body arrives at the speed `SLOWEST`. `held`: bytes of all bodies
    together, including those that are still arriving. `connections`: open at the same time.
    """

    bytes: int = 16 * 2**20
    pictures: int = 64
    waiting: int = 128
    seconds: float = 10.0
    held: int = 256 * 2**20
    connections: int = 512


class RefusedError(Exception):
    """A request that is refused: the HTTP status, the reason, and headers for the answer."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers or {}


@dataclass
class Held:
    """How many bytes of bodies are in memory; only the event loop's thread changes it."""

    limit: int
    bytes: int = field(default=0, init=False)

    def take(self, count: int) -> None:
        """Count more bytes; raise RefusedError if there are too many."""
        self.bytes += count
        if self.bytes > self.limit:
            raise RefusedError(503, "too many requests are being sent at once", TRY_AGAIN)
