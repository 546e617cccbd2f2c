"""Files compressed by gzip or zlib, unpacked piece by piece as they are read, under a limit."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from deepcnn.errors import DataError

GZIP = b"\x1f\x8b"
MAX_RATIO, MAX_MORE = 100, 1 << 26  # a file unpacks to so many times its size, and so much more
PIECE = 1 << 18  # bytes read, and unpacked, at a time
AUTOMATIC = 32 + zlib.MAX_WBITS  # the beginning of a stream tells whether it is gzip's or zlib's


def is_zlib(head: bytes) -> bool:
    """Whether bytes begin as a zlib stream does (RFC 1950)."""
    return (
        len(head) > 1
        and head[0] & 15 == 8
        and head[0] >> 4 < 8
        and (head[0] << 8 | head[1]) % 31 == 0
    )


@contextmanager
def opened(path: Path) -> Iterator[Inflated]:
    """Open a compressed file; raises DataError, naming it, also while it is read."""
    try:
        with path.open("rb", buffering=0) as file:
            yield Inflated(path, file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


class Inflated:
    """The unpacked content of a compressed file. It is read forwards only, piece by piece.

    A gzip file may hold several streams one after another. Checksums are compared at the end of
    each stream. Raises DataError for a file that is damaged or unpacks to far more than pictures
    do.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._most = MAX_RATIO * path.stat().st_size + MAX_MORE
        self._inflate = zlib.decompressobj(AUTOMATIC)
        self._packed = b""
        self._waiting = b""  # unpacked
        self._unpacked = 0  # bytes in all
        self._ended = False

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._unpacked - len(self._waiting)

    def seek(self, position: int) -> int:
        """Skip all that comes before `position`, which must not lie behind."""
        if position < self.tell():
            raise ValueError("a compressed file is read forwards")
        while position > self.tell() and self.read(min(PIECE, position - self.tell())):
            pass
        return self.tell()

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer than `size` only at the end."""
        pieces: list[bytes] = []
        missing = size
        while missing and (self._waiting or self._more()):
            pieces.append(self._waiting[:missing])
            self._waiting = self._waiting[missing:]
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def _more(self) -> bool:
        """Unpack a piece; return whether there was any."""
        while not self._waiting and not self._ended:
            if not self._packed:
                self._packed = self._file.read(PIECE)
                if not self._packed:
                    raise self._damaged("it ends early")
            try:
                self._waiting = self._inflate.decompress(self._packed, PIECE)
            except zlib.error as error:
                raise self._damaged(str(error)) from error
            self._packed = self._inflate.unconsumed_tail
            self._unpacked += len(self._waiting)
            if self._unpacked > self._most:
                raise DataError(
                    f"{self._path}: expected a file that unpacks to at most {self._most:,} bytes, "
                    f"{MAX_RATIO} times its size and {MAX_MORE:,} more, found that it unpacks to "
                    "more. Unpack it yourself if you trust it."
                )
            if self._inflate.eof:
                self._next_stream()
        return bool(self._waiting)

    def _next_stream(self) -> None:
        """Go on with the gzip stream that follows, or end."""
        rest = self._inflate.unused_data
        while not rest.strip(b"\0"):  # tar pads with zeros
            rest = self._file.read(PIECE)
            if not rest:
                self._ended = True
                return
        rest = rest.lstrip(b"\0")
        rest += self._file.read(2) if len(rest) < 2 else b""
        if not rest.startswith(GZIP):
            raise self._damaged("other bytes follow its end")
        self._packed, self._inflate = rest, zlib.decompressobj(AUTOMATIC)

    def _damaged(self, reason: str) -> DataError:
        return DataError(
            f"{self._path}: expected a whole gzip or zlib stream, found one that is damaged "
            f"({reason}), {self._unpacked:,} bytes after the beginning of what it unpacks to. "
            "Fetch the file again."
        )
