"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp"  # how the name of an unfinished file ends


def write(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that no reader, and no crash, ever sees a part of it.

    The bytes go to a temporary file beside `path`, reach the disk, and then take the name in one
    step; the directory is flushed too, so that the name itself survives a power cut.
    """
    with writing(path) as file:
        file.write(content)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write to, which takes the name `path` when the context ends well.

    As `write`, for what is too large to be in memory.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_directory(path.parent)


def remove_unfinished(directory: Path) -> None:
    """Remove what writers that were killed left in `directory`; call it only as its sole writer."""
    for path in directory.glob(f".*{TEMPORARY}"):
        if not path.is_dir():
            path.unlink(missing_ok=True)


def flush_directory(directory: Path) -> None:
    """Bring the names of the files in a directory to the disk."""
    if os.name == "nt":  # Windows cannot open a directory, and needs no flush of it
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
