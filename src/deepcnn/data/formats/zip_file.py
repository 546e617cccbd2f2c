"""zip archives: their directory and the content of each file, under limits.

Format (APPNOTE 6.3.10, sections 4.3 and 4.5.3): the end of the file says where the directory is; an
entry of it says where its file is. Sizes of 2^32 and more are in an extra field. Python's zipfile
makes an object for each entry, and reads the directory whenever it opens an archive. Here the
directory is read once, and a million entries take only as much memory as their names.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from deepcnn.errors import DataError

END, END_64, LOCATOR_64 = (b"PK\x05\x06", 22), (b"PK\x06\x06", 56), (b"PK\x06\x07", 20)
ENTRY, LOCAL = (b"PK\x01\x02", 46), (b"PK\x03\x04", 30)
STORED, DEFLATED = 0, 8
ENCRYPTED, UTF8 = 1, 1 << 11
MAX_COMMENT = 1 << 16
NONE_16, NONE_32 = 0xFFFF, 0xFFFFFFFF  # what stands where 64 bits are needed
MAX_DIRECTORY_BYTES = 1 << 28


class Entry(NamedTuple):
    """A file of an archive. `start`: where its own header begins; sizes in bytes."""

    name: str
    start: int
    packed: int
    size: int
    method: int
    crc: int


def entries(path: Path, file: BinaryIO) -> Iterator[Entry]:
    """Yield the regular files of an archive, in the order of its directory.

    Raises DataError if the directory is damaged, or if a file is encrypted or compressed in an
    unknown way.
    """
    start, size, count = _directory(path, file)
    if size > MAX_DIRECTORY_BYTES:
        raise DataError(
            f"{path}: expected a directory of at most {MAX_DIRECTORY_BYTES:,} bytes, found "
            f"{size:,}. Unpack the archive, and give the folder."
        )
    file.seek(start)
    directory = file.read(size)
    at = 0
    for index in range(count):
        head = directory[at : at + ENTRY[1]]
        if len(head) < ENTRY[1] or not head.startswith(ENTRY[0]):
            raise _damaged(path, f"no entry {index:,} of {count:,} in its directory", start + at)
        made_by, _, flags, method = struct.unpack_from("<HHHH", head, 4)
        crc, packed, unpacked, name_bytes, extra_bytes, comment = struct.unpack_from(
            "<3I3H", head, 16
        )
        (rights, own) = struct.unpack_from("<2I", head, 38)
        at += ENTRY[1]
        raw = directory[at : at + name_bytes]
        extra = directory[at + name_bytes : at + name_bytes + extra_bytes]
        at += name_bytes + extra_bytes + comment
        unpacked, packed, own = _wide(extra, (unpacked, packed, own))
        name = _text(raw, said=bool(flags & UTF8))
        mode = rights >> 16 if made_by >> 8 in (3, 19) else 0  # of Unix and OS X
        if name.endswith("/") or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
            continue
        if flags & ENCRYPTED or method not in (STORED, DEFLATED):
            what = "encrypted" if flags & ENCRYPTED else f"packed by method {method}"
            raise DataError(f"{path}: {name!r} is {what}. Unpack the archive, and give the folder.")
        if own + LOCAL[1] + packed > start:
            raise _damaged(path, f"{name!r} said to lie beyond the files", own)
        yield Entry(name, own, packed, unpacked, method, crc)


def content(path: Path, file: BinaryIO, entry: Entry) -> bytes:
    """Return a file's content; raises DataError if it is damaged or its length is wrong."""
    file.seek(entry.start)
    head = file.read(LOCAL[1])
    if len(head) < LOCAL[1] or not head.startswith(LOCAL[0]):
        raise _damaged(path, f"nothing of {entry.name!r}", entry.start)
    name, extra = struct.unpack("<HH", head[26:])
    file.seek(name + extra, 1)
    found = file.read(entry.packed)
    if entry.method == DEFLATED:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            found = inflate.decompress(found, entry.size + 1)
        except zlib.error as error:
            raise _damaged(path, f"{entry.name!r} ({error})", entry.start) from error
    if len(found) != entry.size or zlib.crc32(found) != entry.crc:
        raise _damaged(path, f"{entry.name!r} of another length or checksum", entry.start)
    return found


def _directory(path: Path, file: BinaryIO) -> tuple[int, int, int]:
    """Return where the directory begins, its bytes, and its number of entries."""
    size = file.seek(0, 2)
    begin = max(0, size - END[1] - MAX_COMMENT)
    file.seek(begin)
    tail = file.read()
    at = tail.rfind(END[0])
    if at < 0 or len(tail) < at + END[1]:
        raise _damaged(path, "no end of a directory", begin)
    count, length, start = struct.unpack_from("<HII", tail, at + 10)
    if count == NONE_16 or NONE_32 in (length, start):
        file.seek(max(0, begin + at - LOCATOR_64[1]))
        locator = file.read(LOCATOR_64[1])
        if locator.startswith(LOCATOR_64[0]):
            file.seek(min(size, struct.unpack_from("<Q", locator, 8)[0]))
            end = file.read(END_64[1])
            if len(end) == END_64[1] and end.startswith(END_64[0]):
                count, length, start = struct.unpack_from("<QQQ", end, 32)
    if start + length > size:
        raise _damaged(path, f"a directory of {length:,} bytes beyond its end", start)
    return start, length, count


def _text(raw: bytes, *, said: bool) -> str:
    """Return a name. Many programs write UTF-8 without saying so; otherwise it is code page 437."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode(errors="surrogateescape") if said else raw.decode("cp437")


def _wide(extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return unpacked size, packed size and start; values of 64 bits come from the extra field."""
    found, at = list(values), 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if kind == 1:
            numbers = extra[at : at + length]
            for i, value in enumerate(values):
                if value == NONE_32 and len(numbers) >= 8:
                    found[i], numbers = int.from_bytes(numbers[:8], "little"), numbers[8:]
        at += length
    return found[0], found[1], found[2]


def _damaged(path: Path, found: str, offset: int) -> DataError:
    return DataError(
        f"{path}: expected a whole zip archive, found {found} at offset {offset:,}. The file is "
        "damaged; fetch it again."
    )
