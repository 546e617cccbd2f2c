"""What the tests of `predict` share."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

CLASSES = [f"pattern {i}" for i in range(10)]  # of the run that answers
GOOD = ["photos/1.png", "photos/2.jpg", "photos/more/3.png", "photos/more/4.gif"]

Predict = Callable[..., tuple[int, bytes, str]]  # arguments to status, output and errors
TypeIn = Callable[[bytes], None]


def rows(out: bytes) -> list[dict[str, str]]:
    """Return the rows of a CSV by the names of its columns."""
    return list(csv.DictReader(io.StringIO(out.decode(errors="surrogateescape"), newline="")))
