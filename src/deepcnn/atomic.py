"""Files that appear whole or not at all, and names that survive a power cut.

A writer of `NAME` first writes `.NAME.<8 hex digits>.tmp` beside it, and holds a lock (flock) on
this file until it is renamed. A lock ends with its process. So the file of a killed writer can be
told from one that is being written now, and the next writer of the same name removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".tmp"  # how the name of an unfinished file ends
_UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{8}" + re.escape(TEMPORARY), re.DOTALL)


def write(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that no reader, and no crash, ever sees a part of it.

    The bytes go to a temporary file beside `path` and are flushed to the disk. Then the file gets
    its name in one step. The directory is flushed too, so that the name survives a power cut.
    """
    with writing(path) as file:
        file.write(content)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write to, which gets the name `path` when the context ends well.

    It is like `write`, for content that is too large for the memory.
    """
    remove_unfinished(path.parent, path.name)
    with _new(path, is_folder=False) as temporary:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    flush_directory(path.parent)


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Give a new directory, which becomes `target` when the context ends well.

    Missing parents of `target` are made too, and removed again if anything fails. The caller must
    flush what it writes into the directory.
    """
    lacking = [parent for parent in target.parents if not parent.exists()]
    try:
        make_directory(target.parent)
        remove_unfinished(target.parent, target.name)
        with _new(target, is_folder=True) as temporary:
            yield temporary
            for directory, _, _ in os.walk(temporary):
                flush_directory(Path(directory))
            temporary.replace(target)
    except BaseException:
        for parent in lacking:
            with contextlib.suppress(OSError):  # it never came to be, or another uses it
                parent.rmdir()
        raise
    flush_directory(target.parent)


def make_directory(path: Path) -> None:
    """Make a directory with all its parents, unless it exists, and flush their names to the disk.

    Otherwise a power cut could remove a directory whose files were all flushed.
    """
    lacking = [directory for directory in (path, *path.parents) if not directory.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for directory in lacking:
        with contextlib.suppress(PermissionError):  # one may write there, and not list
            flush_directory(directory.parent)


def remove_unfinished(directory: Path, name: str | None = None) -> None:
    """Remove what killed writers of one file or folder, or of any, left in a directory.

    The files of living writers stay, and so do those that may belong to one or cannot be removed.
    """
    try:
        found = [path for path in directory.iterdir() if is_unfinished(path.name, name)]
    except OSError:
        return  # there is none, or it cannot be listed
    for path in found:
        with contextlib.suppress(OSError):
            _remove_if_left(path)


def is_unfinished(found: str, name: str | None = None) -> bool:
    """Tell whether a name is that of an unfinished file, for a certain file or for any."""
    match = _UNFINISHED.fullmatch(found)
    return match is not None and name in (None, match.group(1))


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Give a file to read; raise OSError, saying what is there, unless it is a regular file.

    A link is followed. The function never waits, as opening a pipe would until somebody writes to
    it.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe"}
            what = kinds.get(stat.S_IFMT(mode), "a device or a socket")
            raise OSError(errno.EINVAL, f"expected a file, found {what}", str(path))
        with os.fdopen(handle, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(handle)


def flush_directory(directory: Path) -> None:
    """Flush the names of the files in a directory to the disk."""
    if os.name != "nt":  # Windows cannot open a directory, and needs no flush of it
        flush(directory)


def flush(path: Path) -> None:
    """Flush to the disk what was written to a file, or the names in a directory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _new(path: Path, *, is_folder: bool) -> Iterator[Path]:
    """Make and hold an empty file or folder beside `path`; remove it if the context fails."""
    held = None
    while held is None:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
        if is_folder:
            temporary.mkdir()
        else:
            temporary.open("xb").close()
        try:
            held = _hold(temporary)
        except FileNotFoundError:  # taken for a killed writer's before it was held: another one
            continue
    try:
        yield temporary
    except BaseException:
        if is_folder:
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise
    finally:
        if held >= 0:
            os.close(held)


def _hold(path: Path) -> int:
    """Lock a file or folder while the returned handle is open; -1 if locks are not possible.

    Raises FileNotFoundError if it has been removed meanwhile.
    """
    if fcntl is None:
        return -1
    # NFS locks only what is open for writing.
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: nobody removes it either
            fcntl.flock(handle, fcntl.LOCK_EX)
        path.stat()
    except BaseException:
        os.close(handle)
        raise
    return handle


def _remove_if_left(path: Path) -> None:
    """Remove an unfinished file or folder; raise OSError if it is locked, or something else."""
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return  # no writer makes a link, a pipe or a device
    if fcntl is None:
        if stat.S_ISREG(mode):
            path.unlink()  # which Windows refuses while it is open
        return
    how = os.O_RDONLY if stat.S_ISDIR(mode) else os.O_RDWR
    handle = os.open(path, how | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(mode):
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(handle)
