"""Finds in the first lines of a table of pixels the columns of label and pixels, and the shape.

Not every CSV is such a table. If its first row is not nearly all numbers, or has fewer than 16, or
names pictures, it is a different kind of table. This is not an error here.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deepcnn.data.formats.csv_text import MAX_LINE, Columns
from deepcnn.data.formats.gzipped import opened
from deepcnn.data.formats.label_tables import ID_COLUMNS, LABEL_COLUMNS
from deepcnn.data.shards import Shape
from deepcnn.errors import DataError
from deepcnn.shown import shown

LEAST_SIDE = 4
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf)", re.I)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Head:
    """What the first lines of a table say: its columns, and where its rows begin.

    `start`, `line`: of the first row, the offset in the unpacked file and the number of its line.
    """

    columns: Columns
    shape: Shape
    start: int
    line: int


def head_of(path: Path) -> Head | None:
    """Return what the first lines of a table say, or None if it is not a table of pixels.

    Raises DataError if its rows are numbers, but not the pixels of square images.
    """
    with opened(path) as stream:
        first, second = (stream.readline(MAX_LINE + 1) for _ in range(2))
    if max(len(first), len(second)) > MAX_LINE:
        raise DataError(
            f"{shown(path)}, line {1 if len(first) > MAX_LINE else 2}: expected lines of at most "
            f"{MAX_LINE:,} bytes, found a longer one. It is no table of pixels or of pictures."
        )
    mark = len(_BYTE_ORDER_MARK) if first.startswith(_BYTE_ORDER_MARK) else 0
    names = _fields(first[mark:])
    has_header = _is_header(names)
    row = _fields(second) if has_header else names
    known = [name.strip().lower() if has_header else "" for name in names]
    label = next((i for i, name in enumerate(known) if name in LABEL_COLUMNS), None)
    number = next((i for i, name in enumerate(known) if has_header and _numbers_rows(name)), None)
    if not _is_of_pixels(names, row, number):
        return None
    others = [i for i in range(len(names)) if i not in (label, number)]
    is_alone = has_header and _shape(len(others)) is not None  # the pixels, without a label
    if label is None and not is_alone and _shape(len(others) - 1):
        label, *others = others
    shape = _shape(len(others))
    if shape is None:
        raise DataError(
            f"{shown(path)}, line 1: expected, beside a label, the pixels of a square image of at "
            f"least {LEAST_SIDE} by {LEAST_SIDE}, n² columns or 3·n², found {len(others):,} of "
            f"{len(names):,} columns. Mend the table, or write the pictures in another form."
        )
    together = others[-1] - others[0] + 1 == len(others)
    columns = Columns(len(names), label, slice(others[0], others[-1] + 1) if together else others)
    return Head(columns, shape, len(first) if has_header else mark, 2 if has_header else 1)


def _fields(line: bytes) -> list[str]:
    """Return the fields of a line; none for a line that is not CSV."""
    try:
        return next(csv.reader([line.decode(errors="replace").rstrip("\r\n")], strict=True), [])
    except csv.Error:
        return []


def _is_header(names: Sequence[str]) -> bool:
    """Tell whether the first line names columns: a row has at most one name, its class."""
    texts = [name for name in names if not NUMBER.fullmatch(name)]
    if len(texts) == 1:
        return texts[0].strip().lower() in LABEL_COLUMNS or _numbers_rows(texts[0])
    # More columns than a pixel has values, numbered from 0 on, as pandas does without names.
    return bool(texts) or (len(names) > 257 and list(names) == [*map(str, range(len(names)))])


def _numbers_rows(name: str) -> bool:
    """Tell whether a column holds numbers of rows, or names of pictures, by its name."""
    name = name.strip().lower()
    return name in ID_COLUMNS or not name or name.startswith("unnamed:")  # as pandas writes it


def _is_of_pixels(names: Sequence[str], row: Sequence[str], number: int | None) -> bool:
    """Tell whether a table with these first lines is one of pixels.

    Nearly all values of its first row must be numbers. If there is no row, nearly all columns must
    be numbered. `number`: the column with numbers of rows; if it holds no numbers, it names
    pictures.
    """
    if len(names) < LEAST_SIDE**2:
        return False
    if not row:
        return sum(name[-1:].isdigit() for name in names) >= len(names) - 2
    if number is not None and number < len(row) and not NUMBER.fullmatch(row[number]):
        return False
    return sum(map(bool, map(NUMBER.fullmatch, row))) >= len(row) - 2


def _shape(values: int) -> Shape | None:
    """Return the shape of a square image with this many values, or None."""
    for channels in (1, 3):
        side = math.isqrt(max(0, values) // channels)
        if side >= LEAST_SIDE and side * side * channels == values:
            return side, side, channels
    return None
