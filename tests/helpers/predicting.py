"""What the tests of `predict` share."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

CLASSES = [f"pattern {i}" for i in range(10)]  # of the run that answers
GOOD = ["photos/1.png", "photos/2.jpg", "photos/more/3.png", "photos/more/4.gif"]
# What is said of the folder photos, in which a file lies that is no picture.
PASSED = "predict: passed over 1 file whose name ends as no picture's does: photos/notes.txt.\n"

Predict = Callable[..., tuple[int, bytes, str]]  # arguments to status, output and errors
TypeIn = Callable[[bytes], None]


def rows(out: bytes) -> list[dict[str, str]]:
    """Return the rows of a CSV by the names of its columns."""
    return list(csv.DictReader(io.StringIO(out.decode(errors="surrogateescape"), newline="")))
