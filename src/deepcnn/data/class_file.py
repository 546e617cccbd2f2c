"""The file beside a data set that names its classes, in the order of the labels."""

from __future__ import annotations

import json
from pathlib import Path

from deepcnn.errors import DataError

CLASSES_FILE = "classes.json"
MAX_CLASSES = 1 << 16
MAX_BYTES = 1 << 24


def read(folder: Path) -> tuple[str, ...] | None:
    """Return the names in a folder's file, which `deepcnn data convert` writes, or None."""
    path = folder / CLASSES_FILE
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: expected a JSON list of distinct names ({error})") from error
    return parse(content, str(path))


def parse(content: bytes, name: str) -> tuple[str, ...]:
    """Return the names in a file's content; raises DataError, which names the file."""
    try:
        if len(content) > MAX_BYTES:
            raise ValueError("it is larger than 16 MiB")
        names = json.loads(content)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("it is none")
        for each in names:
            each.encode()
        if not 0 < len(names) <= MAX_CLASSES or len(set(names)) < len(names):
            raise ValueError(f"{len(names):,} names, of which {len(set(names)):,} differ")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: expected a JSON list of distinct names ({error})") from error
    return tuple(names)
