"""Arrays in .npy files, none of them a pickle; and .npz files, zip archives of such files."""

from __future__ import annotations

import io
import math
import os
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from deepcnn.errors import DataError

MAX_RATIO = 1032  # no byte of a deflate stream stands for more than this many
MAX_HEADER_BYTES = 4096  # of an .npy file; those of plain arrays take 128
PIECE = 2**20  # bytes decompressed at a time
# What zipfile raises for archives that are damaged, encrypted or of another make.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
)
END_SIGNATURE, END_BYTES = b"PK\x05\x06", 22
LOCAL_SIGNATURE, LOCAL_BYTES = b"PK\x03\x04", 30
ENCRYPTED = 1


@dataclass(frozen=True)
class Member:
    """An array: the name of its .npy file, and what the header of this file says.

    `stored`: whether it is in the file without compression. `checksum`: CRC-32 of the whole .npy
    file, None if it is not known.
    """

    name: str
    header: bytes
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    by_columns: bool
    stored: bool = True
    checksum: int | None = None


class Holder(Protocol):
    """Arrays in .npy files, open for reading. All methods raise DataError, which names the file.

    `path`: the name for all of them in errors. `members`: their names. `size`: bytes that they take
    on the disk together.
    """

    path: Path
    size: int

    @property
    def members(self) -> Collection[str]:
        """The names of the arrays, without `.npy`."""

    def member(self, key: str) -> Member:
        """Read an array's header, and check that the file is as long as the header declares."""

    def open(self, member: Member) -> io.BufferedIOBase:
        """Open an .npy file at its beginning, to be read to its end."""

    def at(self, member: Member, offset: int) -> io.BufferedIOBase:
        """Open an .npy file at an offset."""


class Archive:
    """An open .npz file whose directory has been checked. Errors of zipfile become DataError.

    It is a `Holder`.
    """

    def __init__(self, path: Path, file: io.BufferedIOBase, archive: zipfile.ZipFile) -> None:
        self.path, self._file, self._zip = path, file, archive
        self.size = path.stat().st_size
        self.members = {
            info.filename.removesuffix(".npy"): info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[Archive]:
        """Open a file as long as the context lasts; raises DataError, naming what is wrong."""
        try:
            with path.open("rb") as file:
                if file.read(4) != LOCAL_SIGNATURE:
                    raise DataError(
                        f"{path}: expected a zip archive, as an .npz file is, found other bytes "
                        "at its beginning. The file is damaged or of another format; write it "
                        "with numpy.savez."
                    )
                with zipfile.ZipFile(file) as archive:
                    tail = END_BYTES + len(archive.comment)
                    size = file.seek(0, os.SEEK_END)
                    file.seek(max(0, size - tail))
                    end = file.read(END_BYTES)
                    length = len(archive.comment).to_bytes(2, "little")
                    if not (end.startswith(END_SIGNATURE) and end.endswith(length)):
                        raise DataError(
                            f"{path}: expected the end of the file after the zip archive's "
                            "directory, found more bytes. The file is damaged; fetch it again."
                        )
                    names = Counter(archive.namelist())
                    twice = [name for name, times in names.most_common(8) if times > 1]
                    if twice:
                        raise DataError(
                            f"{path}: expected each array once, found several of "
                            f"{', '.join(map(repr, twice))}. Write the file again."
                        )
                    yield cls(path, file, archive)
        except DAMAGED as error:
            raise DataError(
                f"{path}: not a whole .npz file ({error or type(error).__name__}). The file is "
                "damaged or of another format; fetch it again."
            ) from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error

    def open(self, member: Member) -> io.BufferedIOBase:
        """Open a member at its beginning; zipfile compares the checksum at its end."""
        return self._opened(self._zip.getinfo(member.name))

    def at(self, member: Member, offset: int) -> io.BufferedIOBase:
        """Open a member at an offset; a deflated member is read up to there."""
        if member.stored:
            self._file.seek(self._start_of(self._zip.getinfo(member.name)) + offset)
            return self._file
        stream = self.open(member)
        scratch = np.empty(min(offset, PIECE), np.uint8)
        for position in range(0, offset, PIECE):
            fill(stream, scratch[: offset - position], self.path)
        return stream

    def _opened(self, info: zipfile.ZipInfo) -> io.BufferedIOBase:
        return cast("io.BufferedIOBase", self._zip.open(info))

    def member(self, key: str) -> Member:
        """Read an array's header, and check that the member is as long as the header declares."""
        info = self.members[key]
        where = f"{self.path}: array {key!r}"
        if info.flag_bits & ENCRYPTED:
            raise DataError(f"{where} is encrypted. Write the file with numpy.savez.")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{where}: expected it stored or deflated, found compression method "
                f"{info.compress_type}. Write the file with numpy.savez."
            )
        packed, size = info.compress_size, info.file_size
        possible = packed if info.compress_type == zipfile.ZIP_STORED else MAX_RATIO * packed
        if packed > self.path.stat().st_size or size > possible:
            raise DataError(
                f"{where} declares {size:,} bytes, more than the {packed:,} bytes that it is said "
                "to take in the file can hold. The file is damaged; fetch it again."
            )
        with self._opened(info) as stream:
            found = read_header(stream, size, where)
        stored = info.compress_type == zipfile.ZIP_STORED
        if stored:
            self._start_of(info)
        return replace(found, name=info.filename, stored=stored, checksum=info.CRC)

    def _start_of(self, info: zipfile.ZipInfo) -> int:
        """Return the offset in the file of a stored member's first byte."""
        self._file.seek(info.header_offset)
        local = self._file.read(LOCAL_BYTES)
        name, extra = struct.unpack("<HH", local[26:])
        start: int = info.header_offset + LOCAL_BYTES + name + extra
        size = self._file.seek(0, os.SEEK_END)
        if start + info.file_size > size:
            raise DataError(
                f"{self.path}: expected {info.file_size:,} bytes of {info.filename!r} at offset "
                f"{start:,}, found the end of the file at {size:,}. The file is damaged; fetch it "
                "again."
            )
        return start


def read_header(stream: io.BufferedIOBase, size: int, where: str) -> Member:
    """Read the header of an .npy file of `size` bytes, and check it; its name is `where`.

    Raises DataError for a file that is not .npy, declares another length, or is a pickle.
    """
    prefix = stream.read(MAX_HEADER_BYTES)
    buffer = io.BytesIO(prefix)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers of Python 2 and odd literals
            version = npy.read_magic(buffer)
            if version == (1, 0):
                found = npy.read_array_header_1_0(buffer, max_header_size=MAX_HEADER_BYTES)
            elif version == (2, 0):
                found = npy.read_array_header_2_0(buffer, max_header_size=MAX_HEADER_BYTES)
            else:
                raise ValueError(f"version {version} is not for plain arrays")
    # NumPy reads the header with `ast`, `tokenize` and `numpy.dtype`: besides ValueError they
    # raise at least SyntaxError, TokenError, TypeError, RecursionError and MemoryError.
    except Exception as error:
        reason = str(error).partition("\n")[0][:200]
        raise DataError(
            f"{where}: expected an .npy header of at most {MAX_HEADER_BYTES:,} bytes, found "
            f"what cannot be read as one ({reason}). Write the file with numpy.savez."
        ) from error
    dimensions, by_columns, dtype = found
    shape = tuple(int(side) for side in dimensions)
    if max(shape, default=0) >= 2**63:
        raise DataError(
            f"{where}: the header declares a side that no array has. The file is damaged; "
            "fetch it again."
        )
    header = prefix[: buffer.tell()]
    if dtype.hasobject:
        raise DataError(
            f"{where}: expected plain values, found {dtype}, Python objects, which are "
            "pickles and could run anything. Convert the array before writing it."
        )
    needed = len(header) + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or needed != size:
        raise DataError(
            f"{where}: the header declares {dtype} {list(shape)}, {needed:,} bytes with the "
            f"header, found {size:,}. The file is damaged; fetch it again."
        )
    return Member(where, header, dtype, shape, by_columns)


def values_of(holder: Holder, member: Member) -> NDArray[Any]:
    """Return a whole array, flat."""
    content = np.empty(math.prod(member.shape) * member.dtype.itemsize, np.uint8)
    with holder.open(member) as stream:
        stream.read(len(member.header))
        fill(stream, content, holder.path)
    return content.view(member.dtype)


def fill(stream: io.BufferedIOBase, target: NDArray[np.uint8], path: Path) -> None:
    """Fill `target`, which is contiguous, with bytes."""
    view = target.reshape(-1).data
    filled = 0
    while filled < len(view):
        read = stream.readinto(view[filled : filled + PIECE])
        if not read:
            raise DataError(
                f"{path}: ends {len(view) - filled:,} bytes before the end of an array. The file "
                "is incomplete; fetch it again."
            )
        filled += read
