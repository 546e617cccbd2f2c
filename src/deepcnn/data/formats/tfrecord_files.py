"""TFRecord files, plain or compressed by gzip or zlib, as records of bytes.

A file is records one after another (https://www.tensorflow.org/tutorials/load_data/tfrecord): the
length of the data, uint64 little-endian; the masked CRC-32C of those 8 bytes; the data; its masked
CRC-32C. TensorFlow's writer may compress the whole file (`TFRecordOptions`); its first bytes
decide, not its name.
"""

from __future__ import annotations

import array
import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from deepcnn.data.formats import inflated
from deepcnn.errors import DataError

HEADER_BYTES = 12  # length and its checksum
FOOTER_BYTES = 4
MAX_RECORD_BYTES = 2**27  # an image of 2**26 and room for features that nobody asked for


def masked_crc(data: bytes) -> int:
    """Return the checksum that stands beside `data` in a TFRecord file."""
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@dataclass(frozen=True, eq=False)
class Run:
    """Some records one after another, from number `begin` on.

    `content`: their bytes. `offsets`: int64 [k + 1], where each record begins in the (unpacked)
    file, and where the last one ends.
    """

    path: Path
    begin: int
    content: bytes
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def place(self, i: int) -> str:
        """Return the name of record `i` of the run in errors."""
        return f"record {self.begin + i} at offset {self.offsets[i]:,}"

    def data(self, i: int) -> bytes:
        """Return the data of record `i` of the run, after comparing its checksum."""
        first = self.offsets.item(0)
        start, stop = self.offsets.item(i) - first, self.offsets.item(i + 1) - first
        data = self.content[start + HEADER_BYTES : stop - FOOTER_BYTES]
        if masked_crc(data) != int.from_bytes(self.content[stop - FOOTER_BYTES : stop], "little"):
            raise DataError(
                f"{self.path}: the data of {self.place(i)} and its checksum disagree. The file is "
                "damaged; fetch it again."
            )
        return data


class RecordFile(Protocol):
    """A file of records. Making it compares the checksums of all lengths."""

    @property
    def name(self) -> str:
        """What errors call it: a path."""

    @property
    def seekable(self) -> bool:
        """Whether reading may start anywhere."""

    def __len__(self) -> int:
        """Return the number of records, at least 1."""

    def runs(
        self, start: int, stop: int, size: int, at_most: int | None = None
    ) -> Generator[Run, None, None]:
        """Yield the records `start` to `stop`, `size` at a time; closing it closes the file.

        `at_most`: bytes of a run, and of one record more; then some have fewer records.
        """


def record_file(path: Path) -> RecordFile:
    """Open a file of records, compressed or not."""
    with _opened(path) as file:
        head = file.read(HEADER_BYTES)
    return PackedRecords(path) if _is_packed(head) else PlainRecords(path)


def first_record(path: Path) -> bytes:
    """Return the data of a file's first record, without reading the others."""
    with _opened(path) as file:
        head = file.read(HEADER_BYTES)
    if _is_packed(head):
        with inflated.opened(path) as stream:
            return _first(path, stream)
    with _opened(path) as file:
        return _first(path, file)


class PlainRecords:
    """The records of a plain file, which can be read from anywhere.

    Each record's place is kept, in 8 bytes; for a record of 16 bytes or more, this is at most half
    of it.
    """

    seekable = True

    def __init__(self, path: Path) -> None:
        self._path = path
        with _opened(path) as file:
            self._offsets = self._walk(file)

    @property
    def name(self) -> str:
        """What errors call it: a path."""
        return str(self._path)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def _walk(self, file: BinaryIO) -> NDArray[np.int64]:
        """Return the offset of each record and of the end of the file."""
        size = file.seek(0, 2)
        offsets = array.array("q", [0])
        known: bytes | None = None
        offset = length = 0
        while offset < size or not size:
            file.seek(offset)
            header = file.read(HEADER_BYTES)
            if header != known:  # the same bytes need no second check
                length = _length(self._path, header, len(offsets) - 1, offset)
                known = header
            offset += HEADER_BYTES + length + FOOTER_BYTES
            if offset > size:
                raise _too_long(self._path, len(offsets) - 1, offsets[-1], length, size)
            offsets.append(offset)
        return np.array(offsets, np.int64)

    def runs(
        self, start: int, stop: int, size: int, at_most: int | None = None
    ) -> Generator[Run, None, None]:
        """Yield the records `start` to `stop`, `size` at a time; see `RecordFile`."""
        with _opened(self._path) as file:
            end = start
            while (begin := end) < stop:
                end = min(begin + size, stop)
                if at_most is not None:
                    most = self._offsets[begin] + at_most
                    end = min(end, int(np.searchsorted(self._offsets, most, "right")))
                content = self._read(file, begin, end)
                yield Run(self._path, begin, content, self._offsets[begin : end + 1])

    def _read(self, file: BinaryIO, begin: int, end: int) -> bytes:
        """Return the bytes of the records `begin` to `end`."""
        start, stop = self._offsets[begin].item(), self._offsets[end].item()
        file.seek(start)
        pieces, missing = [], stop - start
        while missing and (piece := file.read(missing)):  # an operating system may return less
            pieces.append(piece)
            missing -= len(piece)
        if missing:
            raise DataError(
                f"{self._path}: expected {stop - start:,} bytes at offset {start:,}, found "
                f"{missing:,} fewer. The file has changed since it was opened; begin again."
            )
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class PackedRecords:
    """The records of a file compressed by gzip or zlib, read from its beginning each time.

    Making it unpacks the file once, to count the records, and keeps nothing of it.
    """

    seekable = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0
        with inflated.opened(path) as stream:
            while header := self._next(stream, self._count):
                self._pass(stream, header, self._count)
                self._count += 1

    @property
    def name(self) -> str:
        """What errors call it: a path."""
        return str(self._path)

    def __len__(self) -> int:
        return self._count

    def _next(self, stream: inflated.Inflated, index: int) -> bytes | None:
        """Return the header of record `index`, or None at the end."""
        offset = stream.tell()
        header = stream.read(HEADER_BYTES)
        if not header and index:
            return None
        _length(self._path, header, index, offset)
        return header

    def _pass(self, stream: inflated.Inflated, header: bytes, index: int) -> None:
        """Skip the data of a record."""
        (length,) = struct.unpack("<Q", header[:8])
        offset = stream.tell() - HEADER_BYTES
        end = offset + HEADER_BYTES + length + FOOTER_BYTES
        if stream.seek(end) < end:
            raise _too_long(self._path, index, offset, length, stream.tell())

    def runs(
        self, start: int, stop: int, size: int, at_most: int | None = None
    ) -> Generator[Run, None, None]:
        """Yield the records `start` to `stop`, `size` at a time; see `RecordFile`."""
        with inflated.opened(self._path) as stream:
            for index in range(start):
                self._pass(stream, self._next(stream, index) or b"", index)
            end = start
            while (begin := end) < stop:
                pieces: list[bytes] = []
                offsets = [stream.tell()]
                for index in range(begin, min(begin + size, stop)):
                    if at_most is not None and offsets[-1] - offsets[0] > at_most:
                        break
                    header = self._next(stream, index) or b""
                    length = _length(self._path, header, index, offsets[-1])
                    rest = stream.read(length + FOOTER_BYTES)
                    if len(rest) < length + FOOTER_BYTES:
                        raise _too_long(self._path, index, offsets[-1], length, stream.tell())
                    pieces += [header, rest]
                    offsets.append(stream.tell())
                end = begin + len(pieces) // 2
                yield Run(self._path, begin, b"".join(pieces), np.array(offsets, np.int64))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        # Without a buffer: the walk takes 12 bytes here and there, and blocks are large.
        with path.open("rb", buffering=0) as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _first(path: Path, stream: BinaryIO | inflated.Inflated) -> bytes:
    """Return the data of the record at the beginning of a stream."""
    header = stream.read(HEADER_BYTES)
    length = _length(path, header, 0, 0)
    rest = stream.read(length + FOOTER_BYTES)
    if len(rest) < length + FOOTER_BYTES:
        raise _too_long(path, 0, 0, length, HEADER_BYTES + len(rest))
    offsets = np.array([0, len(header) + len(rest)], np.int64)
    return Run(path, 0, header + rest, offsets).data(0)


def _is_packed(head: bytes) -> bool:
    """Tell by a file's first bytes whether it is compressed; a record may begin like this, too."""
    if len(head) == HEADER_BYTES and _is_header(head):
        return False
    return head.startswith(inflated.GZIP) or inflated.is_zlib(head)


def _is_header(header: bytes) -> bool:
    """Whether a length and its checksum agree."""
    return masked_crc(header[:8]) == int.from_bytes(header[8:], "little")


def _length(path: Path, header: bytes, index: int, offset: int) -> int:
    """Return the length that the header of record `index` declares."""
    if len(header) < HEADER_BYTES:
        raise DataError(
            f"{path}: expected the {HEADER_BYTES} bytes of a record's header at offset "
            f"{offset:,}, after {index:,} records, found {len(header)}. The file is "
            "incomplete or has bytes of something else at its end; fetch it again."
        )
    if not _is_header(header):
        raise DataError(
            f"{path}: the length of record {index} at offset {offset:,} and its "
            "checksum disagree. The file is damaged or not a TFRecord file; fetch it again."
        )
    length = int.from_bytes(header[:8], "little")
    if length > MAX_RECORD_BYTES:
        raise DataError(
            f"{path}: expected records of at most {MAX_RECORD_BYTES:,} bytes, found "
            f"{length:,} bytes declared by record {index} at offset {offset:,}. The file is "
            "damaged, or its images are too large for deepcnn."
        )
    return length


def _too_long(path: Path, index: int, offset: int, length: int, size: int) -> DataError:
    end = offset + HEADER_BYTES + length + FOOTER_BYTES
    return DataError(
        f"{path}: record {index} at offset {offset:,} declares {length:,} bytes of data, so that "
        f"it ends at {end:,}, found the end of the file at {size:,}. The file is incomplete; fetch "
        "it again."
    )
