"""The calls of the system by which files change: each is told before it is made.

Python's own functions are replaced in this process, those of `os` and `open`. What writes by other
means (C++ extensions, child processes) is not seen; deepcnn's runs are written by Python alone.
"""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_OPEN, _OS_OPEN, _FSYNC = io.open, os.open, os.fsync
_MKDIR, _RMDIR, _UNLINK, _RENAME = os.mkdir, os.rmdir, os.unlink, os.replace
_WRITING = set("wax+")


@dataclass(frozen=True)
class Call:
    """What is about to be done.

    `kind`: mkdir, create, truncate, write, fsync, rename, unlink or rmdir; `path` and `to` (of a
    rename) are absolute; `content` is written at the offset `at`, at which a truncate cuts.
    """

    kind: str
    path: str
    to: str = ""
    content: bytes = b""
    at: int = 0

    def begin(self) -> None:
        """Write the first half of what is to be written."""
        if self.kind == "write":
            handle = _OS_OPEN(self.path, os.O_WRONLY)
            os.pwrite(handle, self.content[: len(self.content) // 2], self.at)
            os.close(handle)


Tell = Callable[[Call], None]


def watch(root: Path, tell: Tell) -> None:
    """Tell of all calls that change something below `root`, from now on, in this process."""
    inside = f"{os.path.realpath(root)}/"

    def told(kind: str, path: str, **more: Any) -> None:
        if f"{path}/".startswith(inside):
            tell(Call(kind, path, **more))

    _watch_names(told)
    _watch_handles(told)

    def watched_open(
        file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any
    ) -> Any:
        if isinstance(file, int) or not _WRITING & set(mode):
            return _OPEN(file, mode, buffering, *rest, **named)
        path = _path(file)
        if not path.startswith(inside):
            return _OPEN(file, mode, buffering, *rest, **named)
        return _open(_Raw(path, mode, told), mode, buffering, *rest, **named)

    io.open = builtins.open = watched_open  # type: ignore[assignment]


def _watch_names(told: Callable[..., None]) -> None:
    def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        name = _path(path, dir_fd)
        if Path(name).parent.is_dir() and not os.path.lexists(name):  # else it fails
            told("mkdir", name)
        _MKDIR(path, mode, dir_fd=dir_fd)

    def rmdir(path: Any, *, dir_fd: int | None = None) -> None:
        told("rmdir", _path(path, dir_fd))
        _RMDIR(path, dir_fd=dir_fd)

    def unlink(path: Any, *, dir_fd: int | None = None) -> None:
        if os.path.lexists(_path(path, dir_fd)):
            told("unlink", _path(path, dir_fd))
        _UNLINK(path, dir_fd=dir_fd)

    def rename(source: Any, target: Any, **named: Any) -> None:
        told("rename", _path(source), to=_path(target))
        _RENAME(source, target, **named)

    os.mkdir, os.rmdir = mkdir, rmdir
    os.unlink = os.remove = unlink
    os.rename = os.replace = rename


def _watch_handles(told: Callable[..., None]) -> None:
    def opened(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT and not os.path.lexists(_path(path, dir_fd)):
            told("create", _path(path, dir_fd))
        return _OS_OPEN(path, flags, mode, dir_fd=dir_fd)

    def fsync(handle: Any) -> None:
        number = handle if isinstance(handle, int) else handle.fileno()
        told("fsync", _name_of(number))
        _FSYNC(handle)

    os.open, os.fsync = opened, fsync


class _Raw(io.FileIO):
    """A file whose writes are told, one by one as the system gets them."""

    def __init__(self, path: str, mode: str, told: Callable[..., None]) -> None:
        self._told, self._path = told, path
        if not os.path.lexists(path):
            told("create", path)
        elif "w" in mode:
            told("truncate", path)
        self._appends = "a" in mode
        super().__init__(path, mode.replace("b", "").replace("t", ""))

    def write(self, content: Any) -> int:
        """Write, as always."""
        at = os.fstat(self.fileno()).st_size if self._appends else self.tell()
        self._told("write", self._path, content=bytes(content), at=at)
        return super().write(content)

    def truncate(self, size: int | None = None) -> int:
        """Cut, as always."""
        size = self.tell() if size is None else size
        self._told("truncate", self._path, at=size)
        return super().truncate(size)


def _open(
    raw: _Raw,
    mode: str,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    **_: Any,
) -> Any:
    """Return what `open` does for a raw file."""
    if buffering == 0:
        return raw
    buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    if "b" in mode:
        return buffer
    return io.TextIOWrapper(
        buffer, encoding or "utf-8", errors, newline, line_buffering=buffering == 1
    )


def _path(path: Any, dir_fd: int | None = None) -> str:
    """Return the absolute path of what a call names; its last part may be a link."""
    name = os.fsdecode(path)
    if dir_fd is not None:
        name = f"{_name_of(dir_fd)}/{name}"
    folder, last = os.path.split(name.rstrip("/"))
    return f"{os.path.realpath(folder)}/{last}"


def _name_of(handle: int) -> str:
    return str(Path(f"/proc/self/fd/{handle}").readlink())
