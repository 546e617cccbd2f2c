"""Importing large modules faster."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import torch, or a module that imports it, without Python's garbage collector.

    torch consists of many objects, which stay as long as the process. Yet the collector would look
    through all of them again and again: while they are made, later, and when the process ends.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
