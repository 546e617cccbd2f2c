"""Files to append to, which survive a disk that is full for a while."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

from deepcnn.errors import advice, refused

MOST_WAITING = 4 * 2**20  # bytes of records that wait for a disk


class Appended:
    """Appends whole records to a file; records that cannot be written now are written later.

    Until then they wait in memory. Above MOST_WAITING bytes, the oldest records are lost. `note` is
    called once when writing fails, and once when it works again. `prepare` is called before the
    file is opened for the first time, and may raise OSError, too. The object itself never raises
    OSError.
    """

    def __init__(
        self,
        path: Path,
        note: Callable[[str], None],
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._path, self._note = path, note
        self._prepare: Callable[[], None] | None = prepare
        self._file: int | None = None
        self._end = 0  # of the file, by what was written
        self._waiting: deque[bytes] = deque()
        self._bytes = 0  # that wait
        self._begun = 0  # bytes of the first record that are in the file already
        self._lost = 0  # records
        self._failing = False
        self._write_what_waits()

    def write(self, record: bytes) -> None:
        """Append a record, after all records that wait."""
        self._waiting.append(record)
        self._bytes += len(record)
        self._write_what_waits()
        while self._bytes > MOST_WAITING and len(self._waiting) > 1:
            self._bytes -= len(self._waiting[1])  # of the first a part may be in the file
            del self._waiting[1]
            self._lost += 1

    def close(self) -> None:
        """Try once more to write the records that wait, and close the file."""
        if self._waiting:
            self._write_what_waits()
        if self._waiting:
            self._note(f"{self._path}: {len(self._waiting) + self._lost:,} records are lost.")
            self._waiting.clear()
        self._close_file()

    def _write_what_waits(self) -> None:
        try:
            if self._file is None:
                self._file = self._open()
            while self._waiting:
                first = memoryview(self._waiting[0])
                count = os.write(self._file, first[self._begun :])
                self._begun += count
                self._end += count
                if self._begun == len(first):
                    self._bytes -= len(self._waiting.popleft())
                    self._begun = 0
        except OSError as error:
            self._close_file()  # it may be another one that has the name when this goes on
            if not self._failing:
                self._failing = True
                self._note(
                    f"{refused(self._path, error)} {advice(error)} The work goes on; what belongs "
                    "there is written as soon as that can be done."
                )
        except BaseException:  # a signal: nobody knows how much of the first record was written
            self._waiting.clear()
            raise
        else:
            if self._failing:
                self._failing = False
                lost = f" {self._lost:,} records are lost." if self._lost else ""
                self._note(f"{self._path}: is written again.{lost}")
                self._lost = 0

    def _open(self) -> int:
        if self._prepare is not None:
            self._prepare()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        file = os.open(self._path, flags, 0o666)
        try:
            size = os.fstat(file).st_size
            if self._prepare is not None:
                self._prepare, self._end = None, size
            elif size > self._end:  # a call that failed has written something all the same
                os.ftruncate(file, self._end)
        except BaseException:
            os.close(file)
            raise
        return file

    def _close_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None
