"""tar archives, also compressed by gzip: their content, under limits. Nothing is unpacked."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from deepcnn.data.formats import inflated
from deepcnn.errors import DataError

MAX_HEADER_BYTES = 1 << 20  # of what stands before a file, such as its long name


class Entry(NamedTuple):
    """A file of an archive: where its content begins in the unpacked archive, and its bytes."""

    name: str
    start: int
    size: int


class _Guarded:
    """A file that is read only in small pieces, for any length that a header declares."""

    def __init__(self, path: Path, file: BinaryIO | inflated.Inflated) -> None:
        self._path, self._file = path, file
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int) -> bytes:
        if size > MAX_HEADER_BYTES:
            raise DataError(
                f"{self._path}: expected headers of at most {MAX_HEADER_BYTES:,} bytes, found one "
                f"of {size:,} at offset {self.tell():,}. The archive may be hostile."
            )
        return self._file.read(size)


def is_packed(path: Path) -> bool:
    """Tell by a file's first bytes whether it is compressed by gzip."""
    try:
        with path.open("rb") as file:
            return file.read(2) == inflated.GZIP
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


@contextmanager
def opened(path: Path, *, packed: bool) -> Iterator[BinaryIO | inflated.Inflated]:
    """Open an archive; a compressed one is unpacked while it is read, forwards only."""
    if packed:
        with inflated.opened(path) as stream:
            yield stream
        return
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def entries(path: Path, file: BinaryIO | inflated.Inflated) -> Iterator[Entry]:
    """Yield the regular files of an archive, in its order; links and devices are skipped."""
    try:
        with tarfile.open(fileobj=_Guarded(path, file), mode="r:") as archive:  # type: ignore[call-overload]
            while (member := archive.next()) is not None:
                archive.members = []  # which would grow with the archive
                if member.isreg() and not member.issparse():
                    yield Entry(member.name, member.offset_data, member.size)
    # A damaged header raises more than TarError: what its numbers and names run into.
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path}: expected a whole tar archive, found one that is damaged near offset "
            f"{file.tell():,} ({str(error) or type(error).__name__}). Fetch the file again."
        ) from error


def content(path: Path, file: BinaryIO | inflated.Inflated, entry: Entry) -> bytes:
    """Return a file's content; files of a compressed archive must be asked for in its order."""
    file.seek(entry.start)
    found = file.read(entry.size)
    if len(found) < entry.size:
        raise DataError(
            f"{path}: expected {entry.size:,} bytes of {entry.name!r} at offset {entry.start:,}, "
            f"found {len(found):,}. The archive is incomplete; fetch it again."
        )
    return found
