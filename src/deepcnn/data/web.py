"""Files behind a URL: read by HTTP, with retries, limits and digests.

Only `https://` is followed, and for tests `http://` on this machine. A URL may hold no user,
password or query, so none can get into a log. If a server redirects elsewhere, the new address is
never shown. Only the standard library is used: fsspec, which comes with torch, needs aiohttp to
read HTTP.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from typing_extensions import override

from deepcnn.errors import DataError, storing

WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt
SILENCE = 20.0  # seconds after which a server that says nothing is given up
PATIENCE = 60.0  # seconds that any attempt may take, and more by its size:
LEAST_SPEED = 50_000  # bytes/s
CHUNK = 1 << 18
REDIRECTS = 5
MAY_PASS = {408, 425, 429, 500, 502, 503, 504}  # answers of a server that may differ next time

T = TypeVar("T")


class _PassingError(Exception):
    """An attempt failed, but another one may succeed."""


def check(url: str) -> None:
    """Raise DataError unless data may be read from an address; the message shows no password."""
    problem = _problem(url)
    if problem:
        raise DataError(f"data: expected https://host/folder/, found {problem}")


def read(url: str, limit: int) -> bytes:
    """Return the file at a URL; raises DataError if it cannot be read or is over `limit` bytes."""

    def attempt() -> bytes:
        with _answer(url, 0, limit) as response:
            expected = response.length
            content = bytearray()
            while chunk := response.read1(min(CHUNK, limit + 1 - len(content))):
                content += chunk
        if len(content) > limit:
            raise DataError(f"{url}: expected at most {limit:,} bytes, found more")
        if expected is not None and len(content) != expected:
            raise _broken_off(len(content), expected)
        return bytes(content)

    return _repeated(url, attempt)


def download(url: str, file: BinaryIO, *, size: int, sha256: str) -> None:
    """Write the file at a URL to the start of `file`: exactly `size` bytes with this SHA-256.

    A transfer that broke off goes on where it stopped, if the server can do that. Raises DataError.
    """
    received = _Received(file)

    def attempt() -> None:
        with _answer(url, received.count, size) as response:
            start = received.count if response.status == http.client.PARTIAL_CONTENT else 0
            if start != received.count:
                received.begin_again()
            if response.length is not None and start + response.length != size:
                raise _PassingError(
                    f"expected {size:,} bytes, the server offers {start + response.length:,}"
                )
            while chunk := response.read1(min(CHUNK, size + 1 - received.count)):
                if received.count + len(chunk) > size:
                    received.begin_again()
                    raise _PassingError(f"expected {size:,} bytes, the server sends more")
                received.add(chunk)
        if received.count < size:
            raise _broken_off(received.count, size)
        if (found := received.sha256) != sha256:
            received.begin_again()
            raise _PassingError(f"expected SHA-256 {sha256}, found {found}")

    _repeated(url, attempt)


class _Received:
    """The part of a file that has come so far: written, counted and digested."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.begin_again()

    def begin_again(self) -> None:
        self._file.seek(0)
        self.count = 0
        self._digest = hashlib.sha256()

    def add(self, chunk: bytes) -> None:
        with storing(Path(self._file.name)):
            self._file.write(chunk)
        self.count += len(chunk)
        self._digest.update(chunk)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def _repeated(url: str, attempt: Callable[[], T]) -> T:
    """Try a few times until it succeeds, with growing waits."""
    problem: _PassingError | None = None
    for wait in (0.0, *WAITS):
        time.sleep(wait)
        try:
            return attempt()
        except _PassingError as error:
            problem = error
    raise DataError(
        f"{url}: could not be fetched in {len(WAITS) + 1} attempts. At last: {problem}. Try again "
        "later, or copy the folder to this machine and give its path."
    ) from problem


def _broken_off(count: int, size: int) -> _PassingError:
    return _PassingError(f"the connection ended after {count:,} of {size:,} bytes")


@contextmanager
def _answer(url: str, start: int, size: int) -> Iterator[http.client.HTTPResponse]:
    """Open a URL from a byte on; give up after a time that is enough for this many bytes.

    Raises _PassingError, also inside the `with` statement, or DataError if no further attempt can
    help.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "deepcnn"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    sockets: list[socket.socket] = []
    seconds = PATIENCE + size / LEAST_SPEED
    began = time.monotonic()
    timer = threading.Timer(seconds, _hang_up, [sockets])
    timer.daemon = True
    timer.start()
    try:
        with _opener(url, sockets).open(request, timeout=SILENCE) as response:
            if response.status == http.client.PARTIAL_CONTENT and not start:
                raise _PassingError("the server sends a part that nobody asked for")
            yield response
    except urllib.error.HTTPError as error:
        error.close()
        raise _refusal(url, error.code) from None  # its text may name where it led
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() - began > seconds:
            raise _PassingError(f"it is not there after {seconds:.0f} seconds") from error
        raise _failure(url, error) from error
    finally:
        timer.cancel()


def _refusal(url: str, code: int) -> Exception:
    """Return the error for an answer that cannot be used."""
    if 300 <= code < 400:
        return DataError(
            f"{url}: the server leads elsewhere than to https, or in a circle ({code}). That is "
            "not followed; give the folder's own address."
        )
    known = {status.value: status.phrase for status in http.HTTPStatus}
    said = f"{code} {known.get(code, '')}".rstrip()
    if code in MAY_PASS:
        return _PassingError(f"the server answers {said}")
    return DataError(
        f"{url}: the server answers {said}. Check the address and that the file is there for all "
        "to read: no password is ever sent."
    )


def _failure(url: str, error: Exception) -> Exception:
    """Return the error for a connection that cannot be made, or that breaks."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DataError(
            f"{url}: the server's certificate is not trusted ({reason.verify_message}). Check the "
            "address; where the certificate is of your own, name its file in SSL_CERT_FILE. Or "
            "copy the folder to this machine and give its path."
        )
    if isinstance(reason, TimeoutError):
        return _PassingError(f"the server said nothing for {SILENCE:.0f} seconds")
    if isinstance(reason, OSError) and reason.strerror:
        return _PassingError(f"no connection ({reason.strerror})")
    return _PassingError(f"the connection failed ({type(reason).__name__})")


def _hang_up(sockets: list[socket.socket]) -> None:
    """End connections although a thread waits for them; one that is already closed stays closed."""
    for each in sockets:
        with suppress(OSError):
            socket.socket.shutdown(each, socket.SHUT_RDWR)  # beneath TLS, whose state is another's


# Where may be read from


def _opener(url: str, sockets: list[socket.socket]) -> urllib.request.OpenerDirector:
    """Return an opener for http and https and nothing else; its sockets are put into the list."""

    class Plain(urllib.request.HTTPHandler):
        @override
        def http_open(self, request: Any) -> Any:
            return self.do_open(_kept(http.client.HTTPConnection, sockets), request)

    class Secure(urllib.request.HTTPSHandler):
        @override
        def https_open(self, request: Any) -> Any:
            context = ssl.create_default_context()
            made = _kept(http.client.HTTPSConnection, sockets)
            return self.do_open(made, request, context=context)

    opener = urllib.request.OpenerDirector()
    no_proxy: dict[str, str] | None = {} if _is_here(urlsplit(url).hostname) else None
    for handler in (
        urllib.request.ProxyHandler(no_proxy),
        Plain(),
        Secure(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _kept(kind: Any, sockets: list[socket.socket]) -> Any:
    """Return what makes connections and keeps their sockets, which urllib would forget."""

    def make(*args: Any, **kwargs: Any) -> Any:
        connection = kind(*args, **kwargs)
        connect = connection.connect

        def connected() -> None:
            connect()
            sockets.append(connection.sock)

        connection.connect = connected
        return connection

    return make


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https, and from this machine to itself."""

    max_redirections = REDIRECTS

    @override
    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        split = urlsplit(newurl)
        from_here = urlsplit(req.full_url).scheme == "http"
        if split.scheme != "https" and not (from_here and _problem(newurl) is None):
            raise urllib.error.HTTPError(req.full_url, code, "refused", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _problem(url: str) -> str | None:
    """Return the forbidden part of a URL, or None; never a password."""
    try:
        split = urlsplit(url)
        host, _ = split.hostname, split.port
    except ValueError:
        return "an address that cannot be read"
    if "@" in split.netloc:
        return (
            f"a user or a password before {host}, which would get into logs. Data can only be read "
            "where all may read"
        )
    if split.query or split.fragment:
        return f"a question mark or a # in an address of {host}. Leave out what follows it"
    if any(not 32 < ord(letter) < 127 for letter in url) or "\\" in url:
        return "an address with a blank, or a letter that is to be written as %xx"
    if split.scheme == "https" and host:
        return None
    if split.scheme == "http" and host:
        return None if _is_here(host) else f"http://{host}, where anybody on the way may change it"
    return f"{split.scheme}:, which is not read"


def _is_here(host: str | None) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host or "").is_loopback
    return host == "localhost"
