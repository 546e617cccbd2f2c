"""Notes that processes leave for each other, and waiting for them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

POLL = 0.01  # seconds


def note(path: Path, values: Any) -> None:
    """Write a note, a JSON value, that appears whole."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.write_text(json.dumps(values))
    os.replace(temporary, path)  # noqa: PTH105 (Path.replace may be what is wrapped)


def read(path: Path) -> dict[str, Any] | None:
    """Return a note, or None where there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found


def wait_for(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Wait until something holds, and tell whether it does."""
    end = time.monotonic() + seconds
    while not (holds := true()) and time.monotonic() < end:
        time.sleep(POLL)
    return holds
