"""The log of a run: JSON lines, written and read."""

from __future__ import annotations

import dataclasses
import datetime
import gzip
import json
import math
import stat
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from deepcnn import atomic
from deepcnn.errors import RunError
from deepcnn.events import Advanced, Event, Fetching, Reading, Summarized, Traced
from deepcnn.runs.appended import Appended
from deepcnn.shown import in_ascii

MOST_UNPACKED = 2**27  # bytes of a log that is compressed
_GZIP = b"\x1f\x8b"  # what a gzipped file begins with; no JSON does
FOR_PICTURES = (Summarized, Traced)  # events that are drawn, not written as text


class JsonLog:
    """Appends every important event to a file, one object a line, with its name and the time.

    Unfinished lines that a killed process or a power cut left are removed first. If the file cannot
    be written, `note` is called and lines wait; see `Appended`.
    """

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        self._file = Appended(path, note, prepare=lambda: _cut_unfinished(path))

    def __call__(self, event: Event) -> None:
        """Write the event, unless it is only for progress or pictures."""
        if not isinstance(event, (Advanced, Fetching, Reading, *FOR_PICTURES)):
            self._file.write(to_json(event).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _cut_unfinished(path: Path) -> None:
    """Remove lines that are not events; raise OSError if this cannot be done."""
    if path.exists():
        content = path.read_bytes()
        *lines, _unfinished = content.split(b"\n")
        whole = b"".join(line + b"\n" for line in lines if _is_event(line))
        if whole != content:
            atomic.write(path, whole)


def to_json(event: Event) -> str:
    """Return an event as a JSON object in one line; NaN becomes null."""
    values = {
        "event": type(event).__name__,
        "time": datetime.datetime.now().isoformat(),
        **dataclasses.asdict(event),
    }
    return in_ascii(json.dumps(_finite(values), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the events of a log, plain or gzipped, in order.

    A last line without an end, which a killed writer left, is ignored. Raises RunError if the file
    cannot be read, or if any other line is not a JSON object.
    """
    # Not splitlines(), which does not tell whether the last line has an end.
    *whole, _unfinished = _content(path).split(b"\n")
    return [_event(line, f"{path}, line {number}") for number, line in enumerate(whole, 1)]


def events(log: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return the events of a kind, by the name of its class, in order."""
    return [event for event in log if event.get("event") == name]


def _content(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError("expected a file, found something else, such as a pipe")
        content = path.read_bytes()
        if not content.startswith(_GZIP):
            return content
        with gzip.open(path) as file:
            content = file.read(MOST_UNPACKED + 1)
        if len(content) > MOST_UNPACKED:
            raise OSError(f"expected at most {MOST_UNPACKED:,} bytes once unpacked, found more")
        return content
    except (OSError, EOFError, zlib.error) as error:
        raise RunError(f"{path}: cannot be read as a log ({error})") from error


def _is_event(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _event(line: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        shown = line[:40].decode(errors="replace")
        raise RunError(f"{where}: expected a JSON object, found {shown!r} ({error})") from error
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise RunError(f"{where}: expected a JSON object, found another JSON value ({kind})")
    return found
