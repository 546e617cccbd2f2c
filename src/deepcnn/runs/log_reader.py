"""Reads the log of a run: a JSON object in each line, one for each event."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deepcnn.errors import RunError

_GZIP = b"\x1f\x8b"  # what a gzipped file begins with; no JSON does


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the events of a log, plain or gzipped, in order.

    A last line without an end, which a killed writer left, is left out. Raises RunError where the
    file cannot be read, and where any other line is not a JSON object.
    """
    # Not splitlines(), which does not tell whether the last line has an end.
    *whole, _unfinished = _content(path).split(b"\n")
    return [_event(line, f"{path}, line {number}") for number, line in enumerate(whole, 1)]


def events(log: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return the events of a kind, by the name of its class, in order."""
    return [event for event in log if event.get("event") == name]


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP) else content
    except (OSError, EOFError, zlib.error) as error:
        raise RunError(f"{path}: cannot be read as a log ({error})") from error


def _event(line: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        shown = line[:40].decode(errors="replace")
        raise RunError(f"{where}: expected a JSON object, found {shown!r} ({error})") from error
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise RunError(f"{where}: expected a JSON object, found another JSON value ({kind})")
    return found
