"""How tests wait for what other processes or threads do."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 90.0  # seconds for what takes a few on an idle machine


def wait_for(true: Callable[[], object], seconds: float = PATIENCE) -> bool:
    end = time.monotonic() + seconds
    while not (holds := true()) and time.monotonic() < end:
        time.sleep(0.02)
    return bool(holds)
