"""Calls that write below a folder, counted, and made to fail."""

from __future__ import annotations

import builtins
import errno
import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ERRORS = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_EVENTS = {  # audit events of calls that change a folder, and which of their arguments is a path
    "os.mkdir": 0,
    "os.rename": 1,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.truncate": 0,
}


@dataclass
class Failing:
    """Counts the calls open, write, fsync, rename, mkdir, unlink, truncate below a folder.

    From call `first` (0: the first) on `count` of them fail with an error; a call of write first
    writes a half, where `half` is set. `calls` is what was counted: a name and a path each.
    """

    folder: Path
    error: str = "ENOSPC"
    first: int | None = None
    count: int = 1
    half: bool = False
    calls: list[tuple[str, str]] = field(default_factory=list)

    def fails(self, name: str, path: str) -> bool:
        """Count a call, and tell whether it is to fail."""
        if not os.path.abspath(path).startswith(f"{self.folder}{os.sep}"):  # noqa: PTH100
            return False
        number = len(self.calls)
        self.calls.append((name, path))
        return self.first is not None and self.first <= number < self.first + self.count

    def refuse(self, path: str | None) -> None:
        """Raise the error; a call of write or fsync names no path."""
        number = getattr(errno, self.error)
        raise OSError(number, os.strerror(number), *([] if path is None else [path]))

    def install(self) -> None:
        """Put it in the place of the calls of this process, for good."""
        sys.addaudithook(self._hear)
        os.fsync = self._on_handle("fsync", os.fsync)  # type: ignore[assignment]
        write = os.write

        def writing(handle: int, content: Any) -> int:
            path = path_of(handle)
            if path is not None and self.fails("write", path):
                if self.half:
                    write(handle, memoryview(content)[: len(content) // 2])
                self.refuse(None)
            return write(handle, content)

        os.write = writing
        opening = io.open
        failing = self

        class Raw(io.FileIO):
            def write(self, content: Any) -> int:
                if failing.fails("write", os.fsdecode(self.name)):
                    if failing.half:
                        super().write(memoryview(content)[: len(content) // 2])
                    failing.refuse(None)
                return super().write(content)

        def open_failing(file: Any, mode: str = "r", *others: Any, **named: Any) -> Any:
            plain = not others and not named
            if isinstance(file, int) or "b" not in mode or mode == "rb" or not plain:
                return opening(file, mode, *others, **named)
            raw = Raw(file, mode.replace("b", ""))
            return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

        io.open = builtins.open = open_failing

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not flags & _WRITES or isinstance(path, int):
                return
            name = "open"
        elif event in _EVENTS:
            path, name = arguments[_EVENTS[event]], event.removeprefix("os.")
        else:
            return
        if isinstance(path, int):
            path = path_of(path) or ""
        if self.fails(name, os.fsdecode(path)):
            self.refuse(os.fsdecode(path))

    def _on_handle(self, name: str, call: Callable[[int], None]) -> Callable[[int], None]:
        def wrapped(handle: int) -> None:
            path = path_of(handle)
            if path is not None and self.fails(name, path):
                self.refuse(None)
            call(handle)

        return wrapped


def path_of(handle: int) -> str | None:
    """Return the path of an open file; None for a pipe and the like."""
    try:
        path = str(Path(f"/proc/self/fd/{handle}").readlink())
    except OSError:
        return None
    return path if path.startswith("/") else None
