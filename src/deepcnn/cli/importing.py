"""Importing sooner what is large."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import torch, or what imports it, without Python's collector of garbage.

    The many objects that torch is made of stay as long as the process. Yet the collector would look
    through all of them again and again: while they come, later, and as the process ends.
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
